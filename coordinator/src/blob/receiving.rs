//! A blob on its way in: a partial file, and beside it the record of the chunks it holds.
//!
//! A chunk is written first and recorded then, so a killed process loses at most the one under way. A machine that loses
//! power may lose what was written since the last fsync, and entries of the record without their chunks or the other way
//! round; the recorded digests tell what is missing. Only a whole and
//! verified blob is fsynced, moved to its place and made durable there.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use archipelago_common::{BlobRef, Digest, fs, limits};
use archipelago_protocol::{ChunkReceiver, ChunkRecord, message::Chunk};

use super::{
    digests::ChunkDigests,
    store::{BlobStore, Claim},
};
use crate::error::{Error, Result};

/// A blob that is being received. Dropping it keeps what has come for the next attempt.
pub struct Receiving {
    receiver: ChunkReceiver,
    data: PartialFile,
    record: PartialFile,
    syncer: fs::Syncer,
    /// Of the chunks that have come, from the first.
    digests: Vec<Digest>,
    claim: Claim,
}

struct PartialFile {
    file: File,
    path: PathBuf,
}

impl Receiving {
    /// Opens the partial files and verifies what an earlier attempt left in them.
    pub(super) fn open(claim: Claim) -> Result<Self> {
        let blob = claim.blob;
        let receiver = ChunkReceiver::new(blob)?;
        let data = PartialFile::open(claim.store.partial_path(&blob.digest, "data"))?;
        let record = PartialFile::open(claim.store.partial_path(&blob.digest, "record"))?;
        let mut receiving = Self { receiver, data, record, syncer: fs::Syncer::default(), digests: Vec::new(), claim };
        receiving.resume()?;
        Ok(receiving)
    }

    /// The blob.
    pub fn blob(&self) -> BlobRef {
        self.claim.blob
    }

    /// The first chunk that is missing.
    pub fn next_chunk(&self) -> u64 {
        self.receiver.next_chunk()
    }

    /// What is written and recorded, for reading it while more comes.
    ///
    /// # Errors  [`Error::Common`]
    pub(crate) fn part(&self) -> Result<Part> {
        let opened = Part::open(&self.claim.store, self.blob());
        opened.map_err(|source| file_error("open", &self.data.path, source))
    }

    /// Whether every chunk is there.
    pub fn is_complete(&self) -> bool {
        self.receiver.is_complete()
    }

    /// Waits until this receiver is to give up, because it stands still and somebody else has the blob too.
    pub async fn over(&self) {
        self.claim.turn.over().await;
    }

    /// From now until the next chunk is written it is not the sender who stands still.
    pub(crate) fn await_others(&self) {
        self.claim.turn.await_others();
    }

    /// It is the sender's turn to give a chunk.
    pub(crate) fn await_sender(&self) {
        self.claim.turn.await_sender();
    }

    /// Verifies a chunk, writes and records it.
    ///
    /// # Errors  [`Error::Protocol`] for a chunk that is not the next or is damaged; [`Error::Common`]
    pub fn write(&mut self, chunk: &Chunk) -> Result<()> {
        let piece = self.receiver.handle_chunk(chunk)?;
        self.claim.turn.await_sender();
        self.data.write_at(piece.offset, &chunk.bytes)?;
        self.record.write_at(ChunkRecord::size(chunk.chunk_idx), &ChunkRecord::entry(chunk))?;
        self.digests.push(chunk.digest);
        let n_bytes = chunk.bytes.len() as u64;
        self.syncer.wrote(&self.data.file, n_bytes).map_err(|source| file_error("fsync", &self.data.path, source))
    }

    /// Verifies the whole, and makes it durable in its place.
    ///
    /// # Errors  [`Error::Protocol`] if the chunks are another blob than announced, which are thrown away then;
    /// [`Error::Common`]
    pub fn finish(self) -> Result<()> {
        let Self { receiver, data, record, mut syncer, digests, claim } = self;
        if let Err(error) = receiver.finish() {
            if matches!(error, archipelago_protocol::Error::BlobDigest { .. }) {
                data.remove()?;
                record.remove()?;
            }
            return Err(error.into());
        }
        syncer.wait().map_err(|source| file_error("fsync", &data.path, source))?;
        data.sync()?;
        let place = claim.store.path(&claim.blob.digest);
        let shelf = place.parent().unwrap_or(Path::new("."));
        fs::create_dir(shelf)?;
        fs::sync_dir(shelf.parent().unwrap_or(Path::new(".")))?;
        if claim.blob.n_chunks() > 1 {
            // Before the blob itself: one without them would be read twice for the first who asks.
            claim.store.write_digests(&ChunkDigests::new(claim.blob, digests))?;
        }
        let replaced = std::fs::metadata(&place).map(|old| old.len()).ok();
        fs::persist(&data.path, &place)?;
        record.remove()?;
        // A file of another size may have stood there: cut short by a failing disk, say.
        if let Some(bytes) = replaced {
            claim.store.uncount(bytes);
        }
        claim.store.count(1, claim.blob.size);
        Ok(())
    }

