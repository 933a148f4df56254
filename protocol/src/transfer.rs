//! A blob in chunks, as two state machines: [`ChunkSender`] and [`ChunkReceiver`]. They do no I/O and hold no more than
//! one chunk; whoever drives them reads, writes and moves frames.
//!
//! Chunks travel in order. Each is verified before it may be written, and the whole once all have come. A receiver
//! keeps a record beside its partial file: a header, and the digest of every chunk that was written, appended one
//! by one after the chunk. After a kill it reads the record and its partial file again ([`ChunkReceiver::handle_recorded`])
//! and asks for the rest, so at most the chunk under way is sent twice. A torn or damaged tail costs what is damaged.

use archipelago_common::{Digest, blob::BlobRef, hash::StreamHasher, limits};
use bytes::Bytes;

use crate::{
    error::{Error, Result},
    message::Chunk,
};

/// A piece of a blob file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Its place among the chunks, from 0.
    pub chunk_idx: u64,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How many bytes it has.
    pub size: usize,
}

/// The sending side of one transfer.
///
/// Inputs: [`Self::handle_read`]. Output: [`Self::poll_piece`].
#[derive(Debug)]
pub struct ChunkSender {
    blob: BlobRef,
    next: u64,
    /// What the chunks are to be, from the first, where that is known beforehand.
    expected: Vec<Digest>,
}

impl ChunkSender {
    /// Sends `blob` from chunk `from_chunk` on.
    ///
    /// # Errors  [`Error::BlobTooLarge`], [`Error::StartBeyondEnd`]
    pub fn new(blob: BlobRef, from_chunk: u64) -> Result<Self> {
        check_size(blob)?;
        if from_chunk > blob.n_chunks() {
            return Err(Error::StartBeyondEnd { blob, found: from_chunk });
        }
        Ok(Self { blob, next: from_chunk, expected: Vec::new() })
    }

    /// Sends no chunk that is not what it was: `digests` are those of all chunks, from the first.
    #[must_use]
    pub fn with_digests(self, digests: Vec<Digest>) -> Self {
        Self { expected: digests, ..self }
    }

    /// What to read next; `None` when all has been sent.
    pub fn poll_piece(&self) -> Option<Piece> {
        piece(self.blob, self.next)
    }

    /// Takes the bytes of the piece and gives the chunk to send.
    ///
    /// # Errors  [`Error::ChunkSize`] if they are not the piece that was due, for a file that changed meanwhile;
    /// [`Error::ChunkDigest`] if they are not what they should be. Nothing may be sent then
    pub fn handle_read(&mut self, bytes: impl Into<Bytes>) -> Result<Chunk> {
        let bytes = bytes.into();
        let chunk_idx = self.next;
        check_chunk_size(self.blob, chunk_idx, bytes.len())?;
        let digest = Digest::of(&bytes);
        let expected = usize::try_from(chunk_idx).ok().and_then(|idx| self.expected.get(idx));
        if expected.is_some_and(|expected| *expected != digest) {
            return Err(Error::ChunkDigest { chunk_idx });
        }
        self.next += 1;
        Ok(Chunk { chunk_idx, digest, bytes })
    }
}

/// The receiving side of one transfer.
///
/// First [`Self::handle_recorded`] for every chunk that an earlier attempt left behind, then ask the sender for
/// [`Self::next_chunk`] on, then [`Self::handle_chunk`] for every chunk, then [`Self::finish`].
#[derive(Debug)]
pub struct ChunkReceiver {
    blob: BlobRef,
    next: u64,
    whole: Hasher,
}

impl ChunkReceiver {
    /// Receives `blob`.
    ///
    /// # Errors  [`Error::BlobTooLarge`]
    pub fn new(blob: BlobRef) -> Result<Self> {
        check_size(blob)?;
        Ok(Self { blob, next: 0, whole: Hasher::default() })
    }

    /// The blob.
    pub fn blob(&self) -> BlobRef {
        self.blob
    }

