//! Frames that are due from a peer, and how long one waits for them: what transfers and questions between coordinators
//! have in common.

use std::time::Duration;

use archipelago_protocol::{
    frame::{self, Message as _},
    message::Chunk,
};
use archipelago_transport::{Ahead, SendHalf, Stream};

use crate::error::{Error, Result};

/// Receives the message that is due.
///
/// # Errors  [`Error::Transport`], also if the stream ended or nothing came for too long; [`Error::Protocol`]
pub(crate) async fn receive<M: frame::Message>(stream: &mut Stream) -> Result<M> {
    let frame = patiently(stream.recv_frame(M::LIMIT)).await??;
    let frame = frame.ok_or(archipelago_transport::Error::StreamReset)?;
    Ok(M::of_frame(frame)?)
}

/// Receives the chunk that is due.
///
/// # Errors  as [`receive`]
pub(crate) async fn receive_chunk(chunks: &mut Ahead) -> Result<Chunk> {
    let frame = patiently(chunks.recv_frame()).await??;
    Ok(Chunk::of_frame(frame.ok_or(archipelago_transport::Error::StreamReset)?)?)
}

/// Sends a chunk.
///
/// # Errors  [`Error::Transport`], also if it could not leave for too long
pub(crate) async fn send_chunk(stream: &mut SendHalf, chunk: &Chunk) -> Result<()> {
    let pieces = frame::encode_chunk(chunk)?;
    Ok(patiently(stream.send_pieces(&pieces)).await??)
}

/// It is progress that keeps a transfer alive, not its total time.
pub(crate) async fn patiently<T>(step: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(STEP, step).await.map_err(|_| stood_still())
}

/// What a step of a transfer ends with that took longer than [`STEP`].
pub(crate) fn stood_still() -> Error {
    let detail = format!("a transfer stood still for {} s", STEP.as_secs());
    archipelago_transport::Error::Lost { detail }.into()
}

/// One step of a transfer: a chunk on a slow line, or reading or fsyncing a large blob.
pub(crate) const STEP: Duration = Duration::from_secs(30);
