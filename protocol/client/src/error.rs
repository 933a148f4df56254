//! Why a question to the coordinators has no answer, in words for whoever asked.

use std::{fmt, time::Duration};

use archipelago_common::{NodeId, blob::BlobRef};
use archipelago_protocol::message::Refusal;

/// The result of asking the coordinators.
pub type Result<T, E = ClientError> = std::result::Result<T, E>;

/// A request or a transfer that failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// No coordinator lets us in, and waiting will not help or was not wanted.
    #[error("no coordinator could be reached{tried}")]
    Unreachable {
        /// Every coordinator and what it said last.
        tried: Tried,
    },
    /// The time to wait is over.
    #[error("no answer within {} s{tried}", after.as_secs_f32())]
    TimedOut {
        /// How long was waited, for an answer or for the next byte.
        after: Duration,
        /// What coordinators said meanwhile, if anything.
        tried: Tried,
    },
    /// The coordinators will not do it.
    #[error(transparent)]
    Refused(Refusal),
    /// A coordinator answered something else than what was asked.
    #[error("a coordinator answered with `{found}`, which does not fit the request")]
    UnexpectedReply {
        /// The answer's kind.
        found: String,
    },
    /// A request that cannot be sent.
    #[error("the request cannot be sent: {0}")]
    Request(String),
    /// A blob that is not what it should be, at home or at the coordinator.
    #[error("failed to transfer blob {blob}: {detail}")]
    Transfer {
        /// The blob.
        blob: BlobRef,
        /// Why.
        detail: String,
    },
    /// A local file that cannot be read or written.
    #[error("{0}")]
    File(String),
    /// The configuration names no coordinator.
    #[error("no coordinator is configured")]
    NoCoordinators,
    /// The client has been closed.
    #[error("the client is closed")]
    Closed,
}

impl ClientError {
    /// What the user can do about it, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unreachable { tried } | Self::TimedOut { tried, .. } => tried.0.iter().find_map(|t| t.said.hint()),
            Self::Refused(Refusal::MissingBlobs { .. }) => Some("upload the blobs first"),
            Self::NoCoordinators => Some("name at least one coordinator as `<node id>=<host>:<port>`"),
            _ => None,
        }
    }
}

/// What the coordinators said, one by one.
#[derive(Clone, Debug, Default)]
pub struct Tried(pub Vec<Attempt>);

/// What one coordinator said last.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The coordinator.
    pub node: NodeId,
    /// Its address.
    pub address: String,
    /// How the last attempt ended.
    pub said: archipelago_transport::Error,
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Attempt { node, address, said }) in self.0.iter().enumerate() {
            let separator = if i == 0 { ":" } else { ";" };
            write!(f, "{separator} coordinator {node} at `{address}`: {said}")?;
        }
        Ok(())
    }
}

pub(crate) fn file(error: &archipelago_common::Error) -> ClientError {
    use std::error::Error as _;
    let cause = error.source().map(|source| format!(": {source}")).unwrap_or_default();
    ClientError::File(format!("{error}{cause}"))
}
