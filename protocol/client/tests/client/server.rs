//! Scripted coordinators: the real session and transfer machines over a shared, made-up state.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

use archipelago_client::{Client, Patience, Result};
use archipelago_common::{Identity, NodeId, blob::BlobRef};
use archipelago_protocol::{
    ChunkReceiver, ChunkSender, CoordinatorSession,
    frame::{self, Message as _},
    message::{Chunk, GetReply, Hello, PutReply, Refusal, Reply, RequestKey, StreamOpen, ToCoordinator},
};
use archipelago_transport::{Connection, Stream, Transport, memory::MemoryNetwork};

/// What all coordinators of a test share.
#[derive(Clone, Default)]
pub(crate) struct Cluster {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) leader: Option<NodeId>,
    /// Nodes that hang up when they are asked something.
    pub(crate) hang_up: BTreeSet<NodeId>,
    /// Whoever connects is refused with these words.
    pub(crate) refuse: Option<String>,
    /// How often each request was carried out.
    pub(crate) carried_out: BTreeMap<RequestKey, u32>,
    /// Keys in the order in which they arrived, with repetitions.
    pub(crate) arrived: Vec<RequestKey>,
    /// What has arrived of each blob.
    pub(crate) blobs: BTreeMap<BlobRef, Vec<u8>>,
    /// Chunks that crossed the wire, either way.
    pub(crate) n_chunks_moved: u64,
    /// Nodes whose disks have spoilt every blob, and nodes that have lost them.
    pub(crate) spoilt: BTreeSet<NodeId>,
    pub(crate) bare: BTreeSet<NodeId>,
    /// Where each download began.
    pub(crate) gets_from: Vec<u64>,
}

