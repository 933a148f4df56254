//! Raft's messages on their way: one stream to each other coordinator, one more for every snapshot.
//!
//! Messages may be lost, and Raft is told when they are: queues are short, and what does not fit is dropped. On a
//! stream each frame is one message. A snapshot has a stream of its own, so that heartbeats do not wait behind it: the
//! message without its data, then the data in pieces, then the end of the stream.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use archipelago_cluster::Cluster;
use archipelago_common::{NodeId, limits};
use archipelago_protocol::{frame::RAFT_BYTES, message::StreamOpen};
use archipelago_transport::Stream;
use protobuf::Message as _;
use raft::{
    SnapshotStatus,
    eraftpb::{Message, MessageType},
};
use tokio::{sync::mpsc, task::JoinSet};

use super::task::Raft;
use crate::{
    error::{Error, Result},
    links::{Link, Links},
};

/// Where the node's messages go.
pub struct Peers {
    links: Links,
    raft: Raft,
    queues: BTreeMap<NodeId, Queue>,
    // Ends the tasks when the owner does.
    carriers: JoinSet<()>,
}

/// What waits to be carried to one node, by this link.
struct Queue {
    link: Arc<Link>,
    messages: mpsc::Sender<Message>,
}

impl Peers {
    /// Carries messages over these links, as they are at the time.
    pub fn new(links: &Links, raft: &Raft) -> Self {
        Self { links: links.clone(), raft: raft.clone(), queues: BTreeMap::new(), carriers: JoinSet::new() }
    }

    /// Sends a message soon.
    ///
    /// # Errors  the node that cannot be reached; the message is dropped
    pub fn send(&mut self, message: Message) -> Result<(), NodeId> {
        let Some(node) = NodeId::new(message.to) else { return Ok(()) };
        let link = self.links.to(node).ok_or(node)?;
        if self.queues.get(&node).is_none_or(|queue| !Arc::ptr_eq(&queue.link, &link)) {
            // The carrier of a link that is gone ends with its queue.
            let (messages, waiting) = mpsc::channel(QUEUE);
            self.carriers.spawn(carry(link.clone(), waiting, self.links.clone(), self.raft.clone()));
            self.queues.insert(node, Queue { link, messages });
        }
        while self.carriers.try_join_next().is_some() {}
        self.queues[&node].messages.try_send(message).map_err(|_| node)
    }
}

async fn carry(link: Arc<Link>, mut messages: mpsc::Receiver<Message>, links: Links, raft: Raft) {
    let mut stream: Option<Stream> = None;
    while let Some(message) = messages.recv().await {
        if message.get_msg_type() == MessageType::MsgSnapshot {
            tokio::spawn(carry_snapshot(link.clone(), message, links.raft_opening(), raft.clone()));
            continue;
        }
        if let Err(error) = send(&link, &mut stream, &message, &links).await {
            tracing::debug!(node = %link.node(), %error, "a Raft message was lost");
            stream = None;
            raft.report_unreachable(link.node());
            tokio::time::sleep(PAUSE).await;
            // They are old by now; what matters will be sent again.
            while messages.try_recv().is_ok() {}
        }
    }
}

/// Sends a message over the stream there is, or a new one. That a stream is gone, because the peer was restarted say,
/// is often found out with a message that decides an election: it gets a second chance.
async fn send(link: &Link, stream: &mut Option<Stream>, message: &Message, links: &Links) -> Result<()> {
    let frame = to_bytes(message)?;
    if let Some(present) = stream {
        match present.send_frame(&frame).await {
            Ok(()) => return Ok(()),
            Err(error) => tracing::debug!(node = %link.node(), %error, "a Raft stream is gone"),
        }
    }
    *stream = None;
    let fresh = stream.insert(link.open(&links.raft_opening()).await?);
    Ok(fresh.send_frame(&frame).await?)
}

async fn carry_snapshot(link: Arc<Link>, message: Message, open: StreamOpen, raft: Raft) {
    let index = message.get_snapshot().get_metadata().index;
    let status = match send_snapshot(&link, message, &open).await {
        Ok(()) => SnapshotStatus::Finish,
        Err(error) => {
            tracing::info!(node = %link.node(), index, %error, "a snapshot did not arrive");
            SnapshotStatus::Failure
        }
    };
    raft.report_snapshot(link.node(), status).await;
}

async fn send_snapshot(link: &Link, mut message: Message, open: &StreamOpen) -> Result<()> {
    let data = message.mut_snapshot().take_data();
    let mut stream = link.open(open).await?;
    stream.send_frame(&to_bytes(&message)?).await?;
    for piece in data.chunks(limits::FRAME_BYTES) {
        stream.send_frame(piece).await?;
    }
    stream.finish().await?;
    // The other side finishes when it has everything.
    stream.recv_frame(0).await?;
    Ok(())
}

/// Takes messages from another coordinator's stream, until it ends.
///
/// # Errors  [`Error::Transport`]; [`Error::Raft`] for bytes that are no message, or another node's; [`Error::Common`] for
/// a snapshot that is damaged
pub async fn receive(mut stream: Stream, from: NodeId, raft: Raft) -> Result<()> {
    while let Some(frame) = stream.recv_frame(RAFT_BYTES).await? {
        let mut message = Message::new();
        message.merge_from_bytes(&frame).map_err(|e| Error::Raft { detail: e.to_string() })?;
        if message.from != from.as_u64() {
            let detail = format!("node {from} sent a message of node {}", message.from);
            return Err(Error::Raft { detail });
        }
        if message.get_msg_type() == MessageType::MsgSnapshot {
            let data = receive_data(&mut stream).await?;
            // Raft writes a snapshot down before it is looked at again; a damaged one must not get that far.
            Cluster::restore(&data)?;
            message.mut_snapshot().data = data.into();
            stream.finish().await?;
        }
        raft.deliver(message);
    }
    Ok(())
}

async fn receive_data(stream: &mut Stream) -> Result<Vec<u8>> {
    let mut data = Vec::new();
    while let Some(piece) = stream.recv_frame(limits::FRAME_BYTES).await? {
        if data.len() + piece.len() > limits::SNAPSHOT_BYTES {
            return Err(Error::Raft { detail: format!("a snapshot has more than {} bytes", limits::SNAPSHOT_BYTES) });
        }
        data.extend_from_slice(&piece);
    }
    Ok(data)
}

fn to_bytes(message: &Message) -> Result<Vec<u8>> {
    message.write_to_bytes().map_err(|e| Error::Raft { detail: e.to_string() })
}

/// Messages that may wait for one node: heartbeats and appends of some round trips.
const QUEUE: usize = 128;
/// Pause after a lost message; an election takes six times as long.
const PAUSE: Duration = Duration::from_millis(100);
