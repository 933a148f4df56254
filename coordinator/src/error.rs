//! What can go wrong in a coordinator or in a command to one, in words a person can act on.

use std::path::{Path, PathBuf};

use archipelago_client::ClientError;
use archipelago_common::{BlobRef, NodeId};
use archipelago_protocol::message::Refusal;

/// The result of a coordinator's operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An operation of a coordinator that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A common value or file.
    #[error(transparent)]
    Common(#[from] archipelago_common::Error),
    /// The connection to a peer.
    #[error(transparent)]
    Transport(#[from] archipelago_transport::Error),
    /// A port of this machine.
    #[error("the page cannot be served")]
    Serve {
        /// The operating system's word on it.
        #[source]
        source: std::io::Error,
    },
    /// A packed reference.
    #[error(transparent)]
    Pack(#[from] archipelago_pack::Error),
    /// What a peer says.
    #[error(transparent)]
    Protocol(#[from] archipelago_protocol::Error),
    /// A data directory is founded twice.
    #[error("`{}` already holds the log of a node", path.display())]
    LogExists {
        /// The log file.
        path: PathBuf,
    },
    /// A node is started without a log.
    #[error("node {node} has no log at `{}`", path.display())]
    NoLog {
        /// Where it should be.
        path: PathBuf,
        /// The node.
        node: NodeId,
    },
    /// The log's bytes are not what was written.
    #[error("the log `{}` is damaged: {detail}", path.display())]
    LogCorrupted {
        /// The log file.
        path: PathBuf,
        /// Where, and what is there.
        detail: String,
    },
    /// Two processes over one data directory.
    #[error("the log `{}` is in use by another process", path.display())]
    LogInUse {
        /// The log file.
        path: PathBuf,
    },
    /// The log was written by another version of this program.
    #[error("the log `{}` has format {found}, expected {expected}", path.display())]
    LogFormat {
        /// The log file.
        path: PathBuf,
        /// The format found.
        found: u64,
        /// The format this build writes.
        expected: u64,
    },
    /// The log belongs to somebody else.
    #[error("the log `{}` belongs to node {found}, expected node {expected}", path.display())]
    LogOfOtherNode {
        /// The log file.
        path: PathBuf,
        /// Whose it is.
        found: u64,
        /// Whose it should be.
        expected: NodeId,
    },
    /// The log cannot be read or written.
    #[error("failed to {action} the log `{}`", path.display())]
    Log {
        /// `open`, `write`…
        action: &'static str,
        /// The log file.
        path: PathBuf,
        /// The store's word on it.
        #[source]
        source: Box<redb::Error>,
    },
    /// Raft refuses its configuration or state.
    #[error("the consensus module refuses: {detail}")]
    Raft {
        /// Its word on it.
        detail: String,
    },
    /// A committed entry that this build cannot read. Going on without it would let the nodes' states drift apart.
    #[error("committed entry {index} cannot be applied")]
    Entry {
        /// Its place in the log.
        index: u64,
        /// Why.
        #[source]
        source: archipelago_common::Error,
    },
    /// A blob is not in this store.
    #[error("blob {blob} is not here")]
    NoBlob {
        /// Which.
        blob: BlobRef,
    },
    /// A blob that a disk has spoilt.
    #[error("blob {blob} is damaged on this node's disk")]
    Damaged {
        /// Which.
        blob: BlobRef,
    },
    /// Somebody else is sending the same blob.
    #[error("blob {blob} is being received already")]
    BlobBusy {
        /// Which.
        blob: BlobRef,
    },
    /// This node's disk has no room for a blob.
    #[error("there is no room for blob {blob}: {spare} bytes are left above the reserve")]
    DiskLow {
        /// Which.
        blob: BlobRef,
        /// Bytes that may still be used for blobs.
        spare: u64,
    },
    /// A blob larger than any may be.
    #[error("blob {blob} is larger than the limit of {limit} bytes")]
    BlobTooLarge {
        /// Which.
        blob: BlobRef,
        /// The bound.
        limit: u64,
    },
    /// A blob, or the next chunk of one, could not be brought to a majority of coordinators.
    #[error("blob {blob} reaches {found} coordinators, {needed} are needed")]
    NoMajority {
        /// Which.
        blob: BlobRef,
        /// Coordinators that have it, or answer.
        found: usize,
        /// Coordinators that must.
        needed: usize,
    },
    /// A configuration that contradicts itself or lacks something.
    #[error("{place}: {detail}")]
    Config {
        /// File and field, flag or variable.
        place: String,
        /// What was found and what is expected.
        detail: String,
    },
    /// The coordinator did not do what a command asked for.
    #[error("{0}")]
    Refused(#[from] archipelago_protocol::message::Refusal),
    /// The port for metrics and health cannot be opened.
    #[error("failed to listen on `{address}` for metrics and health")]
    Ops {
        /// The address.
        address: String,
        /// The operating system's word on it.
        #[source]
        source: std::io::Error,
    },
    /// A question to the cluster has no answer.
    #[error(transparent)]
    Client(#[from] archipelago_client::ClientError),
    /// The cluster answered something else than what was asked.
    #[error("the coordinator gave an unexpected answer: {reply}")]
    UnexpectedReply {
        /// The beginning of the answer.
        reply: String,
    },
    /// It is proposed, and not done.
    #[error("two persons do this together, so it is proposed and not done yet:\n{proposal}")]
    Proposed {
        /// The proposal, and what to do with it.
        proposal: String,
    },
    /// A version that a reference does not have.
    #[error("reference `{name}` has no version {id}")]
    NoVersion {
        /// The reference.
        name: archipelago_common::Name,
        /// The version asked for.
        id: archipelago_common::VersionId,
    },
    /// `doctor` found things that do not work.
    #[error(transparent)]
    Unwell(#[from] archipelago_common::finding::Unwell),
    /// The process lacks what it needs from the operating system.
    #[error("failed to start the runtime")]
    Runtime {
        /// The operating system's word on it.
        #[source]
        source: std::io::Error,
    },
    /// This node has come to something else than the others have, from the same commands.
    #[error("after {length} commands this node holds another state than {n_others} of the other coordinators")]
    Diverged {
        /// Where that shows.
        length: u64,
        /// How many hold another.
        n_others: usize,
    },
    /// The node ends because a part of it did.
    #[error("{part} has ended")]
    Ended {
        /// Which part.
        part: &'static str,
    },
}

impl Error {
    /// A failed operation on the log, told apart by what a person would do about it.
    pub(crate) fn log(action: &'static str, path: &Path, source: redb::Error) -> Self {
        let path = path.to_owned();
        match source {
            redb::Error::Corrupted(detail) => Self::LogCorrupted { path, detail },
            redb::Error::RepairAborted => Self::LogCorrupted { path, detail: "its repair failed".to_owned() },
            redb::Error::DatabaseAlreadyOpen => Self::LogInUse { path },
            source => Self::Log { action, path, source: Box::new(source) },
        }
    }

    /// Whether it is for want of space on the disk.
    pub fn is_disk_full(&self) -> bool {
        let io = match self {
            Self::Log { source, .. } => match &**source {
                redb::Error::Io(io) => io,
                _ => return false,
            },
            Self::Common(archipelago_common::Error::File { source, .. }) => source,
            _ => return false,
        };
        matches!(io.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
    }

    /// Whether it is this node's own trouble with a blob, and no mistake of the peer's that asked for it.
    pub(crate) fn is_trouble_with_blob(&self) -> bool {
        matches!(
            self,
            Self::NoBlob { .. }
                | Self::Damaged { .. }
                | Self::BlobBusy { .. }
                | Self::Common(archipelago_common::Error::File { .. })
        )
    }

    /// What the user can do about it, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Transport(error) => return error.hint(),
            Self::Pack(error) => return error.hint(),
            Self::Client(ClientError::Refused(Refusal::NotFound { .. })) => {
                "see what there is with `reference list`, `task list` or `site list`"
            }
            Self::Client(error) => return error.hint(),
            Self::Common(archipelago_common::Error::File { path, .. }) if path.ends_with("version.json") => {
                "give the directory that `archipelago-worker train` or `map` wrote"
            }
            Self::Proposed { .. } => "`archipelago-coordinator proposals list` shows what becomes of it",
            Self::UnexpectedReply { .. } => "use the version of archipelago-coordinator that the cluster runs",
            Self::NoVersion { .. } => "see its versions with `archipelago-coordinator reference show`",
            Self::LogExists { .. } => {
                "start it with `archipelago-coordinator serve`, or choose an empty data directory"
            }
            Self::NoLog { .. } => {
                "a new cluster starts with `archipelago-coordinator init`; a node that lost its disk must not return \
                 under its old id, because it may vote twice"
            }
            Self::LogCorrupted { .. } => {
                "keep this directory for inspection and do not start the node on it: the other coordinators hold \
                 everything that was acknowledged; restore the directory from a copy of this node's disk, or replace \
                 the node by one with a new id"
            }
            Self::LogInUse { .. } => "stop the other `archipelago-coordinator serve` first",
            Self::LogFormat { .. } => "use the version of archipelago-coordinator that wrote it, or a later one",
            Self::LogOfOtherNode { .. } => {
                "check `node` and `data` in the configuration: each node has its own directory"
            }
            Self::Entry { .. } => "upgrade this node to the version that the others run",
            Self::Diverged { .. } => {
                "keep this directory for inspection and do not start the node on it: replace the node by one with a new id"
            }
            Self::NoMajority { .. } => {
                "check that a majority of the coordinators runs: `archipelago-coordinator status`"
            }
            Self::Ops { .. } => {
                "another process may use the address; choose a free port with `ops` in the configuration"
            }
            _ => return None,
        })
    }

    /// Whether the command line or a configuration is at fault, and not the work.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Config { .. })
    }
}
