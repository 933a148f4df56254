//! Downloads.

use std::{path::Path, sync::Arc};

use archipelago_common::blob::BlobRef;
use archipelago_protocol::{
    ChunkReceiver,
    frame::{self, Message},
    message::{Chunk, GetReply, Refusal, StreamOpen},
};
use archipelago_transport::{Connection, Error as TransportError, Stream};
use tokio::time::timeout;
use tracing::info;

use crate::{
    Client,
    attempts::{Attempts, Failed, STALL, bad_peer, stalled},
    error::{ClientError, Result},
    partial::Partial,
    sources::Sources,
};

pub(crate) async fn get(
    client: &Client,
    blob: BlobRef,
    destination: &Path,
    mut progress: impl FnMut(u64) + Send,
) -> Result<()> {
    let mut sources = Sources::new(client);
    loop {
        match get_whole(client, blob, destination, &mut sources, &mut progress).await {
            Ok(()) => return Ok(()),
            // What has come is not the blob, and nothing of it was kept.
            Err(error @ ClientError::Transfer { .. }) if sources.doubt_used() => {
                info!(%blob, %error, "another coordinator is asked");
            }
            Err(error) => return Err(error),
        }
    }
}

async fn get_whole(
    client: &Client,
    blob: BlobRef,
    destination: &Path,
    sources: &mut Sources<'_>,
    progress: &mut (impl FnMut(u64) + Send),
) -> Result<()> {
    let destination = destination.to_owned();
    let (partial, mut receiver) = blocking(move || Partial::open(blob, &destination)).await?;
    let partial = Arc::new(partial);
    let mut attempts = Attempts::new(client);
    while !receiver.is_complete() {
        progress(receiver.n_bytes());
        let connection = sources.connection().await?;
        let attempt = get_once(&connection, &partial, &mut receiver, &mut attempts, progress);
        let Err(failed) = attempt.await else { continue };
        let is_wanting = sources.is_other(&connection)
            || matches!(
                failed,
                Failed::Refused(Refusal::NotFound { .. }) | Failed::Transport(TransportError::BadPeer { .. })
            );
        if is_wanting && !matches!(failed, Failed::Finally(_)) && sources.doubt(&connection) {
            continue;
        }
        attempts.failed(&connection, failed).await?;
    }
    blocking(move || partial.finish(receiver)).await?;
    progress(blob.size);
    Ok(())
}

/// Receives until the blob is complete.
async fn get_once(
    connection: &Connection,
    partial: &Arc<Partial>,
    receiver: &mut ChunkReceiver,
    attempts: &mut Attempts<'_>,
    progress: &mut (impl FnMut(u64) + Send),
) -> Result<(), Failed> {
    let open = StreamOpen::Get { blob: receiver.blob(), from_chunk: receiver.next_chunk() };
    let mut stream = connection.open_stream().await?;
    stream.send_frame(&frame::encode(&open).map_err(|e| bad_peer(&e))?).await?;
    stream.finish().await?;
    match receive(&mut stream).await? {
        GetReply::Sending => {}
        GetReply::Refused(refusal) => return Err(Failed::Refused(refusal)),
        GetReply::SendingPart { .. } => {
            let detail = "it answered a download as if it came from a coordinator".to_owned();
            return Err(TransportError::BadPeer { detail }.into());
        }
    }
    // The next chunk comes in while this one is verified and written.
    let mut chunks = stream.recv.ahead(Chunk::LIMIT);
    while !receiver.is_complete() {
        let received = timeout(STALL, chunks.recv_frame()).await.unwrap_or_else(|_| Err(stalled()))?;
        let chunk = Chunk::of_frame(received.ok_or(TransportError::StreamReset)?).map_err(|e| bad_peer(&e))?;
        let piece = receiver.handle_chunk(&chunk).map_err(|e| bad_peer(&e))?;
        let partial = partial.clone();
        // The receiver is one chunk ahead of the file if this fails, and then the download ends.
        blocking(move || partial.append(piece, &chunk)).await.map_err(Failed::Finally)?;
        attempts.progress();
        progress(receiver.n_bytes());
    }
    Ok(())
}

async fn receive<M: Message>(stream: &mut Stream) -> Result<M, Failed> {
    let received = timeout(STALL, stream.recv_frame(M::LIMIT)).await.unwrap_or_else(|_| Err(stalled()))?;
    let received = received.ok_or(TransportError::StreamReset)?;
    M::of_frame(received).map_err(|e| bad_peer(&e))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ClientError::Closed)?
}
