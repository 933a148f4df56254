//! A reference to bytes that live in a blob store.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    hash::Digest,
    limits,
};

/// What bytes are meant and how many there are. The digest is the address; nothing else is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct BlobRef {
    /// BLAKE3 of all the bytes.
    pub digest: Digest,
    /// Number of bytes.
    pub size: u64,
}

impl BlobRef {
    /// The reference to these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self { digest: Digest::of(bytes), size: bytes.len() as u64 }
    }

    /// Checks that `bytes` are what this reference names.
    ///
    /// # Errors  [`Error::DigestMismatch`]
    pub fn verify(&self, what: &str, bytes: &[u8]) -> Result<()> {
        let found = Digest::of(bytes);
        if found == self.digest && bytes.len() as u64 == self.size {
            Ok(())
        } else {
            Err(Error::DigestMismatch { what: what.to_owned(), expected: self.digest, found })
        }
    }

    /// Number of transfer chunks; an empty blob has none.
    pub fn n_chunks(&self) -> u64 {
        self.size.div_ceil(limits::CHUNK_BYTES)
    }

    /// Number of bytes in chunk `chunk_idx`; 0 past the end.
    pub fn chunk_size(&self, chunk_idx: u64) -> u64 {
        chunk_idx
            .checked_mul(limits::CHUNK_BYTES)
            .map_or(0, |start| self.size.saturating_sub(start).min(limits::CHUNK_BYTES))
    }
}

impl fmt::Display for BlobRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.digest.short(), self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_the_blob_exactly() {
        for size in [0, 1, limits::CHUNK_BYTES - 1, limits::CHUNK_BYTES, limits::CHUNK_BYTES + 1, u64::MAX] {
            let blob = BlobRef { digest: Digest::of(b""), size };
            if size < 1 << 40 {
                assert_eq!((0..blob.n_chunks()).map(|i| blob.chunk_size(i)).sum::<u64>(), size);
            }
            assert_eq!(blob.chunk_size(blob.n_chunks()), 0);
            assert_eq!(blob.chunk_size(u64::MAX), 0);
        }
    }

    #[test]
    fn changed_bytes_do_not_verify() {
        let blob = BlobRef::of(b"abc");
        assert!(blob.verify("blob", b"abc").is_ok());
        assert!(blob.verify("blob", b"abd").is_err());
    }
}