    fn resume(&mut self) -> Result<()> {
        let recorded = self.record.read_all(ChunkRecord::size(self.claim.blob.n_chunks()))?;
        let digests = ChunkRecord::parse(self.claim.blob, &recorded).map(|record| record.digests).unwrap_or_default();
        for digest in digests {
            let Some(piece) = self.receiver.poll_piece() else { break };
            let is_intact = self
                .data
                .read_at(piece.offset, piece.size)
                .is_some_and(|bytes| self.receiver.handle_recorded(&bytes, digest));
            if !is_intact {
                break;
            }
            self.digests.push(digest);
        }
        // What is not verified is cut off, so that the next entries stand where they belong.
        self.data.truncate(self.receiver.n_bytes())?;
        self.record.write_at(0, &ChunkRecord::header(self.claim.blob))?;
        self.record.truncate(ChunkRecord::size(self.receiver.next_chunk()))
    }
}

/// The chunks of a blob on its way in that are there already, for reading. They stay readable once it is whole and has
/// moved.
pub(crate) struct Part {
    blob: BlobRef,
    data: File,
    record: File,
    path: PathBuf,
}

impl Part {
    /// Opens the partial files of a blob.
    pub(super) fn open(store: &BlobStore, blob: BlobRef) -> std::io::Result<Self> {
        let path = store.partial_path(&blob.digest, "data");
        let record = File::open(store.partial_path(&blob.digest, "record"))?;
        Ok(Self { blob, data: File::open(&path)?, record, path })
    }

    /// The blob.
    pub(crate) fn blob(&self) -> BlobRef {
        self.blob
    }

    /// How many chunks are recorded and there, from the first, as of now. Whether a disk has spoilt them shows when they
    /// are verified where they go.
    pub(crate) fn n_chunks(&self) -> u64 {
        let mut header = ChunkRecord::header(self.blob);
        let is_ours = self.record.read_exact_at(&mut header, 0).is_ok() && header == ChunkRecord::header(self.blob);
        if !is_ours {
            return 0;
        }
        let size = |file: &File| file.metadata().map_or(0, |metadata| metadata.len());
        let recorded = size(&self.record).saturating_sub(ChunkRecord::size(0)) / 32;
        let written = match size(&self.data) {
            all if all >= self.blob.size => self.blob.n_chunks(),
            some => some / limits::CHUNK_BYTES,
        };
        recorded.min(written)
    }

    /// Reads a chunk that was written, with the digest it was recorded with.
    ///
    /// # Errors  [`Error::Common`]
    pub(crate) fn chunk(&self, chunk_idx: u64) -> Result<Chunk> {
        let mut digest = [0; 32];
        let size = self.blob.chunk_size(chunk_idx) as usize;
        let bytes = fs::read_at(&self.data, chunk_idx * limits::CHUNK_BYTES, size)
            .and_then(|bytes| self.record.read_exact_at(&mut digest, ChunkRecord::size(chunk_idx)).map(|()| bytes))
            .map_err(|source| file_error("read", &self.path, source))?;
        Ok(Chunk { chunk_idx, digest: Digest::from_bytes(digest), bytes: bytes.into() })
    }
}

impl PartialFile {
    fn open(path: PathBuf) -> Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(fs::PRIVATE_FILE).open(&path);
        match file {
            Ok(file) => Ok(Self { file, path }),
            Err(source) => Err(file_error("create", &path, source)),
        }
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let written = self.file.seek(SeekFrom::Start(offset)).and_then(|_| self.file.write_all(bytes));
        written.map_err(|source| file_error("write", &self.path, source))
    }

    /// The bytes at a place; none if the file is too short.
    fn read_at(&mut self, offset: u64, size: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; size];
        self.file.seek(SeekFrom::Start(offset)).ok()?;
        self.file.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }

    fn read_all(&mut self, limit: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = self.file.rewind().and_then(|()| (&mut self.file).take(limit).read_to_end(&mut bytes));
        read.map_err(|source| file_error("read", &self.path, source))?;
        Ok(bytes)
    }

    fn truncate(&self, size: u64) -> Result<()> {
        self.file.set_len(size).map_err(|source| file_error("cut", &self.path, source))
    }

    fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|source| file_error("fsync", &self.path, source))
    }

    fn remove(self) -> Result<()> {
        std::fs::remove_file(&self.path).map_err(|source| file_error("remove", &self.path, source))
    }
}

fn file_error(action: &'static str, path: &Path, source: std::io::Error) -> Error {
    archipelago_common::Error::File { action, path: path.to_owned(), source }.into()
}

const _: () = assert!(2 * fs::SYNC_BYTES <= 16 << 20, "a power failure costs 16 MiB at most");

#[cfg(test)]
#[path = "receiving_tests.rs"]
mod tests;
