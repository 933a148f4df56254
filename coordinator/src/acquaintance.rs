//! Coordinators say who they are before anything else, on every connection: how their log began and which life of it this
//! is, how far it reaches, and which rules they know. A certificate alone does not tell a node from the one that was founded
//! anew under its id, and has forgotten what it promised; nor from a founder of another cluster.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock},
    time::{Duration, Instant},
};

use archipelago_common::{NodeId, member::Origin};
use archipelago_protocol::message::{PeerAsk, PeerReply, Presentation, Refusal, StreamOpen};
use archipelago_transport::{BoxFuture, Connection, Error as TransportError, Transport};

use crate::{
    error::{Error, Result},
    frames,
    links::begin,
};

/// What this side says of itself, and what the others said of themselves last. Clones are the same.
#[derive(Clone, Default)]
pub struct Acquaintance(Arc<Inner>);

#[derive(Default)]
struct Inner {
    greet: OnceLock<Greet>,
    heard: Mutex<BTreeMap<NodeId, Presentation>>,
    /// Coordinators that were refused, here or there, and in which words.
    strangers: Mutex<BTreeMap<NodeId, String>>,
    /// Coordinators that were founded with another list of members, and in which words they were refused.
    misfounded: Mutex<BTreeMap<NodeId, String>>,
    complained: Mutex<Option<Instant>>,
}

/// Says who this side is; nothing while it does not know.
pub type Greet = Box<dyn Fn() -> BoxFuture<'static, Option<Presentation>> + Send + Sync>;

impl Acquaintance {
    /// From now on this side says who it is. The first word counts.
    pub fn greet_with(&self, greet: Greet) {
        let _ = self.0.greet.set(greet);
    }

    /// Who this side is.
    pub async fn own(&self) -> Option<Presentation> {
        self.0.greet.get()?().await
    }

    /// What another side said of itself.
    pub fn note(&self, node: NodeId, said: Presentation) {
        self.strangers().remove(&node);
        self.misfounded().remove(&node);
        self.0.heard.lock().unwrap_or_else(|e| e.into_inner()).insert(node, said);
    }

    /// Another side was refused, or refuses this one: what it said before does not count any more. Says whether this is news.
    pub fn estrange(&self, node: NodeId, reason: &str) -> bool {
        self.0.heard.lock().unwrap_or_else(|e| e.into_inner()).remove(&node);
        self.strangers().insert(node, reason.to_owned()).is_none_or(|before| before != reason)
    }

    /// A coordinator was founded with another list of members, and is refused in these words.
    pub fn note_misfounded(&self, node: NodeId, reason: &str) {
        self.misfounded().insert(node, reason.to_owned());
    }

    /// In which words a coordinator was refused that was founded with another list of members, if one was.
    pub fn refused_founder(&self) -> Option<String> {
        self.misfounded().values().next().cloned()
    }

    fn misfounded(&self) -> MutexGuard<'_, BTreeMap<NodeId, String>> {
        self.0.misfounded.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn strangers(&self) -> MutexGuard<'_, BTreeMap<NodeId, String>> {
        self.0.strangers.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// What a coordinator said of itself last.
    pub fn heard(&self, node: NodeId) -> Option<Presentation> {
        self.0.heard.lock().unwrap_or_else(|e| e.into_inner()).get(&node).copied()
    }

    /// Connects to a coordinator and says who this side is.
    ///
    /// # Errors  [`Error::Transport`]; [`Error::Refused`]: it does not know this side
    pub async fn dial(&self, transport: &dyn Transport, address: &str, node: NodeId) -> Result<Connection> {
        let Some(own) = self.own().await else { return Ok(transport.dial(address, node).await?) };
        // One of an earlier version does not know what the first means, or even the second, and ends the connection.
        for words in [PeerAsk::Present(own), PeerAsk::Greet(own.greeting)] {
            let connection = transport.dial(address, node).await?;
            let said = match tokio::time::timeout(PATIENCE, ask(&connection, words)).await {
                Ok(Ok(PeerReply::Presentation(said))) => said,
                Ok(Ok(PeerReply::Greeting(greeting))) => Presentation { greeting, origin: Origin::Unknown },
                Ok(Ok(PeerReply::Refused(refusal))) => {
                    let reason = match &refusal {
                        Refusal::Forbidden { reason } => reason.clone(),
                        Refusal::Conflict { reason } => {
                            self.note_misfounded(node, reason);
                            reason.clone()
                        }
                        other => other.to_string(),
                    };
                    self.complain(node, &reason);
                    self.estrange(node, &reason);
                    return Err(refusal.into());
                }
                Ok(Err(Error::Transport(TransportError::Closed { .. }))) => continue,
                Ok(Ok(_)) => return Err(TransportError::StreamReset.into()),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(frames::stood_still()),
            };
            self.note(node, said);
            return Ok(connection);
        }
        tracing::debug!(%node, "a coordinator of an earlier version");
        Ok(transport.dial(address, node).await?)
    }

    /// Says that this side is not known, now and then.
    fn complain(&self, node: NodeId, reason: &str) {
        let mut complained = self.0.complained.lock().unwrap_or_else(|e| e.into_inner());
        if complained.is_none_or(|at| at.elapsed() > COMPLAINT) {
            *complained = Some(Instant::now());
            tracing::error!(%node, reason, "another coordinator does not take this node for a member");
        }
    }
}

async fn ask(connection: &Connection, words: PeerAsk) -> Result<PeerReply> {
    let mut stream = begin(connection, &StreamOpen::Peer(words)).await?;
    frames::receive(&mut stream).await
}

/// Longest wait for the answer to a greeting.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pause between two complaints.
const COMPLAINT: Duration = Duration::from_secs(30);
