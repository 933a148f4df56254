//! The server's side of uploads and downloads.

use archipelago_cluster::{Body, Cluster, Edition};
use archipelago_common::{BlobRef, NodeId, Principal, limits};
use archipelago_protocol::{
    frame::{self, Message as _},
    message::{Chunk, GetReply, PutReply, Refusal},
};
use archipelago_transport::{Ahead, SendHalf, Stream};

use super::{Executor, refusal};
use crate::{
    blob::{
        chunks::{receive_chunk, send_chunks, send_part, unless_over},
        gather::gather,
        receiving::{Part, Receiving},
        relay::Relays,
        replicate::Replicas,
    },
    error::{Error, Result},
    ops::metrics,
    quota::{self, Transfer},
    raft::task::Raft,
};

/// Receives a blob. A coordinator is told that it is durable here, anybody else that it is on a majority.
///
/// # Errors  [`Error::Transport`]: the stream is gone. Everything else is said to the peer
pub async fn serve_put(stream: Stream, blob: BlobRef, who: &Principal, executor: &Executor) -> Result<()> {
    let (mut send, mut chunks) = both(stream);
    let received = match who {
        Principal::Coordinator(_) => receive_pushed((&mut send, &mut chunks), blob, executor).await,
        _ => receive((&mut send, &mut chunks), blob, who, executor).await,
    };
    conclude(send, received).await
}

/// Receives a blob that coordinator `by` is receiving.
///
/// # Errors  as [`serve_put`]
pub async fn serve_relay(stream: Stream, blob: BlobRef, by: NodeId, executor: &Executor) -> Result<()> {
    let (mut send, mut chunks) = both(stream);
    let received = receive_relayed((&mut send, &mut chunks), blob, by, executor).await;
    conclude(send, received).await
}

/// What is said to a sender, and its chunks: one comes in while another is verified and written.
fn both(stream: Stream) -> (SendHalf, Ahead) {
    let (send, recv) = stream.split();
    (send, recv.ahead(Chunk::LIMIT))
}

async fn conclude(mut send: SendHalf, received: Result<()>) -> Result<()> {
    let reply = match received {
        Ok(()) => PutReply::Durable,
        Err(error @ Error::Transport(_)) => return Err(error),
        Err(error) => PutReply::Refused(refusal::of(&error)),
    };
    send.send_frame(&frame::encode(&reply)?).await?;
    Ok(send.finish().await?)
}

/// Receives from the sender itself, and sees that the blob is on a majority.
async fn receive(
    (send, chunks): (&mut SendHalf, &mut Ahead),
    blob: BlobRef,
    who: &Principal,
    executor: &Executor,
) -> Result<()> {
    let (replicas, mut counted) = (executor.replicas(), executor.quotas().transfer(who)?);
    if tokio::task::block_in_place(|| replicas.store().hold(&blob)) {
        send_from(send, blob.n_chunks()).await?;
        return replicas.ensure_majority(blob).await;
    }
    counted.check_stored(blob, stored_by(who, executor).await?)?;
    let mut receiving = replicas.store().receive_at_first_hand(blob).await?;
    // A single chunk is sent again as a whole in any case.
    let relays = match blob.n_chunks() {
        0 | 1 => None,
        _ => {
            receiving.await_others();
            gather(replicas, &mut receiving).await?;
            receiving.await_sender();
            Some(Relays::begin(replicas, &receiving)?)
        }
    };
    let from_chunk = receiving.next_chunk();
    count(&mut counted, blob.size.saturating_sub(from_chunk.saturating_mul(limits::CHUNK_BYTES)), executor).await?;
    send_from(send, from_chunk).await?;
    while !receiving.is_complete() {
        let chunk = receive_chunk(chunks, &receiving).await?;
        if let Some(relays) = &relays {
            receiving.await_others();
            unless_over(&receiving, relays.keep_pace(chunk.chunk_idx)).await?;
        }
        take(&mut receiving, &chunk)?;
        if let Some(relays) = &relays {
            relays.wrote(receiving.next_chunk());
        }
        counted.uploaded(chunk.bytes.len() as u64);
    }
    let finished = tokio::task::block_in_place(|| receiving.finish());
    let is_something_else = matches!(&finished, Err(Error::Protocol(archipelago_protocol::Error::BlobDigest { .. })));
    let is_durable = match relays {
        // If these bytes are not the blob, the others find that out too, and throw away what they have.
        Some(relays) if finished.is_ok() || is_something_else => relays.conclude().await,
        _ => false,
    };
    match finished {
        Ok(()) if is_durable => Ok(()),
        Ok(()) => replicas.ensure_majority(blob).await,
        // Perhaps through somebody else's chunks: this sender may begin anew.
        Err(_) if is_something_else && from_chunk > 0 => Err(Error::BlobBusy { blob }),
        Err(error) => Err(error),
    }
}

/// Receives what is whole at another coordinator.
async fn receive_pushed((send, chunks): (&mut SendHalf, &mut Ahead), blob: BlobRef, executor: &Executor) -> Result<()> {
    let store = executor.replicas().store();
    if tokio::task::block_in_place(|| store.hold(&blob)) {
        return send_from(send, blob.n_chunks()).await;
    }
    let mut receiving = tokio::task::block_in_place(|| store.receive(blob))?;
    send_from(send, receiving.next_chunk()).await?;
    while !receiving.is_complete() {
        let chunk = receive_chunk(chunks, &receiving).await?;
        take(&mut receiving, &chunk)?;
    }
    tokio::task::block_in_place(|| receiving.finish())
}

