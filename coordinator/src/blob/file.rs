//! A blob opened for reading: no byte of it is believed before its chunk was compared with its digest.

use std::{
    fs::File,
    io::{self, Read},
    sync::Arc,
};

use archipelago_common::{BlobRef, fs, limits};
use archipelago_protocol::{ChunkSender, message::Chunk};
use bytes::{Buf as _, Bytes};

use super::{digests::ChunkDigests, store::BlobStore};
use crate::error::{Error, Result};

/// A blob of a store. It can be read on if it is collected meanwhile.
pub struct BlobFile {
    store: Arc<BlobStore>,
    blob: BlobRef,
    file: File,
    sender: ChunkSender,
    /// What [`Read`] has not given out yet of the chunk that it is at.
    chunk: Bytes,
}

impl BlobStore {
    /// Opens a blob for reading, from a chunk on.
    ///
    /// # Errors  [`Error::NoBlob`], [`Error::Damaged`], [`Error::Protocol`] beyond its end
    pub fn read(self: &Arc<Self>, blob: BlobRef, from_chunk: u64) -> Result<BlobFile> {
        if !self.contains(&blob) {
            return Err(Error::NoBlob { blob });
        }
        let file = File::open(self.path(&blob.digest)).map_err(|_| Error::NoBlob { blob })?;
        let sender = self.chunk_digests(blob)?.sender(from_chunk)?;
        Ok(BlobFile { store: self.clone(), blob, file, sender, chunk: Bytes::new() })
    }

    /// The digests of a blob's chunks, made now if there are none.
    fn chunk_digests(&self, blob: BlobRef) -> Result<ChunkDigests> {
        if let Some(digests) = ChunkDigests::of_small(blob).or_else(|| self.recorded_digests(blob)) {
            return Ok(digests);
        }
        self.make_digests(blob)?.ok_or(Error::Damaged { blob })
    }
}

impl BlobFile {
    /// The next chunk as it is sent; `None` after the last. One that the disk has spoilt has the blob put aside.
    ///
    /// # Errors  [`Error::Damaged`], [`Error::Common`]
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>> {
        let Some(piece) = self.sender.poll_piece() else { return Ok(None) };
        let read = fs::read_at(&self.file, piece.offset, piece.size);
        // A sector that cannot be read is as good as a wrong one.
        match read.map(|bytes| self.sender.handle_read(bytes)) {
            Ok(Ok(chunk)) => Ok(Some(chunk)),
            Ok(Err(_)) | Err(_) => {
                self.store.put_aside(self.blob.digest, &self.file)?;
                Err(Error::Damaged { blob: self.blob })
            }
        }
    }
}

impl Read for BlobFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.chunk.is_empty() {
            match self.next_chunk().map_err(io::Error::other)? {
                Some(chunk) => self.chunk = chunk.bytes,
                None => return Ok(0),
            }
        }
        let n = buffer.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut buffer[..n]);
        Ok(n)
    }
}

const _: () = assert!(limits::CHUNK_BYTES <= 1 << 20, "a reader holds one chunk");
