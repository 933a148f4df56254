//! The replicated state, shared between the loop that applies commands to it and everybody who asks about it.
//!
//! Questions are answered where they are asked, beside the loop: it waits for those under way only while it applies, and each
//! of them is about one thing or a page of a list. No answer is made, or copied, in the loop.

use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use archipelago_cluster::Cluster;

/// The state of one node. Clones are the same.
#[derive(Clone, Default)]
pub struct State(Arc<RwLock<Cluster>>);

impl State {
    /// A state to begin with.
    pub fn new(cluster: Cluster) -> Self {
        Self(Arc::new(RwLock::new(cluster)))
    }

    /// To look at it; nothing is applied as long as the guard is held.
    pub fn read(&self) -> RwLockReadGuard<'_, Cluster> {
        self.0.read().unwrap_or_else(|e| e.into_inner())
    }

    /// To apply a command.
    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Cluster> {
        self.0.write().unwrap_or_else(|e| e.into_inner())
    }
}