/// Receives what is still on its way at another coordinator, and confirms every chunk.
async fn receive_relayed(
    (send, chunks): (&mut SendHalf, &mut Ahead),
    blob: BlobRef,
    by: NodeId,
    executor: &Executor,
) -> Result<()> {
    let store = executor.replicas().store();
    if tokio::task::block_in_place(|| store.hold(&blob)) {
        return send_from(send, blob.n_chunks()).await;
    }
    let mut receiving = store.receive_relayed(blob, by, executor.raft().view().leader).await?;
    send_from(send, receiving.next_chunk()).await?;
    while !receiving.is_complete() {
        let chunk = receive_chunk(chunks, &receiving).await?;
        take(&mut receiving, &chunk)?;
        let has = PutReply::Has { n_chunks: receiving.next_chunk() };
        send.send_frame(&frame::encode(&has)?).await?;
    }
    tokio::task::block_in_place(|| receiving.finish())
}

async fn send_from(send: &mut SendHalf, from_chunk: u64) -> Result<()> {
    Ok(send.send_frame(&frame::encode(&PutReply::Send { from_chunk })?).await?)
}

/// Verifies a chunk and writes it; the next one comes in meanwhile.
fn take(receiving: &mut Receiving, chunk: &Chunk) -> Result<()> {
    tokio::task::block_in_place(|| receiving.write(chunk))?;
    metrics::TRANSFER_BYTES_TOTAL.with_label_values(&["in"]).inc_by(chunk.bytes.len() as u64);
    Ok(())
}

/// Has the bytes of an upload counted before they come: by all coordinators, and so by the leader.
async fn count(counted: &mut Transfer, bytes: u64, executor: &Executor) -> Result<(), Refusal> {
    let Some(site) = counted.site().cloned() else { return Ok(()) };
    let is_counted_by_all = |cluster: &Cluster| cluster.edition() >= Edition::Third;
    if !executor.raft().peek(is_counted_by_all).await.map_err(refusal::dropped)? {
        return counted.take_here(bytes);
    }
    if let Some((needed, lot)) = counted.lacking(bytes) {
        executor.require_leader()?;
        let (node, limit) = (executor.raft().view().node, executor.quotas().limits().bytes_per_day);
        let grant = |bytes| executor.execute_own(node, Body::Grant { site: site.clone(), bytes, limit });
        let granted = match grant(lot).await {
            // What is left of the day may be less than a lot, and enough.
            Err(Refusal::Conflict { .. }) if lot > needed => grant(needed).await.map(|()| needed),
            granted => granted.map(|()| lot),
        };
        counted.granted(granted.map_err(|refusal| quota::refused("bytes_per_day", refusal))?);
    }
    counted.take(bytes);
    Ok(())
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
    let offer = match &counted {
        Ok(_) => prepare_get((blob, from_chunk), who, raft, replicas).await,
        Err(refusal) => Err(refusal.clone()),
    };
    let reply = match &offer {
        Ok(Offer::Whole) => GetReply::Sending,
        Ok(Offer::Part { n_chunks, .. }) => GetReply::SendingPart { n_chunks: *n_chunks },
        Err(refusal) => GetReply::Refused(refusal.clone()),
    };
    stream.send_frame(&frame::encode(&reply)?).await?;
    let sent = match offer {
        Ok(Offer::Whole) => {
            send_chunks(&mut stream.send, replicas.store(), blob, from_chunk).await?;
            blob.size.saturating_sub(from_chunk.saturating_mul(limits::CHUNK_BYTES))
        }
        Ok(Offer::Part { part, n_chunks }) => {
            send_part(&mut stream.send, part, from_chunk..n_chunks).await?;
            n_chunks.saturating_sub(from_chunk).saturating_mul(limits::CHUNK_BYTES)
        }
        Err(_) => 0,
    };
    metrics::TRANSFER_BYTES_TOTAL.with_label_values(&["out"]).inc_by(sent);
    Ok(stream.finish().await?)
}

/// What may be sent.
enum Offer {
    /// The blob.
    Whole,
    /// What has come of it so far.
    Part { part: Part, n_chunks: u64 },
}

async fn prepare_get(
    (blob, from_chunk): (BlobRef, u64),
    who: &Principal,
    raft: &Raft,
    replicas: &Replicas,
) -> Result<Offer, Refusal> {
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
    let part = match who {
        // Coordinators ask one another only for what the asker lacks; asking on would go in circles. Looked for before the
        // whole, which it may become meanwhile.
        Principal::Coordinator(_) => replicas.store().part(blob),
        _ => {
            // What comes of it shows below.
            let _ = replicas.fetch(blob).await;
            None
        }
    };
    match (replicas.store().contains(&blob), part) {
        (true, _) => Ok(Offer::Whole),
        (false, Some(part)) => Ok(Offer::Part { n_chunks: part.n_chunks(), part }),
        (false, None) => Err(Refusal::NotFound { what: format!("blob {blob}") }),
    }
}
