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
    server::{Executor, refusal},
};

/// Receives a blob. A coordinator is told that it is durable here, anybody else that it is on a majority.
///
/// # Errors  [`Error::Transport`]: the stream is gone. Everything else is said to the peer
pub async fn serve_put(mut stream: Stream, blob: BlobRef, who: &Principal, executor: &Executor) -> Result<()> {
    let replicas = executor.replicas();
    let received = match receive(&mut stream, blob, who, executor).await {
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

async fn receive(stream: &mut Stream, blob: BlobRef, who: &Principal, executor: &Executor) -> Result<()> {
    let (replicas, counted) = (executor.replicas(), executor.quotas().transfer(who)?);
    let send = |from_chunk| frame::encode(&PutReply::Send { from_chunk });
    if replicas.store().hold(&blob) {
        return Ok(stream.send_frame(&send(blob.n_chunks())?).await?);
    }
    counted.check_upload(blob, stored_by(who, executor).await?)?;
    let mut receiving = tokio::task::block_in_place(|| replicas.store().receive(blob))?;
    stream.send_frame(&send(receiving.next_chunk())?).await?;
    while !receiving.is_complete() {
        let chunk = replicate::receive_chunk(stream, &receiving).await?;
        tokio::task::block_in_place(|| receiving.write(&chunk))?;
        metrics::TRANSFER_BYTES_TOTAL.with_label_values(&["in"]).inc_by(chunk.bytes.len() as u64);
        counted.uploaded(chunk.bytes.len() as u64);
    }
    tokio::task::block_in_place(|| receiving.finish())
}

/// Bytes of the blobs of a site's accepted submissions.
async fn stored_by(who: &Principal, executor: &Executor) -> Result<u64, Refusal> {
    let Principal::Site(site) = who.clone() else { return Ok(0) };
    executor.raft().peek(move |cluster| cluster.stored_bytes(&site)).await.map_err(refusal::dropped)
}

/// Sends a blob that the peer may have.
///
/// # Errors  [`Error::Transport`]: the stream is gone. Everything else is said to the peer
pub async fn serve_get(
    mut stream: Stream,
    (blob, from_chunk): (BlobRef, u64),
    who: &Principal,
    executor: &Executor,
) -> Result<()> {
    let (raft, replicas) = (executor.raft(), executor.replicas());
    let counted = executor.quotas().transfer(who);
    let reply = match &counted {
        Ok(_) => match prepare_get((blob, from_chunk), who, raft, replicas).await {
            Ok(()) => GetReply::Sending,
            Err(refusal) => GetReply::Refused(refusal),
        },
        Err(refusal) => GetReply::Refused(refusal.clone()),
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
