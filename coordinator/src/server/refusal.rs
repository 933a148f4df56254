//! Why something was not done, in the protocol's words.

use archipelago_cluster as cluster;
use archipelago_protocol::message::Refusal;

use crate::{error::Error, raft::node::Dropped};

/// The state machine's refusal, as peers hear it.
pub fn from_cluster(refusal: cluster::Refusal) -> Refusal {
    match refusal {
        cluster::Refusal::Forbidden { reason } => Refusal::Forbidden { reason },
        cluster::Refusal::NotFound { what } => Refusal::NotFound { what },
        cluster::Refusal::Invalid { reason } => Refusal::Invalid { reason },
        cluster::Refusal::Stale { reason } => Refusal::Stale { reason },
        cluster::Refusal::Conflict { reason } => Refusal::Conflict { reason },
    }
}

/// What this node could not carry out.
pub fn dropped(dropped: Dropped) -> Refusal {
    match dropped {
        Dropped::NotLeader { leader } => Refusal::NotLeader { leader },
        Dropped::Busy => Refusal::Busy { retry_after_ms: RETRY_AFTER_MS },
    }
}

/// An error on the way, as the peer should hear it: its own mistakes in full, this node's troubles as "come again".
pub fn of(error: &Error) -> Refusal {
    match error {
        Error::Refused(refusal) => refusal.clone(),
        Error::Protocol(error) => Refusal::Invalid { reason: error.to_string() },
        Error::DiskLow { .. } => {
            tracing::warn!(%error, "a blob waits for space on the disk");
            Refusal::Busy { retry_after_ms: DISK_MS }
        }
        Error::NoBlob { blob } => Refusal::MissingBlobs { blobs: vec![*blob] },
        Error::Common(error) if !matches!(error, archipelago_common::Error::File { .. }) => {
            Refusal::Invalid { reason: error.to_string() }
        }
        error => {
            tracing::warn!(%error, "a request waits for better times");
            Refusal::Busy { retry_after_ms: TROUBLE_MS }
        }
    }
}

/// About the time of an election.
const RETRY_AFTER_MS: u64 = 200;
/// When the disk is to have space again; a person may have to see to that.
pub(super) const DISK_MS: u64 = 5_000;
/// When a new leader is to know what time it is.
pub(super) const CLOCK_MS: u64 = 50;
/// When something is wrong on this side.
const TROUBLE_MS: u64 = 1_000;
