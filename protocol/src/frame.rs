//! Messages to frames and back, each kind with its own size limit.

use archipelago_common::{codec, limits};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    error::{Error, Result},
    message::{Chunk, FromCoordinator, GetReply, PeerReply, PutReply, StreamOpen, ToCoordinator},
};

/// A kind of message that fills a frame.
pub trait Message: Serialize + DeserializeOwned {
    /// Its name in errors.
    const WHAT: &'static str;
    /// Most bytes of its frame; what a receiver allows before it allocates.
    const LIMIT: usize;
}

/// The frame of a message.
///
/// # Errors  [`Error::Malformed`] if it is larger than its kind allows
pub fn encode<M: Message>(message: &M) -> Result<Vec<u8>> {
    codec::encode(M::WHAT, message, M::LIMIT).map_err(Error::Malformed)
}

/// The message in a frame.
///
/// # Errors  [`Error::Malformed`]
pub fn decode<M: Message>(frame: &[u8]) -> Result<M> {
    codec::decode(M::WHAT, frame, M::LIMIT).map_err(Error::Malformed)
}

/// Most bytes of a frame on a [`StreamOpen::Raft`] stream: an append of 1 MiB with one oversized entry, and room.
pub const RAFT_BYTES: usize = 2 * limits::FRAME_BYTES;

impl Message for StreamOpen {
    const WHAT: &'static str = "stream opening";
    const LIMIT: usize = 4 << 10;
}

impl Message for ToCoordinator {
    const WHAT: &'static str = "message to the coordinator";
    const LIMIT: usize = limits::FRAME_BYTES;
}

impl Message for FromCoordinator {
    const WHAT: &'static str = "message from the coordinator";
    const LIMIT: usize = limits::FRAME_BYTES;
}

impl Message for PutReply {
    const WHAT: &'static str = "answer to an upload";
    const LIMIT: usize = 64 << 10;
}

impl Message for GetReply {
    const WHAT: &'static str = "answer to a download";
    const LIMIT: usize = 64 << 10;
}

impl Message for PeerReply {
    const WHAT: &'static str = "answer to another coordinator";
    const LIMIT: usize = 64 << 10;
}

impl Message for Chunk {
    const WHAT: &'static str = "chunk";
    // Place, digest and length beside the bytes.
    const LIMIT: usize = limits::CHUNK_BYTES as usize + 64;
}