    /// The first chunk that is missing.
    pub fn next_chunk(&self) -> u64 {
        self.next
    }

    /// Where the chunk that is due belongs in the file; `None` when all are there.
    pub fn poll_piece(&self) -> Option<Piece> {
        piece(self.blob, self.next)
    }

    /// Bytes that are there.
    pub fn n_bytes(&self) -> u64 {
        (self.next * limits::CHUNK_BYTES).min(self.blob.size)
    }

    /// Takes a chunk that an earlier attempt wrote, as read back from the file, with its recorded digest. `false` means
    /// that it is damaged: it and everything after it must come again.
    pub fn handle_recorded(&mut self, bytes: &[u8], digest: Digest) -> bool {
        let is_intact = check_chunk_size(self.blob, self.next, bytes.len()).is_ok() && Digest::of(bytes) == digest;
        if is_intact {
            self.accept(bytes);
        }
        is_intact
    }

    /// Verifies a chunk from the sender and says where its bytes go. Write them, then append the digest to the record.
    ///
    /// # Errors  [`Error::ChunkOutOfOrder`], [`Error::ChunkSize`], [`Error::ChunkDigest`]; nothing may be written then
    pub fn handle_chunk(&mut self, chunk: &Chunk) -> Result<Piece> {
        if chunk.chunk_idx != self.next {
            return Err(Error::ChunkOutOfOrder { found: chunk.chunk_idx, expected: self.next });
        }
        check_chunk_size(self.blob, chunk.chunk_idx, chunk.bytes.len())?;
        if Digest::of(&chunk.bytes) != chunk.digest {
            return Err(Error::ChunkDigest { chunk_idx: chunk.chunk_idx });
        }
        let offset = chunk.chunk_idx * limits::CHUNK_BYTES;
        self.accept(&chunk.bytes);
        Ok(Piece { chunk_idx: chunk.chunk_idx, offset, size: chunk.bytes.len() })
    }

    /// Whether every chunk is there.
    pub fn is_complete(&self) -> bool {
        self.next == self.blob.n_chunks()
    }

    /// Verifies the whole.
    ///
    /// # Errors  [`Error::Incomplete`]; [`Error::BlobDigest`], after which file and record are worthless
    pub fn finish(self) -> Result<BlobRef> {
        if !self.is_complete() {
            return Err(Error::Incomplete { found: self.next, expected: self.blob.n_chunks() });
        }
        let found = self.whole.0.finish();
        if found == self.blob.digest { Ok(self.blob) } else { Err(Error::BlobDigest { blob: self.blob, found }) }
    }

    fn accept(&mut self, bytes: &[u8]) {
        self.whole.0.update(bytes);
        self.next += 1;
    }
}

/// The durable record of the chunks of one blob that have arrived: a header and one digest per chunk. It is only ever
/// appended to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChunkRecord {
    /// The blob.
    pub blob: BlobRef,
    /// The digests of the chunks that were written, from the first.
    pub digests: Vec<Digest>,
}

impl ChunkRecord {
    /// The first bytes of a new record.
    pub fn header(blob: BlobRef) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(MAGIC);
        header[8..40].copy_from_slice(blob.digest.as_bytes());
        header[40..].copy_from_slice(&blob.size.to_le_bytes());
        header
    }

    /// What to append once a chunk has been written.
    pub fn entry(chunk: &Chunk) -> [u8; 32] {
        *chunk.digest.as_bytes()
    }

    /// Bytes of a record with this many chunks: what to cut a damaged one to.
    pub fn size(n_chunks: u64) -> u64 {
        HEADER as u64 + 32 * n_chunks
    }

    /// Reads a record of `blob`. An entry that was torn by a crash is left out.
    ///
    /// # Errors  [`Error::BadRecord`]: begin anew
    pub fn parse(blob: BlobRef, bytes: &[u8]) -> Result<Self> {
        let Some((header, entries)) = bytes.split_at_checked(HEADER) else {
            return Err(Error::BadRecord { detail: "it is shorter than its header" });
        };
        if header != Self::header(blob) {
            return Err(Error::BadRecord { detail: "it is not the record of this blob" });
        }
        let digests = entries
            .chunks_exact(32)
            .map(|entry| Digest::from_bytes(entry.try_into().expect("`chunks_exact` gives 32 bytes")));
        let n_chunks = usize::try_from(blob.n_chunks()).unwrap_or(usize::MAX);
        Ok(Self { blob, digests: digests.take(n_chunks).collect() })
    }
}

