//! Tests of relayed uploads on whole nodes: the leader dies, a follower is away, the sender comes to one that is relayed to
//! or has missed it all.

use std::{
    collections::{BTreeSet, VecDeque},
    path::Path,
};

use archipelago_common::{BlobRef, limits};
use archipelago_protocol::{
    ChunkRecord,
    message::{GetReply, Refusal},
};
use archipelago_transport::{Connection, Stream};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::*;
use crate::{
    blob::test_blobs::chunks,
    raft::node::Options,
    server::test_cluster::{LiveNode, TestCluster, wait_until},
};

const N_CHUNKS: u64 = 8;

fn bytes() -> Vec<u8> {
    bytes_of(N_CHUNKS)
}

fn bytes_of(n_chunks: u64) -> Vec<u8> {
    (0..n_chunks * limits::CHUNK_BYTES - 7).map(|i| (i / 13 % 251) as u8).collect()
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
        match Self::try_open(cluster, to, blob).await {
            Ok(upload) => upload,
            Err(reply) => panic!("{reply:?}"),
        }
    }

    async fn try_open(cluster: &TestCluster, to: &LiveNode, blob: BlobRef) -> Result<Self, PutReply> {
        let node = to.executor.raft().view().node;
        let connection = cluster.transport("operator/anna").dial(&cluster.addresses()[&node], node).await.unwrap();
        let mut stream = connection.open_stream().await.unwrap();
        stream.send_frame(&frame::encode(&StreamOpen::Put(blob)).unwrap()).await.unwrap();
        match frames::receive(&mut stream).await.unwrap() {
            PutReply::Send { from_chunk } => Ok(Self { stream, from_chunk, _connection: connection }),
            reply => Err(reply),
        }
    }

    /// Sends on up to, and without, chunk `to_chunk`.
    async fn send(&mut self, all: &[u8], to_chunk: u64) {
        for chunk in &chunks(all)[self.from_chunk as usize..to_chunk as usize] {
            self.stream.send_frame(&frame::encode(chunk).unwrap()).await.unwrap();
        }
        self.from_chunk = to_chunk;
    }

    async fn conclude(self) {
        assert_eq!(self.reply().await, PutReply::Durable);
    }

    async fn reply(mut self) -> PutReply {
        frames::receive(&mut self.stream).await.unwrap()
    }
}

/// Has a node lead, which the other knows.
async fn have_lead(nodes: &[LiveNode], node: u64) {
    let node = NodeId::new(node).unwrap();
    let leads = || nodes.iter().all(|one| one.executor.raft().view().leader == Some(node));
    while !leads() {
        for one in nodes.iter().filter(|one| one.executor.raft().view().is_leader()) {
            one.executor.raft().hand_over(Some(node), Duration::from_secs(2)).await;
        }
        tokio::task::yield_now().await;
    }
}

/// What a peer is told that asks for a blob.
async fn ask_for(cluster: &TestCluster, who: &str, to: &LiveNode, blob: BlobRef) -> GetReply {
    let node = to.executor.raft().view().node;
    let connection = cluster.transport(who).dial(&cluster.addresses()[&node], node).await.unwrap();
    let mut stream = connection.open_stream().await.unwrap();
    stream.send_frame(&frame::encode(&StreamOpen::Get { blob, from_chunk: 0 }).unwrap()).await.unwrap();
    frames::receive(&mut stream).await.unwrap()
}

/// Chunks of a blob that a node has on its disk.
fn n_recorded(node: &LiveNode, blob: BlobRef) -> u64 {
    n_recorded_in(&node.executor.replicas().store().partial_path(&blob.digest, "record"))
}

