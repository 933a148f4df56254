//! The chunks of a blob on a stream, one way and the other.

use std::{ops::Range, sync::Arc};

use archipelago_common::BlobRef;
use archipelago_protocol::message::Chunk;
use archipelago_transport::{Ahead, SendHalf};
use tokio::sync::mpsc;

use super::{
    receiving::{Part, Receiving},
    store::BlobStore,
};
use crate::{
    error::{Error, Result},
    frames::send_chunk,
};

/// Sends the chunks of a blob of this store from `from_chunk` on.
///
/// # Errors  [`Error::NoBlob`], [`Error::Damaged`], [`Error::Protocol`], [`Error::Transport`]
pub(crate) async fn send_chunks(
    send: &mut SendHalf,
    store: &Arc<BlobStore>,
    blob: BlobRef,
    from_chunk: u64,
) -> Result<()> {
    let mut file = tokio::task::block_in_place(|| store.read(blob, from_chunk))?;
    send_all(send, move || file.next_chunk().transpose()).await
}

/// Sends chunks of a blob that is still on its way in.
///
/// # Errors  [`Error::Common`], [`Error::Transport`]
pub(crate) async fn send_part(send: &mut SendHalf, part: Part, mut chunks: Range<u64>) -> Result<()> {
    send_all(send, move || chunks.next().map(|chunk_idx| part.chunk(chunk_idx))).await
}

/// Sends chunk after chunk; the next is read and verified while one leaves.
async fn send_all(send: &mut SendHalf, mut next: impl FnMut() -> Option<Result<Chunk>> + Send + 'static) -> Result<()> {
    let (sender, mut chunks) = mpsc::channel(1);
    // It ends when nobody takes its chunks any more.
    tokio::task::spawn_blocking(move || {
        while let Some(chunk) = next()
            && sender.blocking_send(chunk).is_ok()
        {}
    });
    while let Some(chunk) = chunks.recv().await {
        send_chunk(send, &chunk?).await?;
    }
    Ok(())
}

/// Receives the next chunk, unless somebody else is to go on.
///
/// # Errors  as [`frames::receive_chunk`](crate::frames::receive_chunk); [`Error::BlobBusy`]
pub(crate) async fn receive_chunk(chunks: &mut Ahead, receiving: &Receiving) -> Result<Chunk> {
    unless_over(receiving, crate::frames::receive_chunk(chunks)).await
}

/// A step of a receiver, unless somebody else is to go on.
///
/// # Errors  of the step; [`Error::BlobBusy`]
pub(crate) async fn unless_over<T>(receiving: &Receiving, step: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        done = step => done,
        () = receiving.over() => Err(Error::BlobBusy { blob: receiving.blob() }),
    }
}