#[derive(Default)]
struct Hasher(StreamHasher);

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher")
    }
}

fn piece(blob: BlobRef, chunk_idx: u64) -> Option<Piece> {
    (chunk_idx < blob.n_chunks()).then(|| Piece {
        chunk_idx,
        offset: chunk_idx * limits::CHUNK_BYTES,
        // At most `CHUNK_BYTES`.
        size: blob.chunk_size(chunk_idx) as usize,
    })
}

fn check_size(blob: BlobRef) -> Result<()> {
    if blob.size > limits::BLOB_BYTES {
        return Err(Error::BlobTooLarge { blob, limit: limits::BLOB_BYTES });
    }
    Ok(())
}

fn check_chunk_size(blob: BlobRef, chunk_idx: u64, found: usize) -> Result<()> {
    let (found, expected) = (found as u64, blob.chunk_size(chunk_idx));
    if found != expected || expected == 0 {
        return Err(Error::ChunkSize { chunk_idx, found, expected });
    }
    Ok(())
}

const MAGIC: &[u8; 8] = b"archrec1";
/// Magic, digest and size.
const HEADER: usize = 8 + 32 + 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(size: u64) -> Vec<u8> {
        (0..size).map(|i| (i / 7 % 251) as u8).collect()
    }

    fn part(all: &[u8], piece: Piece) -> &[u8] {
        &all[piece.offset as usize..][..piece.size]
    }

    /// Sends from `from_chunk` and returns the chunks.
    fn chunks(all: &[u8], from_chunk: u64) -> Vec<Chunk> {
        let mut sender = ChunkSender::new(BlobRef::of(all), from_chunk).unwrap();
        let mut chunks = Vec::new();
        while let Some(piece) = sender.poll_piece() {
            chunks.push(sender.handle_read(part(all, piece).to_vec()).unwrap());
        }
        chunks
    }

    #[test]
    fn what_is_sent_is_received_for_every_odd_size() {
        for size in [0, 1, limits::CHUNK_BYTES, limits::CHUNK_BYTES + 1, 3 * limits::CHUNK_BYTES - 1] {
            let all = bytes(size);
            let mut receiver = ChunkReceiver::new(BlobRef::of(&all)).unwrap();
            let mut file = Vec::new();
            for chunk in chunks(&all, 0) {
                let piece = receiver.handle_chunk(&chunk).unwrap();
                assert_eq!(piece.offset, file.len() as u64);
                file.extend_from_slice(&chunk.bytes);
                assert_eq!(receiver.n_bytes(), file.len() as u64);
            }
            assert_eq!(file, all);
            receiver.finish().unwrap();
        }
    }

    #[test]
    fn after_a_kill_only_the_chunk_under_way_comes_again() {
        let all = bytes(5 * limits::CHUNK_BYTES - 9);
        let blob = BlobRef::of(&all);
        let mut record = ChunkRecord::header(blob).to_vec();
        for chunk in &chunks(&all, 0)[..3] {
            record.extend_from_slice(&ChunkRecord::entry(chunk));
        }
        // The kill comes in the middle of the third entry.
        record.truncate(record.len() - 5);
        let record = ChunkRecord::parse(blob, &record).unwrap();
        let mut receiver = ChunkReceiver::new(blob).unwrap();
        for digest in record.digests {
            let piece = receiver.poll_piece().unwrap();
            assert!(receiver.handle_recorded(part(&all, piece), digest));
        }
        assert_eq!(receiver.next_chunk(), 2);
        for chunk in chunks(&all, receiver.next_chunk()) {
            receiver.handle_chunk(&chunk).unwrap();
        }
        receiver.finish().unwrap();
    }

    #[test]
    fn a_damaged_chunk_on_disk_comes_again() {
        let all = bytes(2 * limits::CHUNK_BYTES);
        let chunk = &chunks(&all, 0)[0];
        let mut receiver = ChunkReceiver::new(BlobRef::of(&all)).unwrap();
        let mut damaged = chunk.bytes.to_vec();
        damaged[100] ^= 1;
        assert!(!receiver.handle_recorded(&damaged, chunk.digest));
        assert!(!receiver.handle_recorded(&chunk.bytes[1..], Digest::of(&chunk.bytes[1..])));
        assert_eq!(receiver.next_chunk(), 0);
    }

    #[test]
    fn chunks_that_are_not_what_they_should_be_are_refused() {
        let all = bytes(2 * limits::CHUNK_BYTES + 10);
        let sent = chunks(&all, 0);
        let mut receiver = ChunkReceiver::new(BlobRef::of(&all)).unwrap();
        assert!(matches!(receiver.handle_chunk(&sent[1]), Err(Error::ChunkOutOfOrder { found: 1, expected: 0 })));
        let mut changed = sent[0].clone();
        changed.bytes = changed.bytes.iter().map(|byte| byte ^ 1).collect();
        assert!(matches!(receiver.handle_chunk(&changed), Err(Error::ChunkDigest { chunk_idx: 0 })));
        let short = Chunk { chunk_idx: 0, digest: Digest::of(b"x"), bytes: Bytes::from_static(b"x") };
        assert!(matches!(receiver.handle_chunk(&short), Err(Error::ChunkSize { found: 1, .. })));
        receiver.handle_chunk(&sent[0]).unwrap();
        assert!(matches!(receiver.finish(), Err(Error::Incomplete { found: 1, expected: 3 })));
    }

    #[test]
    fn a_chunk_past_the_end_is_refused_and_good_chunks_of_another_blob_are_found_out_at_the_end() {
        let mut receiver = ChunkReceiver::new(BlobRef { size: 3, digest: Digest::of(b"abc") }).unwrap();
        let chunk = |chunk_idx, bytes: &[u8]| Chunk {
            chunk_idx,
            digest: Digest::of(bytes),
            bytes: Bytes::copy_from_slice(bytes),
        };
        receiver.handle_chunk(&chunk(0, b"abd")).unwrap();
        assert!(receiver.handle_chunk(&chunk(1, b"")).is_err());
        assert!(matches!(receiver.finish(), Err(Error::BlobDigest { .. })));
    }

    #[test]
    fn bounds_are_checked_before_anything_moves() {
        let vast = BlobRef { size: limits::BLOB_BYTES + 1, digest: Digest::of(b"") };
        assert!(matches!(ChunkReceiver::new(vast), Err(Error::BlobTooLarge { .. })));
        assert!(matches!(ChunkSender::new(BlobRef::of(b"abc"), 2), Err(Error::StartBeyondEnd { found: 2, .. })));
        assert!(ChunkSender::new(BlobRef::of(b"abc"), u64::MAX).is_err());
    }

    #[test]
    fn a_record_of_another_blob_is_not_used() {
        let record = ChunkRecord::header(BlobRef::of(b"abc"));
        assert!(ChunkRecord::parse(BlobRef::of(b"abd"), &record).is_err());
        assert!(ChunkRecord::parse(BlobRef::of(b"abc"), &record[1..]).is_err());
        let more = [&record[..], &[1; 96]].concat();
        assert_eq!(ChunkRecord::parse(BlobRef::of(b"abc"), &more).unwrap().digests.len(), 1);
    }
}