fn n_recorded_in(record: &Path) -> u64 {
    let size = std::fs::metadata(record).map_or(0, |metadata| metadata.len());
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
    // The leader and one other are a majority; nobody waits for the third.
    assert!(nodes[1..].iter().any(|node| n_recorded(node, blob) >= 4), "more than one chunk would be sent again");
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

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_missed_an_upload_takes_it_from_the_others_before_the_sender_goes_on() {
    let (cluster, all) = (TestCluster::new(3, Options::default()), bytes());
    let blob = BlobRef::of(&all);
    let mut nodes = leader_first(vec![cluster.start(1).await, cluster.start(2).await]).await;
    let mut upload = Upload::open(&cluster, &nodes[0], blob).await;
    upload.send(&all, 5).await;
    wait_until("five chunks have arrived", || n_recorded(&nodes[0], blob) == 5).await;
    drop((nodes.remove(0), upload));
    nodes.push(cluster.start(3).await);
    have_lead(&nodes, 3).await;
    assert_eq!(n_recorded(&nodes[1], blob), 0);
    let has = n_recorded(&nodes[0], blob);
    let mut upload = Upload::open(&cluster, &nodes[1], blob).await;
    assert_eq!((upload.from_chunk, n_recorded(&nodes[1], blob)), (has, has));
    assert!(has >= 4, "more than one chunk is sent again: {has}");
    upload.send(&all, N_CHUNKS).await;
    upload.conclude().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_that_comes_back_and_leads_goes_on_where_the_upload_is() {
    let (cluster, all) = (TestCluster::new(3, Options::default()), bytes());
    let blob = BlobRef::of(&all);
    let mut nodes = leader_first(vec![cluster.start(1).await, cluster.start(2).await, cluster.start(3).await]).await;
    let first = nodes[0].executor.raft().view().node;
    let mut upload = Upload::open(&cluster, &nodes[0], blob).await;
    upload.send(&all, 3).await;
    wait_until("three chunks have arrived", || n_recorded(&nodes[0], blob) == 3).await;
    drop((nodes.remove(0), upload));
    let mut nodes = leader_first(nodes).await;
    let mut upload = Upload::open(&cluster, &nodes[0], blob).await;
    upload.send(&all, 6).await;
    wait_until("six chunks have arrived", || n_recorded(&nodes[0], blob) == 6).await;
    drop((nodes.remove(0), upload));
    nodes.push(cluster.start(first.as_u64()).await);
    have_lead(&nodes, first.as_u64()).await;
    let mut upload = Upload::open(&cluster, &nodes[1], blob).await;
    assert!(upload.from_chunk >= 5, "the first leader asks from {} on", upload.from_chunk);
    upload.send(&all, N_CHUNKS).await;
    upload.conclude().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_chunk_is_recorded_before_a_majority_has_the_one_before() {
    let (cluster, all) = (TestCluster::new(3, Options::default()), bytes());
    let blob = BlobRef::of(&all);
    let mut nodes = leader_first(vec![cluster.start(1).await, cluster.start(2).await]).await;
    let mut upload = Upload::open(&cluster, &nodes[0], blob).await;
    upload.send(&all, 3).await;
    wait_until("both have three chunks", || nodes.iter().all(|node| n_recorded(node, blob) == 3)).await;
    let follower = nodes.remove(1);
    let id = follower.executor.raft().view().node.as_u64();
    drop(follower);
    // Not all of them are taken before the follower is back.
    let sending = async {
        upload.send(&all, N_CHUNKS).await;
        upload.conclude().await;
    };
    let watching = async {
        wait_until("one more has arrived", || n_recorded(&nodes[0], blob) == 4).await;
        nodes.push(cluster.start(id).await);
        wait_until("both have it", || {
            // In this order: the follower may have got one more in between.
            let (n_first, n_second) = (n_recorded(&nodes[0], blob), n_recorded(&nodes[1], blob));
            let are_whole = nodes.iter().all(|node| node.executor.replicas().store().contains(&blob));
            assert!(are_whole || n_first <= n_second + 1, "{n_first} are recorded where the second has {n_second}");
            are_whole
        })
        .await;
    };
    tokio::join!(sending, watching);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_a_disk_has_spoilt_is_taken_as_far_as_it_is_sound() {
    let (cluster, all) = (TestCluster::new(3, Options::default()), bytes());
    let blob = BlobRef::of(&all);
    let mut nodes = leader_first(vec![cluster.start(1).await, cluster.start(2).await]).await;
    let mut upload = Upload::open(&cluster, &nodes[0], blob).await;
    upload.send(&all, 5).await;
    wait_until("some have arrived", || n_recorded(&nodes[1], blob) >= 4).await;
    drop((nodes.remove(0), upload));
    let path = nodes[0].executor.replicas().store().partial_path(&blob.digest, "data");
    let mut data = std::fs::read(&path).unwrap();
    data[2 * limits::CHUNK_BYTES as usize + 5] ^= 1;
    std::fs::write(&path, data).unwrap();
    nodes.push(cluster.start(3).await);
    let nodes = leader_first(nodes).await;
    let late = nodes.iter().find(|node| node.executor.raft().view().node.as_u64() == 3).unwrap();
    let mut upload = Upload::open(&cluster, late, blob).await;
    assert_eq!(upload.from_chunk, 2);
    upload.send(&all, N_CHUNKS).await;
    upload.conclude().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_of_something_else_are_thrown_away_everywhere_and_the_next_sender_begins_anew() {
    let (cluster, all) = (TestCluster::new(3, Options::default()), bytes());
    let (blob, other) = (BlobRef::of(&all), vec![7; all.len()]);
    let nodes = leader_first(vec![cluster.start(1).await, cluster.start(2).await, cluster.start(3).await]).await;
    let mut wrong = Upload::open(&cluster, &nodes[0], blob).await;
    wrong.send(&other, 3).await;
    wait_until("all have some of it", || nodes.iter().all(|node| n_recorded(node, blob) >= 2)).await;
    drop(wrong);
    // Whoever goes on, with the right bytes, is not to blame.
    let mut upload = Upload::open(&cluster, &nodes[1], blob).await;
    assert!(upload.from_chunk >= 2);
    upload.send(&all, N_CHUNKS).await;
    let reply = upload.reply().await;
    assert!(matches!(reply, PutReply::Refused(Refusal::Busy { .. })), "{reply:?}");
    let mut upload = Upload::open(&cluster, &nodes[2], blob).await;
    assert_eq!(upload.from_chunk, 0);
    upload.send(&other, N_CHUNKS).await;
    let reply = upload.reply().await;
    assert!(matches!(reply, PutReply::Refused(Refusal::Invalid { .. })), "{reply:?}");
    let mut upload = Upload::open(&cluster, &nodes[0], blob).await;
    assert_eq!(upload.from_chunk, 0);
    upload.send(&all, N_CHUNKS).await;
    upload.conclude().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_come_of_an_upload_is_shown_to_coordinators_only() {
    let (cluster, all) = (TestCluster::new(3, Options::default()), bytes());
    let blob = BlobRef::of(&all);
    let nodes = leader_first(vec![cluster.start(1).await, cluster.start(2).await]).await;
    let mut upload = Upload::open(&cluster, &nodes[0], blob).await;
    upload.send(&all, 2).await;
    wait_until("two chunks have arrived", || n_recorded(&nodes[0], blob) == 2).await;
    let reply = ask_for(&cluster, "coordinator/3", &nodes[0], blob).await;
    assert_eq!(reply, GetReply::SendingPart { n_chunks: 2 });
    let reply = ask_for(&cluster, "operator/anna", &nodes[0], blob).await;
    assert!(matches!(reply, GetReply::Refused(Refusal::NotFound { .. })), "{reply:?}");
}

/// One upload while its receiver, another node or only its sender is killed again and again, and it goes on anywhere.
async fn check_kills(n_nodes: u64, seed: u64) {
    let (cluster, all, mut rng) =
        (TestCluster::new(n_nodes, Options::default()), bytes_of(20), StdRng::seed_from_u64(seed));
    let (blob, ids) = (BlobRef::of(&all), 1..=n_nodes);
    let record = format!("blobs/partial/{}.record", blob.digest);
    let records: Vec<_> = ids.clone().map(|id| cluster.home(NodeId::new(id).unwrap()).join(&record)).collect();
    let mut nodes = BTreeMap::new();
    for id in ids.clone() {
        nodes.insert(id, cluster.start(id).await);
    }
    let (mut dead, mut n_recorded) = (VecDeque::new(), 0);
    while n_recorded < blob.n_chunks() - 1 {
        let to = nodes.keys().copied().nth(rng.random_range(0..nodes.len())).unwrap();
        let most = records.iter().map(|record| n_recorded_in(record)).max().unwrap_or(0);
        // Busy: what the killed one was giving is not over yet.
        let Ok(mut upload) = Upload::try_open(&cluster, &nodes[&to], blob).await else { continue };
        let from = upload.from_chunk;
        assert!(from + 1 >= most, "{n_nodes} nodes, seed {seed}: node {to} asks from {from} on where {most} had come");
        let goal = (from + rng.random_range(1..4)).min(blob.n_chunks() - 1);
        upload.send(&all, goal).await;
        wait_until("it has arrived", || n_recorded_in(&records[to as usize - 1]) >= goal).await;
        n_recorded = goal;
        let struck = match rng.random_range(0..4) {
            0 => None,
            1 => nodes.keys().copied().find(|id| *id != to),
            _ => Some(to),
        };
        drop(upload);
        if let Some(struck) = struck {
            nodes.remove(&struck);
            dead.push_back(struck);
        }
        // A majority lives.
        if dead.len() as u64 > (n_nodes - 1) / 2
            && let Some(id) = dead.pop_front()
        {
            nodes.insert(id, cluster.start(id).await);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_killed_and_wherever_an_upload_goes_on_one_chunk_is_sent_again_at_most() {
    for seed in 0..3 {
        check_kills(3, seed).await;
        check_kills(5, seed).await;
    }
}

#[test]
fn one_chunk_is_under_way_to_a_node_nearby_and_more_to_one_far_away() {
    let ms = Duration::from_millis;
    let on_the_way = [0, 1, 4, 10, 50, 10_000].map(|round_trip| n_on_the_way(ms(round_trip)));
    assert_eq!(on_the_way, [0, 0, 0, 2, 10, MOST_ON_THE_WAY]);
    let nodes = [1, 2, 3].map(|id| NodeId::new(id).unwrap());
    let standings = BTreeMap::from([
        (nodes[0], Standing::Has { n_chunks: 7, n_on_the_way: 0 }),
        (nodes[1], Standing::Has { n_chunks: 5, n_on_the_way: 2 }),
        (nodes[2], Standing::TakesNone),
    ]);
    let have = |wanted| with(wanted, &standings).into_iter().collect::<Vec<_>>();
    assert_eq!(have(7), nodes);
    assert_eq!(have(8), nodes[2..]);
}
