//! Blobs on their way: what is said before their chunks, and the chunks.

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
    pub bytes: Vec<u8>,
}

/// A megabyte is copied in one piece instead of byte by byte; the encoding is the same.
mod bytes_at_once {
    use serde::{Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;

        impl de::Visitor<'_> for Bytes {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }

            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }
        }

        // Borrowed, so that an announced length is compared with the bytes at hand before it is believed.
        deserializer.deserialize_bytes(Bytes)
    }
}
