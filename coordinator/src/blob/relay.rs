//! The chunks of an upload on their way to the other coordinators while it still comes in, so that whoever leads next goes
//! on where the sender is.
//!
//! The node that receives records a chunk only when a majority, itself included, has recorded the one before. Whoever
//! takes the upload over asks a majority what has come ([`super::gather`]), and the two have a node in common: the sender
//! repeats the one chunk under way and no other, whoever was killed. To a node that is far away more chunks than one are under way,
//! or each would cost a round trip: one more for every [`CHUNK_TIME`] of it. Nobody beyond a majority is waited for; what others
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
use archipelago_transport::{Connection, Error as TransportError, RecvHalf};
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
    /// It has recorded so many chunks, from the first, and so many more may be on their way to it.
    Has { n_chunks: u64, n_on_the_way: u64 },
    /// It is of a version that takes whole blobs only, and nobody waits for its chunks.
    TakesNone,
}

/// One relay.
struct Relay {
    link: Arc<Link>,
    part: Arc<Part>,
    n_written: watch::Receiver<u64>,
    standings: Standings,
    /// To the other node and back, the shortest that was seen: a node that is busy is not far away.
    round_trip: Duration,
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
            running.spawn(Relay { link, part, n_written, standings, round_trip: Duration::MAX }.run());
        }
        Ok(Self { blob: receiving.blob(), replicas: replicas.clone(), n_written, standings, running })
    }

    /// Waits until a majority, this node included, has recorded the first `n_chunks` chunks, but for those that are on their way to
    /// nodes far away.
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
            if let Some(Standing::Has { n_chunks, .. }) = self.standing() {
                self.n_written.wait_for(|n| *n > n_chunks || *n == blob.n_chunks()).await.ok()?;
            }
        }
    }

    async fn relay(&mut self) -> Result<()> {
        let blob = self.part.blob();
        let (mut stream, connection) = self.link.open_for_relay(&StreamOpen::Relay(blob)).await?;
        let from_chunk = match frames::receive(&mut stream).await? {
            PutReply::Send { from_chunk } => from_chunk,
            PutReply::Refused(refusal) => return Err(refusal.into()),
            PutReply::Durable | PutReply::Has { .. } => return Err(TransportError::StreamReset.into()),
        };
        self.link.note_takes_relays();
        self.note_has(from_chunk, &connection);
        let (mut send, mut recv) = stream.split();
        let (part, mut n_written, this) = (self.part.clone(), self.n_written.clone(), self);
        let sending = async {
            for chunk_idx in from_chunk..blob.n_chunks() {
                n_written.wait_for(|n| *n > chunk_idx).await.map_err(|_| TransportError::StreamReset)?;
                let chunk = tokio::task::block_in_place(|| part.chunk(chunk_idx))?;
                send.send_pieces(&frame::encode_chunk(&chunk)?).await?;
            }
            Ok(())
        };
        let hearing = async {
            let (mut n_recorded, written) = (from_chunk, this.n_written.clone());
            loop {
                // Only what is due can be late: the sender of the upload may be slow.
                let is_due = || n_recorded < *written.borrow() || *written.borrow() == blob.n_chunks();
                match hear(&mut recv, is_due).await? {
                    PutReply::Has { n_chunks } => {
                        n_recorded = n_chunks;
                        this.note_has(n_chunks, &connection);
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

    fn note_has(&mut self, n_chunks: u64, connection: &Connection) {
        self.round_trip = self.round_trip.min(connection.round_trip());
        self.note(Standing::Has { n_chunks, n_on_the_way: n_on_the_way(self.round_trip) });
    }

    fn note(&self, standing: Standing) {
        self.standings.send_modify(|all| {
            all.insert(self.link.node(), standing);
        });
    }
}

/// Chunks beyond the first that are under way to a node at that distance at most.
fn n_on_the_way(round_trip: Duration) -> u64 {
    let n = round_trip.as_micros() / CHUNK_TIME.as_micros();
    u64::try_from(n).unwrap_or(u64::MAX).min(MOST_ON_THE_WAY)
}

/// Those that have recorded the first `wanted` chunks but for what is on its way to them, or need not.
fn with(wanted: u64, standings: &BTreeMap<NodeId, Standing>) -> BTreeSet<NodeId> {
    let has_them = |standing: &Standing| match standing {
        Standing::Has { n_chunks, n_on_the_way } => n_chunks.saturating_add(*n_on_the_way) >= wanted,
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

/// Half of what a chunk takes on a line of 1 Gbit/s: a line is filled when twice as much is under way as it holds.
const CHUNK_TIME: Duration = Duration::from_millis(5);
/// A round trip of a sixth of a second.
const MOST_ON_THE_WAY: u64 = 32;
/// Pause before the first new attempt; doubles each time.
const RETRY: Duration = Duration::from_millis(100);
/// Longest pause: the sender may be waiting for this one.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
