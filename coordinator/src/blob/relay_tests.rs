//! Tests of relayed uploads on whole nodes: the leader dies, a follower is away, the sender comes to one that is relayed to.

use std::collections::BTreeSet;

use archipelago_common::{BlobRef, limits};
use archipelago_protocol::ChunkRecord;
use archipelago_transport::{Connection, Stream};

use super::*;
use crate::{
    blob::test_blobs::chunks,
    raft::node::Options,
    server::test_cluster::{LiveNode, TestCluster, wait_until},
};

const N_CHUNKS: u64 = 8;

fn bytes() -> Vec<u8> {
    (0..N_CHUNKS * limits::CHUNK_BYTES - 7).map(|i| (i / 13 % 251) as u8).collect()
}

/// Waits for a leader that all these nodes know, and puts it first.
async fn leader_first(mut nodes: Vec<LiveNode>) -> Vec<LiveNode> {
    let leader = |node: &LiveNode| node.executor.raft().view().leader;
    wait_until("a leader that all know", || {
        let known: BTreeSet<_> = nodes.iter().map(leader).collect();
        let leads = nodes.iter().any(|node| node.executor.raft().view().is_leader());
        leads && known.len() == 1
    })
    .await;
    nodes.sort_by_key(|node| !node.executor.raft().view().is_leader());
    nodes
}

/// An upload by hand, so that it stops where the test says.
struct Upload {
    stream: Stream,
    from_chunk: u64,
    _connection: Connection,
}

impl Upload {
    async fn open(cluster: &TestCluster, to: &LiveNode, blob: BlobRef) -> Self {
        let node = to.executor.raft().view().node;
        let connection = cluster.transport("operator/anna").dial(&cluster.addresses()[&node], node).await.unwrap();
        let mut stream = connection.open_stream().await.unwrap();
        stream.send_frame(&frame::encode(&StreamOpen::Put(blob)).unwrap()).await.unwrap();
        match replicate::receive(&mut stream).await.unwrap() {
            PutReply::Send { from_chunk } => Self { stream, from_chunk, _connection: connection },
            reply => panic!("{reply:?}"),
        }
    }

    /// Sends on up to, and without, chunk `to_chunk`.
    async fn send(&mut self, all: &[u8], to_chunk: u64) {
        for chunk in &chunks(all)[self.from_chunk as usize..to_chunk as usize] {
            self.stream.send_frame(&frame::encode(chunk).unwrap()).await.unwrap();
        }
        self.from_chunk = to_chunk;
    }

    async fn conclude(mut self) {
        assert_eq!(replicate::receive::<PutReply>(&mut self.stream).await.unwrap(), PutReply::Durable);
    }
}

/// Chunks of a blob that a node has on its disk.
fn n_recorded(node: &LiveNode, blob: BlobRef) -> u64 {
    let path = node.executor.replicas().store().partial_path(&blob.digest, "record");
    let size = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    size.saturating_sub(ChunkRecord::size(0)) / 32
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_leader_dies_goes_on_at_the_next_with_one_chunk_sent_again_at_most() {
    let (cluster, all) = (TestCluster::new(3, Options::default()), bytes());
    let blob = BlobRef::of(&all);
    let mut nodes = leader_first(vec![cluster.start(1).await, cluster.start(2).await, cluster.start(3).await]).await;
    let mut upload = Upload::open(&cluster, &nodes[0], blob).await;
    upload.send(&all, 5).await;
    wait_until("five chunks have arrived", || n_recorded(&nodes[0], blob) == 5).await;
    for node in &nodes[1..] {
        assert!(n_recorded(node, blob) >= 4, "more than one chunk would be sent again");
    }
    drop((nodes.remove(0), upload));
    let nodes = leader_first(nodes).await;
    let mut upload = Upload::open(&cluster, &nodes[0], blob).await;
    assert!(upload.from_chunk >= 4, "the next leader asks from {} on", upload.from_chunk);
    upload.send(&all, N_CHUNKS).await;
    upload.conclude().await;
    for node in &nodes {
        assert!(node.executor.replicas().store().contains(&blob), "both are needed for a majority");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_is_away_or_comes_late_does_not_hold_an_upload_up() {
    let (cluster, all) = (TestCluster::new(3, Options::default()), bytes());
    let blob = BlobRef::of(&all);
    let mut nodes = leader_first(vec![cluster.start(1).await, cluster.start(2).await]).await;
    let mut upload = Upload::open(&cluster, &nodes[0], blob).await;
    upload.send(&all, 3).await;
    wait_until("three chunks have arrived", || n_recorded(&nodes[0], blob) == 3).await;
    nodes.push(cluster.start(3).await);
    wait_until("the late one has caught up", || n_recorded(&nodes[2], blob) >= 2).await;
    upload.send(&all, N_CHUNKS).await;
    upload.conclude().await;
    wait_until("all have it", || nodes.iter().all(|node| node.executor.replicas().store().contains(&blob))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_comes_to_a_node_which_is_relayed_to_is_preferred_at_once() {
    let (cluster, all) = (TestCluster::new(3, Options::default()), bytes());
    let blob = BlobRef::of(&all);
    let nodes = leader_first(vec![cluster.start(1).await, cluster.start(2).await, cluster.start(3).await]).await;
    let mut first = Upload::open(&cluster, &nodes[0], blob).await;
    first.send(&all, 3).await;
    wait_until("a follower has some", || n_recorded(&nodes[1], blob) >= 2).await;
    // The first one is still under way, as if its node had been stopped.
    let mut second = Upload::open(&cluster, &nodes[1], blob).await;
    assert!(second.from_chunk >= 2);
    second.send(&all, N_CHUNKS).await;
    second.conclude().await;
}
