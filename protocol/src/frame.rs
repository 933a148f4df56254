//! Messages to frames and back, each kind with its own size limit.

use archipelago_common::{Digest, codec, limits};
use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

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

    /// The message in a frame that is its own from now on.
    ///
    /// # Errors  [`Error::Malformed`]
    fn of_frame(frame: Vec<u8>) -> Result<Self> {
        decode(&frame)
    }
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

/// The frame of a chunk, as what comes before its bytes and these: a megabyte is not copied.
///
/// # Errors  [`Error::Malformed`] if it is larger than a chunk may be
pub fn encode_chunk(chunk: &Chunk) -> Result<[Bytes; 2]> {
    // Bytes are encoded as their number, and themselves.
    let head = (chunk.chunk_idx, chunk.digest, chunk.bytes.len() as u64);
    let room = Chunk::LIMIT.saturating_sub(chunk.bytes.len());
    let head = codec::encode(Chunk::WHAT, &head, room).map_err(Error::Malformed)?;
    Ok([head.into(), chunk.bytes.clone()])
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

    /// Its bytes stay where they came.
    fn of_frame(frame: Vec<u8>) -> Result<Self> {
        #[derive(Deserialize)]
        struct Borrowed<'a> {
            chunk_idx: u64,
            digest: Digest,
            bytes: &'a [u8],
        }

        let frame = Bytes::from(frame);
        let Borrowed { chunk_idx, digest, bytes } =
            codec::decode(Self::WHAT, &frame, Self::LIMIT).map_err(Error::Malformed)?;
        Ok(Self { chunk_idx, digest, bytes: frame.slice_ref(bytes) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_that_is_not_copied_is_the_same_on_the_wire() {
        for size in [0, 1, 250, 251, 1 << 16, limits::CHUNK_BYTES as usize] {
            let bytes: Bytes = (0..size).map(|i| (i % 251) as u8).collect();
            let chunk = Chunk { chunk_idx: 300, digest: Digest::of(&bytes), bytes };
            let whole = encode(&chunk).unwrap();
            assert_eq!(encode_chunk(&chunk).unwrap().concat(), whole);
            assert_eq!(Chunk::of_frame(whole.clone()).unwrap(), chunk);
            assert_eq!(decode::<Chunk>(&whole).unwrap(), chunk);
        }
    }

    #[test]
    fn a_chunk_over_the_limit_is_not_encoded_and_a_torn_one_not_read() {
        let bytes = Bytes::from(vec![0; Chunk::LIMIT]);
        let chunk = Chunk { chunk_idx: 0, digest: Digest::of(&bytes), bytes };
        assert!(encode_chunk(&chunk).is_err());
        let small = Chunk { bytes: chunk.bytes.slice(..100), ..chunk };
        let frame = encode(&small).unwrap();
        for torn in [&frame[..frame.len() - 1], &[&frame[..], &[0]].concat(), &[]] {
            assert!(Chunk::of_frame(torn.to_vec()).is_err());
        }
    }
}
