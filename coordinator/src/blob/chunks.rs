//! The chunks of a blob on a stream, one way and the other.

use std::{ops::Range, sync::Arc};

use archipelago_common::BlobRef;
use archipelago_protocol::{frame, message::Chunk};
use archipelago_transport::Stream;

use super::{
    receiving::{Part, Receiving},
    store::BlobStore,
};
use crate::{
    error::{Error, Result},
    frames::{patiently, receive},
};

/// Sends the chunks of a blob of this store from `from_chunk` on.
///
/// # Errors  [`Error::NoBlob`], [`Error::Damaged`], [`Error::Protocol`], [`Error::Transport`]
pub(crate) async fn send_chunks(
    stream: &mut Stream,
    store: &Arc<BlobStore>,
    blob: BlobRef,
    from_chunk: u64,
) -> Result<()> {
    let mut file = tokio::task::block_in_place(|| store.read(blob, from_chunk))?;
    while let Some(chunk) = tokio::task::block_in_place(|| file.next_chunk())? {
        let frame = frame::encode(&chunk)?;
        patiently(stream.send_frame(&frame)).await??;
    }
    Ok(())
}

/// Sends chunks of a blob that is still on its way in.
///
/// # Errors  [`Error::Common`], [`Error::Transport`]
pub(crate) async fn send_part(stream: &mut Stream, part: &Part, chunks: Range<u64>) -> Result<()> {
    for chunk_idx in chunks {
        let chunk = tokio::task::block_in_place(|| part.chunk(chunk_idx))?;
        let frame = frame::encode(&chunk)?;
        patiently(stream.send_frame(&frame)).await??;
    }
    Ok(())
}

/// Receives the next chunk, unless somebody else is to go on.
///
/// # Errors  as [`receive`]; [`Error::BlobBusy`]
pub(crate) async fn receive_chunk(stream: &mut Stream, receiving: &Receiving) -> Result<Chunk> {
    unless_over(receiving, receive(stream)).await
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
