//! Blobs on their way: what is said before their chunks, and the chunks.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Refusal;

/// The coordinator's answer to [`StreamOpen::Put`](super::StreamOpen::Put) and [`StreamOpen::Relay`](super::StreamOpen::Relay).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PutReply {
    /// Send the chunks from this one on; equal to the number of chunks if all are there.
    Send {
        /// The first chunk wanted.
        from_chunk: u64,
    },
    /// The whole blob is verified and durable on a majority of coordinators.
    Durable,
    /// The upload is refused.
    Refused(Refusal),
    /// So many chunks are written and recorded here, from the first; on a [`StreamOpen::Relay`](super::StreamOpen::Relay) only.
    Has {
        /// How many.
        n_chunks: u64,
    },
}

/// The coordinator's answer to [`StreamOpen::Get`](super::StreamOpen::Get).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum GetReply {
    /// The chunks follow.
    Sending,
    /// The download is refused.
    Refused(Refusal),
    /// The blob is still on its way in. So many chunks of it are here, from the first, and those of them that were asked
    /// for follow; between coordinators only.
    SendingPart {
        /// How many.
        n_chunks: u64,
    },
}

/// One piece of a blob on a transfer stream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Chunk {
    /// Its place, from 0.
    pub chunk_idx: u64,
    /// BLAKE3 of its bytes; checked on arrival, before anything is written.
    pub digest: archipelago_common::Digest,
    /// The bytes; [`archipelago_common::limits::CHUNK_BYTES`] but for the last.
    #[serde(with = "bytes_at_once")]
    pub bytes: Bytes,
}

/// A megabyte is copied in one piece instead of byte by byte, or not at all ([`crate::frame::Message::of_frame`]); the encoding
/// is the same.
mod bytes_at_once {
    use bytes::Bytes;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        // Borrowed, so that an announced length is compared with the bytes at hand before it is believed.
        <&[u8]>::deserialize(deserializer).map(Bytes::copy_from_slice)
    }
}
