//! How this node is: one small table that every part writes its own line of, and that status, health and metrics show.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use archipelago_common::{
    NodeId,
    health::{HealthRecord, NodeState},
};

/// The node's condition. Parts share it; nothing in here is waited for.
#[derive(Debug)]
pub struct Condition {
    reserve_bytes: u64,
    free_bytes: AtomicU64,
    is_log_full: AtomicBool,
    is_removed: AtomicBool,
    n_missing: AtomicU64,
    n_damaged: AtomicU64,
    reclaimed_bytes: AtomicU64,
    is_verifying: AtomicBool,
    verified_ms: AtomicU64,
}

impl Condition {
    /// A node in good order, which takes no blobs while less than `reserve_bytes` is free.
    pub fn new(reserve_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            reserve_bytes,
            free_bytes: AtomicU64::new(UNKNOWN),
            is_log_full: AtomicBool::new(false),
            is_removed: AtomicBool::new(false),
            n_missing: AtomicU64::new(0),
            n_damaged: AtomicU64::new(0),
            reclaimed_bytes: AtomicU64::new(0),
            is_verifying: AtomicBool::new(false),
            verified_ms: AtomicU64::new(UNKNOWN),
        })
    }

    /// Whether the node takes new work.
    pub fn state(&self) -> NodeState {
        if self.is_removed.load(Relaxed) {
            NodeState::Removed
        } else if self.is_log_full.load(Relaxed) {
            NodeState::DiskFull
        } else if self.free_bytes.load(Relaxed) < self.reserve_bytes {
            NodeState::DiskLow
        } else {
            NodeState::Serving
        }
    }

    /// The whole table.
    pub fn record(&self, node: NodeId) -> HealthRecord {
        let known = |value: &AtomicU64| Some(value.load(Relaxed)).filter(|value| *value != UNKNOWN);
        HealthRecord {
            node,
            state: self.state(),
            disk_free_bytes: known(&self.free_bytes),
            disk_reserve_bytes: self.reserve_bytes,
            blobs_missing: self.n_missing.load(Relaxed),
            blobs_damaged: self.n_damaged.load(Relaxed),
            reclaimed_bytes: self.reclaimed_bytes.load(Relaxed),
            is_verifying: self.is_verifying.load(Relaxed),
            verified_ms: known(&self.verified_ms),
        }
    }

    /// Bytes that may still be used for blobs.
    pub fn spare_bytes(&self) -> u64 {
        self.free_bytes.load(Relaxed).saturating_sub(self.reserve_bytes)
    }

    /// Notes how many bytes are free; `None` if the system does not say.
    pub fn note_free(&self, free_bytes: Option<u64>) {
        self.free_bytes.store(free_bytes.unwrap_or(UNKNOWN), Relaxed);
    }

    /// Notes whether the log found the disk full.
    pub fn note_log_full(&self, is_full: bool) {
        self.is_log_full.store(is_full, Relaxed);
    }

    /// Notes whether this node is out of the cluster.
    pub fn note_removed(&self, is_removed: bool) {
        self.is_removed.store(is_removed, Relaxed);
    }

    /// Notes how many blobs are missing.
    pub fn note_missing(&self, n_missing: u64) {
        self.n_missing.store(n_missing, Relaxed);
    }

    /// Notes a blob that was not what its digest says.
    pub fn note_damaged(&self) {
        self.n_damaged.fetch_add(1, Relaxed);
    }

    /// Notes bytes of blobs that were removed.
    pub fn note_reclaimed(&self, bytes: u64) {
        self.reclaimed_bytes.fetch_add(bytes, Relaxed);
    }

    /// Notes that all blobs are being verified. Says whether they were already.
    pub fn begin_verifying(&self) -> bool {
        self.is_verifying.swap(true, Relaxed)
    }

    /// Notes that a round of verifying, unasked, has ended.
    pub fn note_verified(&self, at_ms: u64) {
        self.verified_ms.store(at_ms, Relaxed);
    }

    /// Notes that all blobs have been verified, or that it was given up (`None`).
    pub fn end_verifying(&self, at_ms: Option<u64>) {
        if let Some(at_ms) = at_ms {
            self.verified_ms.store(at_ms, Relaxed);
        }
        self.is_verifying.store(false, Relaxed);
    }
}

/// No value yet. As a number of free bytes it is more than any disk has.
const UNKNOWN: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_state_is_the_one_that_is_shown() {
        let condition = Condition::new(100);
        assert_eq!(condition.state(), NodeState::Serving);
        condition.note_free(Some(99));
        assert_eq!((condition.state(), condition.spare_bytes()), (NodeState::DiskLow, 0));
        condition.note_log_full(true);
        assert_eq!(condition.state(), NodeState::DiskFull);
        condition.note_log_full(false);
        condition.note_free(Some(150));
        assert_eq!((condition.state(), condition.spare_bytes()), (NodeState::Serving, 50));
        condition.note_removed(true);
        assert_eq!(condition.record(NodeId::new(1).unwrap()).state, NodeState::Removed);
    }
}
