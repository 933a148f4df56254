//! Coordinators say who they are before anything else, on every connection: which life of their log it is, how far it
//! reaches, and which rules they know. A certificate alone does not tell a node from the one that was founded anew under
//! its id, and has forgotten what it promised.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant},
};

use archipelago_common::NodeId;
use archipelago_protocol::message::{Greeting, PeerAsk, PeerReply, StreamOpen};
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
    heard: Mutex<BTreeMap<NodeId, Greeting>>,
    complained: Mutex<Option<Instant>>,
}

/// Says who this side is; nothing while it does not know.
pub type Greet = Box<dyn Fn() -> BoxFuture<'static, Option<Greeting>> + Send + Sync>;

impl Acquaintance {
    /// From now on this side says who it is. The first word counts.
    pub fn greet_with(&self, greet: Greet) {
        let _ = self.0.greet.set(greet);
    }

    /// Who this side is.
    pub async fn own(&self) -> Option<Greeting> {
        self.0.greet.get()?().await
    }

    /// What another side said of itself.
    pub fn note(&self, node: NodeId, greeting: Greeting) {
        self.0.heard.lock().unwrap_or_else(|e| e.into_inner()).insert(node, greeting);
    }

    /// What a coordinator said of itself last.
    pub fn heard(&self, node: NodeId) -> Option<Greeting> {
        self.0.heard.lock().unwrap_or_else(|e| e.into_inner()).get(&node).copied()
    }

    /// Connects to a coordinator and says who this side is.
    ///
    /// # Errors  [`Error::Transport`]; [`Error::Refused`]: it does not know this side
    pub async fn dial(&self, transport: &dyn Transport, address: &str, node: NodeId) -> Result<Connection> {
        let connection = transport.dial(address, node).await?;
        let Some(own) = self.own().await else { return Ok(connection) };
        match tokio::time::timeout(PATIENCE, ask(&connection, own)).await {
            Ok(Ok(PeerReply::Greeting(greeting))) => self.note(node, greeting),
            Ok(Ok(PeerReply::Refused(refusal))) => {
                self.complain(node, &refusal.to_string());
                return Err(refusal.into());
            }
            // One of an earlier version does not know what a greeting is, and ends the connection.
            Ok(Err(Error::Transport(TransportError::Closed { .. }))) => {
                tracing::debug!(%node, "a coordinator of an earlier version");
                return Ok(transport.dial(address, node).await?);
            }
            Ok(Ok(_)) => return Err(TransportError::StreamReset.into()),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(frames::stood_still()),
        }
        Ok(connection)
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

async fn ask(connection: &Connection, own: Greeting) -> Result<PeerReply> {
    let mut stream = begin(connection, &StreamOpen::Peer(PeerAsk::Greet(own))).await?;
    frames::receive(&mut stream).await
}

/// Longest wait for the answer to a greeting.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pause between two complaints.
const COMPLAINT: Duration = Duration::from_secs(30);
