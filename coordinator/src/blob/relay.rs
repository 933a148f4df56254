//! The chunks of an upload on their way to the other coordinators while it still comes in, so that whoever leads next goes
//! on where the sender is.
//!
//! The node that receives writes and records a chunk only when every coordinator that keeps pace has the one before. If it
//! dies, each of them lacks at most one chunk that had arrived. One that falls behind is not waited for until it has caught
//! up; what it lacks in the end it fetches by digest, like any blob. Each relay reads from the partial file and holds one
//! chunk.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use archipelago_common::NodeId;
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
    receiving::{Receiving, Written},
    replicate,
};
use crate::{
    error::Result,
    links::{Link, Links},
};

/// The relays of one upload, to every other coordinator. They end when this is dropped, and the others keep what they have.
pub(super) struct Relays {
    n_written: watch::Sender<u64>,
    standings: Vec<Arc<watch::Sender<Standing>>>,
    running: JoinSet<Option<NodeId>>,
}

/// How far another coordinator is.
#[derive(Clone, Copy, Debug)]
struct Standing {
    n_chunks: u64,
    is_waited_for: bool,
}

/// One relay.
struct Relay {
    link: Arc<Link>,
    written: Arc<Written>,
    n_written: watch::Receiver<u64>,
    standing: Arc<watch::Sender<Standing>>,
}

impl Relays {
    /// Begins to relay what is there and what will come.
    ///
    /// # Errors  [`crate::Error::Common`]
    pub(super) fn begin(links: &Links, receiving: &Receiving) -> Result<Self> {
        let written = Arc::new(receiving.written()?);
        let n_written = watch::Sender::new(receiving.next_chunk());
        let (mut standings, mut running) = (Vec::new(), JoinSet::new());
        for link in links.all() {
            let standing = Standing { n_chunks: 0, is_waited_for: link.takes_relays() };
            let standing = Arc::new(watch::Sender::new(standing));
            standings.push(standing.clone());
            let (written, n_written) = (written.clone(), n_written.subscribe());
            running.spawn(Relay { link, written, n_written, standing }.run());
        }
        Ok(Self { n_written, standings, running })
    }

    /// Waits until every coordinator that keeps pace has the first `n_chunks` chunks; not for long.
    pub(super) async fn keep_pace(&self, n_chunks: u64) {
        let all = async {
            for standing in &self.standings {
                let is_there = |standing: &Standing| !standing.is_waited_for || standing.n_chunks >= n_chunks;
                // The sender is `self`'s, so it is there.
                let _ = standing.subscribe().wait_for(is_there).await;
            }
        };
        if timeout(PATIENCE, all).await.is_err() {
            for standing in &self.standings {
                standing.send_modify(|standing| standing.is_waited_for &= standing.n_chunks >= n_chunks);
            }
        }
    }

    /// So many chunks are written and recorded here.
    pub(super) fn wrote(&self, n_chunks: u64) {
        self.n_written.send_replace(n_chunks);
    }

    /// Once all chunks are written: the coordinators that have made the blob durable, as soon as they are enough, or when
    /// there will be no more. The others are served to the end.
    pub(super) async fn holders(mut self, is_enough: impl Fn(&BTreeSet<NodeId>) -> bool) -> BTreeSet<NodeId> {
        let mut holders = BTreeSet::new();
        while !is_enough(&holders)
            && let Some(ended) = self.running.join_next().await
        {
            holders.extend(ended.ok().flatten());
        }
        self.running.detach_all();
        holders
    }
}

impl Relay {
    /// Relays until the other side has made the blob durable, and again from where it is if something comes between.
    async fn run(mut self) -> Option<NodeId> {
        let mut pause = RETRY;
        loop {
            let Err(error) = self.relay().await else { return Some(self.link.node()) };
            let blob = self.written.blob();
            tracing::debug!(node = %self.link.node(), %blob, %error, "an upload is not relayed");
            self.standing.send_modify(|standing| standing.is_waited_for = false);
            sleep(pause).await;
            pause *= 2;
            if *self.n_written.borrow() == blob.n_chunks() {
                return None;
            }
        }
    }

    async fn relay(&mut self) -> Result<()> {
        let blob = self.written.blob();
        let mut stream = self.link.open_for_relay(&StreamOpen::Relay(blob)).await?;
        let from_chunk = match replicate::receive(&mut stream).await? {
            PutReply::Send { from_chunk } => from_chunk,
            PutReply::Refused(refusal) => return Err(refusal.into()),
            PutReply::Durable | PutReply::Has { .. } => return Err(TransportError::StreamReset.into()),
        };
        let (mut send, mut recv) = stream.split();
        let (written, standing, known) = (&self.written, &self.standing, self.n_written.clone());
        note(standing, from_chunk, &known);
        let n_written = &mut self.n_written;
        let sending = async {
            for chunk_idx in from_chunk..blob.n_chunks() {
                n_written.wait_for(|n| *n > chunk_idx).await.map_err(|_| TransportError::StreamReset)?;
                let chunk = tokio::task::block_in_place(|| written.chunk(chunk_idx))?;
                send.send_frame(&frame::encode(&chunk)?).await?;
            }
            Ok(())
        };
        let hearing = async {
            loop {
                // Only what is due can be late: the sender of the upload may be slow.
                let is_due = || standing.borrow().n_chunks < *known.borrow() || *known.borrow() == blob.n_chunks();
                match hear(&mut recv, is_due).await? {
                    PutReply::Has { n_chunks } => note(standing, n_chunks, &known),
                    PutReply::Durable => return Ok(()),
                    PutReply::Refused(refusal) => return Err(refusal.into()),
                    PutReply::Send { .. } => return Err(TransportError::StreamReset.into()),
                }
            }
        };
        tokio::try_join!(sending, hearing).map(drop)
    }
}

/// Notes how far the other side is. It is waited for (again) if it lacks no more than the chunk under way.
fn note(standing: &watch::Sender<Standing>, n_chunks: u64, n_written: &watch::Receiver<u64>) {
    standing.send_modify(|standing| {
        standing.n_chunks = n_chunks;
        standing.is_waited_for |= n_chunks + 1 >= *n_written.borrow();
    });
}

/// The next word from the other side.
async fn hear(recv: &mut RecvHalf, is_due: impl Fn() -> bool) -> Result<PutReply> {
    loop {
        match timeout(replicate::STEP, recv.recv_frame(PutReply::LIMIT)).await {
            Ok(frame) => return Ok(frame::decode(&frame?.ok_or(TransportError::StreamReset)?)?),
            Err(_) if is_due() => return Err(replicate::stood_still()),
            Err(_) => {}
        }
    }
}

/// How long an upload waits for a coordinator to take a chunk, before it goes on without it.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pause before the first new attempt.
const RETRY: Duration = Duration::from_millis(500);

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
