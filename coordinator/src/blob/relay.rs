//! The chunks of an upload on their way to the other coordinators while it still comes in, so that whoever leads next goes
//! on where the sender is.
//!
//! The node that receives records a chunk only when a majority, itself included, has recorded the one before. Whoever
//! takes the upload over asks a majority what has come ([`super::gather`]), and the two have a node in common: the sender
//! repeats the one chunk under way and no other, whoever was killed. Nobody beyond a majority is waited for; what others
//! lack comes later. Without a majority the blob could not become durable anyway: its sender waits, and is told to come
//! again if that takes long. Each relay reads from the partial file and holds one chunk.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use archipelago_common::{BlobRef, NodeId};
use archipelago_protocol::{
    frame::{self, Message as _},
    message::{PutReply, StreamOpen},
};
use archipelago_transport::{Error as TransportError, RecvHalf};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    receiving::{Part, Receiving},
    replicate::{self, Replicas},
};
use crate::{
    error::{Error, Result},
    frames,
    links::Link,
};

/// The relays of one upload, to every other coordinator. They end when this is dropped, and the others keep what they have.
pub(crate) struct Relays {
    blob: BlobRef,
    replicas: Replicas,
    n_written: watch::Sender<u64>,
    standings: Standings,
    running: JoinSet<Option<NodeId>>,
}

/// How far every other coordinator is; nothing is known of one that is not in it.
type Standings = Arc<watch::Sender<BTreeMap<NodeId, Standing>>>;

/// How far another coordinator is.
#[derive(Clone, Copy, Debug)]
enum Standing {
    /// It has recorded so many chunks, from the first.
    Has(u64),
    /// It is of a version that takes whole blobs only, and nobody waits for its chunks.
    TakesNone,
}

/// One relay.
struct Relay {
    link: Arc<Link>,
    part: Arc<Part>,
    n_written: watch::Receiver<u64>,
    standings: Standings,
}

impl Relays {
    /// Begins to relay what is there and what will come.
    ///
    /// # Errors  [`Error::Common`]
    pub(crate) fn begin(replicas: &Replicas, receiving: &Receiving) -> Result<Self> {
        let part = Arc::new(receiving.part()?);
        let n_written = watch::Sender::new(receiving.next_chunk());
        let (standings, mut running) = (Standings::default(), JoinSet::new());
        for link in replicas.links().all() {
            let (part, n_written, standings) = (part.clone(), n_written.subscribe(), standings.clone());
            running.spawn(Relay { link, part, n_written, standings }.run());
        }
        Ok(Self { blob: receiving.blob(), replicas: replicas.clone(), n_written, standings, running })
    }

    /// Waits until a majority, this node included, has recorded the first `n_chunks` chunks.
    ///
    /// # Errors  [`Error::NoMajority`] if that takes too long
    pub(crate) async fn keep_pace(&self, n_chunks: u64) -> Result<()> {
        let (mut standings, mut view) = (self.standings.subscribe(), self.replicas.raft().watch());
        let mut lacking = None;
        let reached = async {
            loop {
                lacking = self.replicas.lacking(&with(n_chunks, &standings.borrow_and_update()));
                if lacking.is_none() {
                    return;
                }
                tokio::select! {
                    // The sender is `self`'s, so it is there.
                    _ = standings.changed() => {}
                    // Members may change meanwhile.
                    Ok(()) = view.changed() => {}
                }
            }
        };
        let _ = timeout(frames::STEP, reached).await;
        replicate::none_lacking(self.blob, lacking)
    }

    /// So many chunks are written and recorded here.
    pub(crate) fn wrote(&self, n_chunks: u64) {
        self.n_written.send_replace(n_chunks);
    }

    /// Once all chunks are written: waits until the blob is durable on a majority, this node included; `false` if the
    /// relays alone do not get there. The other coordinators are served to the end.
    pub(crate) async fn conclude(mut self) -> bool {
        let mut holders = BTreeSet::new();
        while self.replicas.lacking(&holders).is_some()
            && let Some(ended) = self.running.join_next().await
        {
            holders.extend(ended.ok().flatten());
        }
        self.running.detach_all();
        self.replicas.lacking(&holders).is_none()
    }
}

