//! A download on disk before it is whole: the bytes in `<name>.part`, the record of its chunks in `<name>.chunks`.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Mutex,
};

use archipelago_common::{blob::BlobRef, fs};
use archipelago_protocol::{ChunkReceiver, ChunkRecord, Piece, message::Chunk};

use crate::error::{ClientError, Result, file};

/// The two files of one download. What they hold is known to the [`ChunkReceiver`] that [`Partial::open`] gives.
///
/// Durable is only the whole: after a kill the pages are still there, and after a power cut damaged chunks are found by
/// their digests and fetched again.
pub(crate) struct Partial {
    bytes: File,
    record: File,
    bytes_path: PathBuf,
    record_path: PathBuf,
    destination: PathBuf,
    syncer: Mutex<fs::Syncer>,
}

impl Partial {
    /// Opens or creates the files and verifies what an earlier attempt left in them. Reads all of it: blocks.
    pub(crate) fn open(blob: BlobRef, destination: &Path) -> Result<(Self, ChunkReceiver)> {
        let bytes_path = beside(destination, ".part");
        let record_path = beside(destination, ".chunks");
        let partial = Self {
            bytes: open(&bytes_path)?,
            record: open(&record_path)?,
            bytes_path,
            record_path,
            destination: destination.to_owned(),
            syncer: Mutex::default(),
        };
        let receiver = partial.recover(blob)?;
        Ok((partial, receiver))
    }

    /// Writes a chunk that the receiver has verified, then its entry in the record.
    pub(crate) fn append(&self, piece: Piece, chunk: &Chunk) -> Result<()> {
        self.bytes.write_all_at(&chunk.bytes, piece.offset).map_err(|e| file_error("write", &self.bytes_path, e))?;
        let n_bytes = chunk.bytes.len() as u64;
        let synced = self.syncer.lock().unwrap_or_else(|e| e.into_inner()).wrote(&self.bytes, n_bytes);
        synced.map_err(|e| file_error("fsync", &self.bytes_path, e))?;
        self.record
            .write_all_at(&ChunkRecord::entry(chunk), ChunkRecord::size(piece.chunk_idx))
            .map_err(|e| file_error("write", &self.record_path, e))
    }

    /// Verifies the whole and gives it its name, durably.
    pub(crate) fn finish(&self, receiver: ChunkReceiver) -> Result<()> {
        let blob = receiver.blob();
        if let Err(error) = receiver.finish() {
            // Every chunk was what the coordinator sent, so nothing in these files is worth keeping.
            let _ = std::fs::remove_file(&self.bytes_path);
            let _ = std::fs::remove_file(&self.record_path);
            return Err(ClientError::Transfer { blob, detail: error.to_string() });
        }
        let synced = self.syncer.lock().unwrap_or_else(|e| e.into_inner()).wait();
        synced.and_then(|()| self.bytes.sync_all()).map_err(|e| file_error("fsync", &self.bytes_path, e))?;
        fs::persist(&self.bytes_path, &self.destination).map_err(|e| file(&e))?;
        std::fs::remove_file(&self.record_path).map_err(|e| file_error("remove", &self.record_path, e))
    }

    fn recover(&self, blob: BlobRef) -> Result<ChunkReceiver> {
        let transfer = |e: archipelago_protocol::Error| ClientError::Transfer { blob, detail: e.to_string() };
        let mut receiver = ChunkReceiver::new(blob).map_err(transfer)?;
        let limit = ChunkRecord::size(blob.n_chunks());
        let recorded = fs::read_bounded(&self.record_path, limit)
            .ok()
            .and_then(|bytes| ChunkRecord::parse(blob, &bytes).ok())
            .map_or_else(Vec::new, |record| record.digests);
        for digest in recorded {
            let Some(piece) = receiver.poll_piece() else { break };
            let mut bytes = vec![0; piece.size];
            let is_there = self.bytes.read_exact_at(&mut bytes, piece.offset).is_ok();
            if !is_there || !receiver.handle_recorded(&bytes, digest) {
                break;
            }
        }
        self.bytes.set_len(receiver.n_bytes()).map_err(|e| file_error("cut", &self.bytes_path, e))?;
        self.record
            .set_len(ChunkRecord::size(receiver.next_chunk()))
            .and_then(|()| self.record.write_all_at(&ChunkRecord::header(blob), 0))
            .map_err(|e| file_error("write", &self.record_path, e))?;
        Ok(receiver)
    }
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(archipelago_common::fs::PRIVATE_FILE)
        .open(path)
        .map_err(|e| file_error("create", path, e))
}

fn beside(destination: &Path, suffix: &str) -> PathBuf {
    let mut name = destination.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    destination.with_file_name(name)
}

pub(crate) fn file_error(action: &'static str, path: &Path, source: std::io::Error) -> ClientError {
    file(&archipelago_common::Error::File { action, path: path.into(), source })
}