impl Cluster {
    pub(crate) fn led_by(leader: u64) -> Self {
        let cluster = Self::default();
        cluster.state().leader = NodeId::new(leader);
        cluster
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Starts a coordinator and returns its address.
    pub(crate) async fn start(&self, transport: &dyn Transport, id: u64) -> String {
        let mut listener = transport.listen("127.0.0.1:0").await.unwrap();
        let address = listener.address().to_owned();
        let cluster = self.clone();
        tokio::spawn(async move {
            while let Some(connection) = listener.accept().await {
                tokio::spawn(cluster.clone().serve(connection, node(id)));
            }
        });
        address
    }

    /// Starts coordinators 1 to `n` in memory.
    pub(crate) async fn start_in_memory(&self, network: &MemoryNetwork, n: u64) -> BTreeMap<NodeId, String> {
        let mut addresses = BTreeMap::new();
        for id in 1..=n {
            let transport = network.transport(identity(&format!("coordinator/{id}")));
            addresses.insert(node(id), self.start(&transport, id).await);
        }
        addresses
    }

    async fn serve(self, connection: Connection, node: NodeId) {
        let refuse = self.state().refuse.clone();
        if let Some(reason) = refuse {
            return connection.refuse(&reason);
        }
        while let Ok(stream) = connection.accept_stream().await {
            let (cluster, connection) = (self.clone(), connection.clone());
            tokio::spawn(async move {
                // A connection that breaks is part of the test.
                let _ = cluster.serve_stream(stream, &connection, node).await;
            });
        }
    }

    async fn serve_stream(
        self,
        mut stream: Stream,
        connection: &Connection,
        node: NodeId,
    ) -> Result<(), archipelago_transport::Error> {
        let Some(open) = stream.recv_frame(StreamOpen::LIMIT).await? else { return Ok(()) };
        match frame::decode(&open).unwrap() {
            StreamOpen::Control(hello) => self.control(stream, connection, node, &hello).await,
            StreamOpen::Put(blob) => self.put(stream, blob, node).await,
            StreamOpen::Get { blob, from_chunk } => self.get(stream, node, blob, from_chunk).await,
            StreamOpen::Raft | StreamOpen::RaftFrom { .. } | StreamOpen::Relay(_) | StreamOpen::Peer(_) => {
                panic!("a client opened a stream of coordinators")
            }
        }
    }

    async fn control(
        self,
        mut stream: Stream,
        connection: &Connection,
        node: NodeId,
        hello: &Hello,
    ) -> Result<(), archipelago_transport::Error> {
        let who = connection.peer().principal.clone();
        let leader = self.state().leader;
        let mut session = CoordinatorSession::open(who, hello, node, leader).unwrap();
        loop {
            while let Some(frame) = session.poll_frame() {
                stream.send_frame(&frame).await?;
            }
            let Some(frame) = stream.recv_frame(ToCoordinator::LIMIT).await? else { return Ok(()) };
            if let Some(asked) = session.handle_frame(&frame).unwrap() {
                let result = {
                    let mut state = self.state();
                    state.arrived.push(asked.key);
                    if state.leader == Some(node) {
                        *state.carried_out.entry(asked.key).or_default() += 1;
                        Ok(Reply::Released)
                    } else {
                        Err(Refusal::NotLeader { leader: state.leader })
                    }
                };
                if self.state().hang_up.contains(&node) {
                    connection.close("killed");
                }
                session.handle_answer(asked.id, result);
            }
        }
    }

    async fn put(self, mut stream: Stream, blob: BlobRef, node: NodeId) -> Result<(), archipelago_transport::Error> {
        let leader = self.state().leader;
        if leader != Some(node) {
            let refused = PutReply::Refused(Refusal::NotLeader { leader });
            return stream.send_frame(&frame::encode(&refused).unwrap()).await;
        }
        let mut receiver = ChunkReceiver::new(blob).unwrap();
        let stored = self.state().blobs.entry(blob).or_default().clone();
        while let Some(piece) = receiver.poll_piece() {
            let Some(bytes) = stored.get(piece.offset as usize..piece.offset as usize + piece.size) else { break };
            assert!(receiver.handle_recorded(bytes, archipelago_common::Digest::of(bytes)));
        }
        let from_chunk = receiver.next_chunk();
        stream.send_frame(&frame::encode(&PutReply::Send { from_chunk }).unwrap()).await?;
        while !receiver.is_complete() {
            let Some(frame) = stream.recv_frame(Chunk::LIMIT).await? else { return Ok(()) };
            let chunk: Chunk = frame::decode(&frame).unwrap();
            receiver.handle_chunk(&chunk).unwrap();
            let mut state = self.state();
            state.n_chunks_moved += 1;
            state.blobs.entry(blob).or_default().extend_from_slice(&chunk.bytes);
        }
        let reply = match receiver.finish() {
            Ok(_) => PutReply::Durable,
            Err(error) => PutReply::Refused(Refusal::Invalid { reason: error.to_string() }),
        };
        stream.send_frame(&frame::encode(&reply).unwrap()).await?;
        stream.finish().await
    }

    async fn get(
        self,
        mut stream: Stream,
        node: NodeId,
        blob: BlobRef,
        from_chunk: u64,
    ) -> Result<(), archipelago_transport::Error> {
        let (bytes, is_spoilt) = {
            let state = self.state();
            let bytes = state.blobs.get(&blob).filter(|_| !state.bare.contains(&node)).cloned();
            (bytes, state.spoilt.contains(&node))
        };
        let Some(mut bytes) = bytes else {
            let refused = GetReply::Refused(Refusal::NotFound { what: format!("blob {blob}") });
            return stream.send_frame(&frame::encode(&refused).unwrap()).await;
        };
        if is_spoilt && let Some(last) = bytes.last_mut() {
            *last ^= 1;
        }
        self.state().gets_from.push(from_chunk);
        stream.send_frame(&frame::encode(&GetReply::Sending).unwrap()).await?;
        let mut sender = ChunkSender::new(blob, from_chunk).unwrap();
        while let Some(piece) = sender.poll_piece() {
            let chunk = sender.handle_read(bytes[piece.offset as usize..][..piece.size].to_vec()).unwrap();
            self.state().n_chunks_moved += 1;
            stream.send_frame(&frame::encode(&chunk).unwrap()).await?;
        }
        stream.finish().await
    }
}

/// A site's client in memory that never loses patience.
pub(crate) async fn site(network: &MemoryNetwork, addresses: &BTreeMap<NodeId, String>) -> Client {
    let transport = Arc::new(network.transport(identity("site/a")));
    Client::connect_over(transport, addresses.clone(), "test", Patience::Forever).await.unwrap()
}

pub(crate) fn node(id: u64) -> NodeId {
    NodeId::new(id).unwrap()
}

pub(crate) fn identity(principal: &str) -> Identity {
    format!("archipelago://lung/{principal}").parse().unwrap()
}
