//! The digests of a blob's chunks, kept beside it: what a disk has spoilt is found before the chunk in question is sent, and
//! not only by whoever has received the whole.
//!
//! They are written once, when the blob has come whole, and sealed with a digest of their own. Blobs of an earlier build
//! have none; theirs are made when the blob is read first.

use std::io::Read;

use archipelago_cluster::mutation::{self, Rule};
use archipelago_common::{BlobRef, Digest, hash::StreamHasher, limits};
use archipelago_protocol::{ChunkRecord, ChunkSender};

use crate::error::Result;

/// The digests of all chunks of one blob.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChunkDigests {
    blob: BlobRef,
    digests: Vec<Digest>,
}

impl ChunkDigests {
    /// Those of a blob that has come whole.
    pub fn new(blob: BlobRef, digests: Vec<Digest>) -> Self {
        Self { blob, digests }
    }

    /// The blob.
    pub fn blob(&self) -> BlobRef {
        self.blob
    }

    /// Those of a blob of one chunk or none, whose own digest says it all.
    pub fn of_small(blob: BlobRef) -> Option<Self> {
        let digests = match blob.n_chunks() {
            0 => Vec::new(),
            1 => vec![blob.digest],
            _ => return None,
        };
        Some(Self { blob, digests })
    }

    /// Reads a whole blob and makes them; none if it is something else.
    ///
    /// # Errors  those of the reader
    pub fn read(blob: BlobRef, reader: &mut impl Read) -> std::io::Result<Option<Self>> {
        let (mut whole, mut digests) = (StreamHasher::default(), Vec::new());
        let (mut chunk, mut size) = (Vec::with_capacity(limits::CHUNK_BYTES as usize), 0);
        loop {
            chunk.clear();
            match reader.by_ref().take(limits::CHUNK_BYTES).read_to_end(&mut chunk)? {
                0 => break,
                n => size += n as u64,
            }
            whole.update(&chunk);
            digests.push(Digest::of(&chunk));
        }
        let is_it = size == blob.size && whole.finish() == blob.digest;
        Ok(is_it.then_some(Self { blob, digests }))
    }

    /// As they lie on disk.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = ChunkRecord::header(self.blob).to_vec();
        self.digests.iter().for_each(|digest| bytes.extend_from_slice(digest.as_bytes()));
        let seal = Digest::of(&bytes);
        bytes.extend_from_slice(seal.as_bytes());
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote; none if a bit of it is wrong.
    pub fn from_bytes(blob: BlobRef, bytes: &[u8]) -> Option<Self> {
        let (record, seal) = bytes.split_at_checked(ChunkRecord::size(blob.n_chunks()) as usize)?;
        let digests = ChunkRecord::parse(blob, record).ok()?.digests;
        (Digest::of(record).as_bytes() == seal).then_some(Self { blob, digests })
    }

    /// Bytes on disk of those of a blob.
    pub fn size(blob: BlobRef) -> u64 {
        ChunkRecord::size(blob.n_chunks()) + 32
    }

    /// Sends the blob from a chunk on, each only as it was when it came.
    ///
    /// # Errors  as [`ChunkSender::new`]
    pub fn sender(&self, from_chunk: u64) -> Result<ChunkSender> {
        let sender = ChunkSender::new(self.blob, from_chunk)?;
        Ok(match mutation::is_broken(Rule::SendWhatCame) {
            true => sender,
            false => sender.with_digests(self.digests.clone()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_read_as_written_and_refused_with_any_bit_changed() {
        let bytes: Vec<u8> = (0..2 * limits::CHUNK_BYTES + 9).map(|i| (i % 251) as u8).collect();
        let blob = BlobRef::of(&bytes);
        let made = ChunkDigests::read(blob, &mut &bytes[..]).unwrap().unwrap();
        let written = made.to_bytes();
        assert_eq!(written.len() as u64, ChunkDigests::size(blob));
        assert_eq!(ChunkDigests::from_bytes(blob, &written), Some(made));
        for place in 0..written.len() {
            let mut spoilt = written.clone();
            spoilt[place] ^= 1;
            assert_eq!(ChunkDigests::from_bytes(blob, &spoilt), None, "byte {place}");
        }
        assert_eq!(ChunkDigests::from_bytes(blob, &written[1..]), None);
        assert_eq!(ChunkDigests::read(blob, &mut &bytes[1..]).unwrap(), None);
    }

    #[test]
    fn a_chunk_that_changed_is_not_sent() {
        let mut bytes = vec![7; limits::CHUNK_BYTES as usize + 1];
        let blob = BlobRef::of(&bytes);
        let digests = ChunkDigests::read(blob, &mut &bytes[..]).unwrap().unwrap();
        bytes[limits::CHUNK_BYTES as usize] ^= 1;
        let mut sender = digests.sender(0).unwrap();
        let (first, second) = bytes.split_at(limits::CHUNK_BYTES as usize);
        sender.handle_read(first.to_vec()).unwrap();
        assert!(matches!(
            sender.handle_read(second.to_vec()),
            Err(archipelago_protocol::Error::ChunkDigest { chunk_idx: 1 })
        ));
        assert!(ChunkDigests::of_small(blob).is_none());
    }
}
