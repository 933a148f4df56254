//! What a peer can say that it should not.

use archipelago_common::{Digest, NodeId, blob::BlobRef};

/// The result of a protocol step.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A message or a chunk that breaks the protocol.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Bytes that are not the message that is due.
    #[error("malformed message")]
    Malformed(#[source] archipelago_common::Error),
    /// The peer is too old to be understood.
    #[error("the peer speaks protocol version {found}, expected at least {oldest}")]
    ProtocolTooOld {
        /// The newest version that the peer speaks.
        found: u16,
        /// The oldest that this build speaks.
        oldest: u16,
    },
    /// A valid message at the wrong moment.
    #[error("{what} came when {expected} was due")]
    OutOfTurn {
        /// What came.
        what: &'static str,
        /// What should have.
        expected: &'static str,
    },
    /// The authority has a second cluster.
    #[error(
        "coordinator {node} is of another cluster, {told}, than this program has been with, {known}: an authority has one; \
         take the coordinators of the other out of the configuration (or, where all of these were replaced, remove the file that \
         remembers them; see docs/operations.md)"
    )]
    AnotherCluster {
        /// Who was asked.
        node: NodeId,
        /// The coordinators of its cluster.
        told: String,
        /// Those of the one that is known.
        known: String,
    },
    /// A request number that is still being answered was used again.
    #[error("request {id} is already being answered")]
    RequestRepeated {
        /// The number.
        id: u64,
    },
    /// A blob over the bound.
    #[error("blob {blob} is larger than the limit of {limit} bytes")]
    BlobTooLarge {
        /// The blob.
        blob: BlobRef,
        /// The bound.
        limit: u64,
    },
    /// A transfer is to start after its blob's end.
    #[error("blob {blob} has {} chunks, so a transfer cannot start at chunk {found}", blob.n_chunks())]
    StartBeyondEnd {
        /// The blob.
        blob: BlobRef,
        /// The first chunk that was asked for.
        found: u64,
    },
    /// Not the next chunk.
    #[error("chunk {found} came when chunk {expected} was due")]
    ChunkOutOfOrder {
        /// The chunk that came.
        found: u64,
        /// The chunk that was due.
        expected: u64,
    },
    /// A chunk of another size than the blob's size implies.
    #[error("chunk {chunk_idx} has {found} bytes, expected {expected}")]
    ChunkSize {
        /// Its place.
        chunk_idx: u64,
        /// Its size.
        found: u64,
        /// The size due.
        expected: u64,
    },
    /// A chunk that does not match its digest.
    #[error("chunk {chunk_idx} does not match its digest")]
    ChunkDigest {
        /// Its place.
        chunk_idx: u64,
    },
    /// All chunks are there, but together they are another blob.
    #[error("the transferred bytes are not the blob {blob}: they hash to {}", found.short())]
    BlobDigest {
        /// The blob that was announced.
        blob: BlobRef,
        /// The digest of what came.
        found: Digest,
    },
    /// The transfer ended early.
    #[error("the transfer ended after {found} of {expected} chunks")]
    Incomplete {
        /// Chunks that came.
        found: u64,
        /// Chunks of the blob.
        expected: u64,
    },
    /// A record of arrived chunks that is not one, or of another blob.
    #[error("the record of arrived chunks is not usable: {detail}")]
    BadRecord {
        /// Why.
        detail: &'static str,
    },
}
