//! The server's side of uploads and downloads.

use archipelago_common::{BlobRef, Principal};
use archipelago_protocol::{
    frame,
    message::{GetReply, PutReply, Refusal},
};
use archipelago_transport::Stream;

use super::replicate::{self, Replicas};
use crate::{
    error::{Error, Result},
    ops::metrics,
    raft::task::Raft,
    server::refusal,
};

/// Receives a blob. A coordinator is told that it is durable here, anybody else that it is on a majority.
///
/// # Errors  [`Error::Transport`]: the stream is gone. Everything else is said to the peer
pub async fn serve_put(mut stream: Stream, blob: BlobRef, who: &Principal, replicas: &Replicas) -> Result<()> {
    let received = match receive(&mut stream, blob, replicas).await {
        Ok(()) if matches!(who, Principal::Coordinator(_)) => Ok(()),
        Ok(()) => replicas.ensure_majority(blob).await,
        Err(error) => Err(error),
    };
    let reply = match received {
        Ok(()) => PutReply::Durable,
        Err(error @ Error::Transport(_)) => return Err(error),
        Err(error) => PutReply::Refused(refusal::of(&error)),
    };
    stream.send_frame(&frame::encode(&reply)?).await?;
    Ok(stream.finish().await?)
}

async fn receive(stream: &mut Stream, blob: BlobRef, replicas: &Replicas) -> Result<()> {
    let send = |from_chunk| frame::encode(&PutReply::Send { from_chunk });
    if replicas.store().contains(&blob) {
        return Ok(stream.send_frame(&send(blob.n_chunks())?).await?);
    }
    let mut receiving = tokio::task::block_in_place(|| replicas.store().receive(blob))?;
    stream.send_frame(&send(receiving.next_chunk())?).await?;
    while !receiving.is_complete() {
        let chunk = replicate::receive_chunk(stream, &receiving).await?;
        tokio::task::block_in_place(|| receiving.write(&chunk))?;
        metrics::TRANSFER_BYTES_TOTAL.with_label_values(&["in"]).inc_by(chunk.bytes.len() as u64);
    }
    tokio::task::block_in_place(|| receiving.finish())
}

/// Sends a blob that the peer may have.
///
/// # Errors  [`Error::Transport`]: the stream is gone. Everything else is said to the peer
pub async fn serve_get(
    mut stream: Stream,
    (blob, from_chunk): (BlobRef, u64),
    who: &Principal,
    raft: &Raft,
    replicas: &Replicas,
) -> Result<()> {
    let reply = match prepare_get((blob, from_chunk), who, raft, replicas).await {
        Ok(()) => GetReply::Sending,
        Err(refusal) => GetReply::Refused(refusal),
    };
    stream.send_frame(&frame::encode(&reply)?).await?;
    if reply == GetReply::Sending {
        replicate::send_chunks(&mut stream, replicas.store(), blob, from_chunk).await?;
        let sent = blob.size.saturating_sub(from_chunk.saturating_mul(archipelago_common::limits::CHUNK_BYTES));
        metrics::TRANSFER_BYTES_TOTAL.with_label_values(&["out"]).inc_by(sent);
    }
    Ok(stream.finish().await?)
}

async fn prepare_get(
    (blob, from_chunk): (BlobRef, u64),
    who: &Principal,
    raft: &Raft,
    replicas: &Replicas,
) -> Result<(), Refusal> {
    let asker = who.clone();
    let may_fetch =
        raft.peek(move |cluster| cluster.may_fetch(&asker, &blob.digest)).await.map_err(refusal::dropped)?;
    if !may_fetch {
        let view = raft.view();
        // A node that is behind may not know yet what the leader has published.
        return Err(match view.is_leader() {
            true => Refusal::Forbidden { reason: format!("blob {blob} is not open to `{who}`") },
            false => Refusal::NotLeader { leader: view.leader },
        });
    }
    archipelago_protocol::ChunkSender::new(blob, from_chunk).map_err(|e| refusal::of(&e.into()))?;
    // Coordinators ask one another only for what the asker lacks; asking on would go in circles.
    if !matches!(who, Principal::Coordinator(_)) && replicas.fetch(blob).await.is_ok() {
        return Ok(());
    }
    match replicas.store().contains(&blob) {
        true => Ok(()),
        false => Err(Refusal::NotFound { what: format!("blob {blob}") }),
    }
}