impl Relay {
    /// Relays until the other side has made the blob durable, and again from where it is if something comes between.
    async fn run(mut self) -> Option<NodeId> {
        let mut pause = RETRY;
        loop {
            let Err(error) = self.relay().await else { return Some(self.link.node()) };
            let blob = self.part.blob();
            tracing::debug!(node = %self.link.node(), %blob, %error, "an upload is not relayed");
            if *self.n_written.borrow() == blob.n_chunks() {
                return None;
            }
            if matches!(error, Error::Transport(TransportError::Closed { .. })) && !self.link.takes_relays() {
                self.note(Standing::TakesNone);
            }
            sleep(pause).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
            // Whoever has nothing to give takes nobody's turn.
            if let Some(Standing::Has(n_recorded)) = self.standing() {
                self.n_written.wait_for(|n| *n > n_recorded || *n == blob.n_chunks()).await.ok()?;
            }
        }
    }

    async fn relay(&mut self) -> Result<()> {
        let blob = self.part.blob();
        let mut stream = self.link.open_for_relay(&StreamOpen::Relay(blob)).await?;
        let from_chunk = match frames::receive(&mut stream).await? {
            PutReply::Send { from_chunk } => from_chunk,
            PutReply::Refused(refusal) => return Err(refusal.into()),
            PutReply::Durable | PutReply::Has { .. } => return Err(TransportError::StreamReset.into()),
        };
        self.link.note_takes_relays();
        self.note(Standing::Has(from_chunk));
        let (mut send, mut recv) = stream.split();
        let (this, mut n_written) = (&*self, self.n_written.clone());
        let sending = async {
            for chunk_idx in from_chunk..blob.n_chunks() {
                n_written.wait_for(|n| *n > chunk_idx).await.map_err(|_| TransportError::StreamReset)?;
                let chunk = tokio::task::block_in_place(|| this.part.chunk(chunk_idx))?;
                send.send_frame(&frame::encode(&chunk)?).await?;
            }
            Ok(())
        };
        let hearing = async {
            let mut n_recorded = from_chunk;
            loop {
                // Only what is due can be late: the sender of the upload may be slow.
                let is_due = || n_recorded < *this.n_written.borrow() || *this.n_written.borrow() == blob.n_chunks();
                match hear(&mut recv, is_due).await? {
                    PutReply::Has { n_chunks } => {
                        n_recorded = n_chunks;
                        this.note(Standing::Has(n_chunks));
                    }
                    PutReply::Durable => return Ok(()),
                    PutReply::Refused(refusal) => return Err(refusal.into()),
                    PutReply::Send { .. } => return Err(TransportError::StreamReset.into()),
                }
            }
        };
        tokio::try_join!(sending, hearing).map(drop)
    }

    fn standing(&self) -> Option<Standing> {
        self.standings.borrow().get(&self.link.node()).copied()
    }

    fn note(&self, standing: Standing) {
        self.standings.send_modify(|all| {
            all.insert(self.link.node(), standing);
        });
    }
}

/// Those that have recorded the first `n_chunks` chunks, or need not.
fn with(n_chunks: u64, standings: &BTreeMap<NodeId, Standing>) -> BTreeSet<NodeId> {
    let has_them = |standing: &Standing| match standing {
        Standing::Has(n) => *n >= n_chunks,
        Standing::TakesNone => true,
    };
    standings.iter().filter(|(_, standing)| has_them(standing)).map(|(node, _)| *node).collect()
}

/// The next word from the other side.
async fn hear(recv: &mut RecvHalf, is_due: impl Fn() -> bool) -> Result<PutReply> {
    loop {
        match timeout(frames::STEP, recv.recv_frame(PutReply::LIMIT)).await {
            Ok(frame) => return Ok(frame::decode(&frame?.ok_or(TransportError::StreamReset)?)?),
            Err(_) if is_due() => return Err(frames::stood_still()),
            Err(_) => {}
        }
    }
}

/// Pause before the first new attempt; doubles each time.
const RETRY: Duration = Duration::from_millis(100);
/// Longest pause: the sender may be waiting for this one.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
