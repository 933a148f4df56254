//! Uploads.

use std::{io::Read as _, path::Path, sync::Arc, time::Duration};

use archipelago_common::{blob::BlobRef, fs, hash::StreamHasher, limits};
use archipelago_protocol::{
    ChunkSender, Piece,
    frame::{self, Message as _},
    message::{PutReply, StreamOpen},
};
use archipelago_transport::{Connection, Error as TransportError, Stream};
use bytes::Bytes;
use tokio::time::timeout;

use crate::{
    Client,
    attempts::{Attempts, Failed, STALL, bad_peer, stalled},
    error::{ClientError, Result},
    partial::file_error,
};

/// Where the bytes of an upload are.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// In a file, which must not change meanwhile.
    File(&'a Path),
    /// In memory.
    Bytes(&'a [u8]),
}

impl Source<'_> {
    /// The reference to these bytes. Reads a file once, in chunks, and blocks meanwhile.
    ///
    /// # Errors  [`ClientError::File`]
    pub fn blob(&self) -> Result<BlobRef> {
        let path = match self {
            Self::Bytes(bytes) => return Ok(BlobRef::of(bytes)),
            Self::File(path) => *path,
        };
        let mut opened = std::fs::File::open(path).map_err(|e| read_error(path, e))?;
        let (mut hasher, mut size) = (StreamHasher::default(), 0);
        let mut buffer = vec![0; limits::CHUNK_BYTES as usize];
        loop {
            match opened.read(&mut buffer).map_err(|e| read_error(path, e))? {
                0 => return Ok(BlobRef { digest: hasher.finish(), size }),
                n => {
                    hasher.update(&buffer[..n]);
                    size += n as u64;
                }
            }
        }
    }
}

/// An opened [`Source`].
enum Reader<'a> {
    File(Arc<std::fs::File>, &'a Path),
    Bytes(&'a [u8]),
}

impl Reader<'_> {
    async fn read(&self, blob: BlobRef, piece: Piece) -> Result<Vec<u8>> {
        match self {
            Self::Bytes(bytes) => {
                bytes.get(piece.offset as usize..piece.offset as usize + piece.size).map(<[u8]>::to_vec).ok_or_else(
                    || ClientError::Transfer { blob, detail: "the source is shorter than the blob".to_owned() },
                )
            }
            Self::File(opened, path) => {
                let opened = opened.clone();
                let read = move || fs::read_at(&opened, piece.offset, piece.size);
                let read = tokio::task::spawn_blocking(read).await.map_err(|_| ClientError::Closed)?;
                read.map_err(|e| read_error(path, e))
            }
        }
    }
}

pub(crate) async fn put(
    client: &Client,
    blob: BlobRef,
    source: Source<'_>,
    mut progress: impl FnMut(u64) + Send,
) -> Result<()> {
    let reader = match source {
        Source::Bytes(bytes) => Reader::Bytes(bytes),
        Source::File(path) => Reader::File(Arc::new(std::fs::File::open(path).map_err(|e| read_error(path, e))?), path),
    };
    let mut attempts = Attempts::new(client);
    loop {
        let connection = client.connection().await?;
        match put_once(&connection, blob, &reader, &mut attempts, &mut progress).await {
            Ok(()) => return Ok(()),
            Err(failed) => attempts.failed(&connection, failed).await?,
        }
    }
}

async fn put_once(
    connection: &Connection,
    blob: BlobRef,
    reader: &Reader<'_>,
    attempts: &mut Attempts<'_>,
    progress: &mut (impl FnMut(u64) + Send),
) -> Result<(), Failed> {
    let mut stream = connection.open_stream().await?;
    stream.send_frame(&frame::encode(&StreamOpen::Put(blob)).map_err(|e| bad_peer(&e))?).await?;
    let from_chunk = match reply(&mut stream, STALL).await? {
        PutReply::Send { from_chunk } => from_chunk,
        PutReply::Durable => return Ok(()),
        PutReply::Refused(refusal) => return Err(Failed::Refused(refusal)),
        PutReply::Has { .. } => return Err(out_of_turn()),
    };
    let mut sender = ChunkSender::new(blob, from_chunk).map_err(|e| bad_peer(&e))?;
    let mut offset = sender.poll_piece().map_or(blob.size, |piece| piece.offset);
    let mut next = next_frame(&mut sender, reader, blob).await?;
    while let Some(frame) = next {
        progress(offset);
        offset = sender.poll_piece().map_or(blob.size, |piece| piece.offset);
        // The next chunk is read and hashed while this one leaves.
        let sending = timeout(STALL, stream.send_pieces(&frame));
        let (sent, read) = tokio::join!(sending, next_frame(&mut sender, reader, blob));
        next = read?;
        match sent.unwrap_or_else(|_| Err(stalled())) {
            Ok(()) => attempts.progress(),
            // Whoever stops an upload says why first.
            Err(TransportError::StreamReset) => {
                return match reply(&mut stream, STALL).await? {
                    PutReply::Refused(refusal) => Err(Failed::Refused(refusal)),
                    PutReply::Send { .. } | PutReply::Durable | PutReply::Has { .. } => {
                        Err(TransportError::StreamReset.into())
                    }
                };
            }
            Err(error) => return Err(error.into()),
        }
    }
    stream.finish().await?;
    match reply(&mut stream, REPLICATION).await? {
        PutReply::Durable => {
            progress(blob.size);
            Ok(())
        }
        PutReply::Refused(refusal) => Err(Failed::Refused(refusal)),
        PutReply::Send { .. } | PutReply::Has { .. } => Err(out_of_turn()),
    }
}

/// The next chunk as a frame; none after the last.
async fn next_frame(
    sender: &mut ChunkSender,
    reader: &Reader<'_>,
    blob: BlobRef,
) -> Result<Option<[Bytes; 2]>, Failed> {
    let Some(piece) = sender.poll_piece() else { return Ok(None) };
    let bytes = reader.read(blob, piece).await.map_err(Failed::Finally)?;
    let chunk = sender.handle_read(bytes);
    let chunk = chunk.map_err(|e| Failed::Finally(ClientError::Transfer { blob, detail: e.to_string() }))?;
    frame::encode_chunk(&chunk).map(Some).map_err(|e| bad_peer(&e))
}

async fn reply(stream: &mut Stream, within: Duration) -> Result<PutReply, Failed> {
    let received = timeout(within, stream.recv_frame(PutReply::LIMIT)).await.unwrap_or_else(|_| Err(stalled()))?;
    let received = received.ok_or(TransportError::StreamReset)?;
    frame::decode(&received).map_err(|_| out_of_turn())
}

fn out_of_turn() -> Failed {
    TransportError::BadPeer { detail: "it answered an upload with something else".to_owned() }.into()
}

fn read_error(path: &Path, source: std::io::Error) -> ClientError {
    file_error("read", path, source)
}

/// How long the coordinators may take to bring the last bytes onto a majority of disks. A coordinator that dies meanwhile is
/// noticed long before.
const REPLICATION: Duration = Duration::from_secs(600);
