//! The disk under this node: how much is free, and what follows when it is too little.
//!
//! Below its reserve a node takes no blobs and gives its leadership to a coordinator that still has space. If none has,
//! it refuses commands as busy, and goes on to follow and vote: the reserve is for the log. Only when that is used up,
//! too, does the log itself find the disk full; see [`crate::raft::drive`].

use std::{io, os::unix::fs::MetadataExt as _, path::PathBuf, time::Duration};

use archipelago_common::{NodeId, health::NodeState};
use archipelago_protocol::message::{PeerAsk, PeerReply};

use super::Executor;
use crate::ops::metrics;

/// Tells how many bytes are free.
pub type Space = Box<dyn Fn() -> io::Result<u64> + Send + Sync>;

/// Bytes free, to this process, in the file system that holds `dir`.
pub fn space_of(dir: PathBuf) -> Space {
    Box::new(move || {
        let of = rustix::fs::statvfs(&dir)?;
        Ok(of.f_bavail.saturating_mul(of.f_frsize))
    })
}

/// Looks at the disk, and at what the log takes of it, for as long as the node runs.
pub async fn watch(executor: Executor, space: Space, log: PathBuf) {
    let mut last = NodeState::Serving;
    loop {
        let condition = executor.condition();
        condition.note_free(space().ok());
        let (node, state) = (executor.raft().view().node, condition.state());
        metrics::condition(&condition.record(node));
        if let Ok(log) = std::fs::metadata(&log) {
            metrics::RAFT_LOG_BYTES.set(log.blocks().saturating_mul(BLOCK) as i64);
        }
        if state != last {
            match state.advice() {
                Some(advice) => tracing::error!(%state, was = %last, "{advice}"),
                None => tracing::info!(%state, was = %last, "the node takes new work again"),
            }
            last = state;
        }
        if state == NodeState::DiskLow && executor.raft().view().is_leader() {
            give_leadership_away(&executor).await;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Hands over to the first voter that says it takes new work. Without one, this node stays: somebody has to answer.
async fn give_leadership_away(executor: &Executor) {
    for node in executor.raft().view().configuration.voters {
        if is_fit(executor, node).await {
            tracing::warn!(to = %node, "giving the leadership away: this node's disk is nearly full");
            executor.raft().hand_over(Some(node), HAND_OVER).await;
            return;
        }
    }
}

async fn is_fit(executor: &Executor, node: NodeId) -> bool {
    let Some(link) = executor.replicas().links().to(node) else { return false };
    let asked = tokio::time::timeout(ASK, link.ask(PeerAsk::Health)).await;
    matches!(asked, Ok(Ok(PeerReply::Health(health))) if health.state == NodeState::Serving)
}

/// What `st_blocks` counts in.
const BLOCK: u64 = 512;
/// How late a full disk may be noticed: at 300 MB/s, the usual reserve lasts about as long.
const LOOK: Duration = Duration::from_secs(1);
/// Longest wait for another coordinator's word.
const ASK: Duration = Duration::from_millis(500);
/// Longest wait for it to take over.
const HAND_OVER: Duration = Duration::from_secs(2);
