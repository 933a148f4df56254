//! How a coordinator is: whether it takes new work, what its disk has left, and what became of its blobs.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::NodeId;

/// One coordinator's account of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HealthRecord {
    /// Who it is.
    pub node: NodeId,
    /// Whether it takes new work.
    pub state: NodeState,
    /// Bytes free where its data are; none if the system does not say.
    pub disk_free_bytes: Option<u64>,
    /// Bytes below which it takes no more blobs, so that the log can still grow.
    pub disk_reserve_bytes: u64,
    /// Blobs that the replicated state names and this node lacks, when it last looked.
    pub blobs_missing: u64,
    /// Blobs found damaged since it started; each was put aside and is fetched again from another.
    pub blobs_damaged: u64,
    /// Bytes of unreferenced blobs removed since it started.
    pub reclaimed_bytes: u64,
    /// Whether all blobs are being compared with their digests now.
    pub is_verifying: bool,
    /// When that was last done, Unix milliseconds.
    pub verified_ms: Option<u64>,
}

/// Whether a coordinator takes new work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// Everything.
    Serving,
    /// Its disk is below its reserve: no blobs, and no commands where it leads. It follows and votes.
    DiskLow,
    /// Its disk is full: it has left the consensus until there is space again, and shows what it last knew.
    DiskFull,
    /// It was taken out of the cluster.
    Removed,
}

impl NodeState {
    /// Every state, in the order of severity.
    pub const ALL: [Self; 4] = [Self::Serving, Self::DiskLow, Self::DiskFull, Self::Removed];

    /// Its name in metrics and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::DiskLow => "disk-low",
            Self::DiskFull => "disk-full",
            Self::Removed => "removed",
        }
    }

    /// What a person should do about it, if anything.
    pub fn advice(self) -> Option<&'static str> {
        match self {
            Self::Serving => None,
            Self::DiskLow | Self::DiskFull => Some(
                "read-only: free space where `data_dir` is, or move it to a larger disk; the node goes on by itself",
            ),
            Self::Removed => {
                Some("the node is no member any more: stop it; to bring the machine back, add it as a new id")
            }
        }
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a coordinator removed, or would remove, because nothing refers to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Collected {
    /// Blobs.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Uploads that were given up half-way.
    pub partials: u64,
}

/// What one coordinator answered; none if it could not be asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OfNode<T> {
    /// Who was asked.
    pub node: NodeId,
    /// Its answer.
    pub answer: Option<T>,
}
