//! Tests of what keeps a cluster in order: quotas, full disks, collection and verification of blobs.

use std::{
    collections::BTreeMap,
    fs::{File, FileTimes},
    sync::Arc,
    time::{Duration, SystemTime},
};

use archipelago_client::{Client, ClientError, Patience, Source};
use archipelago_common::{Base, BaseCard, BlobRef, Layout, StateDict, Tensor, Version, health::NodeState};
use archipelago_protocol::message::{Refusal, Reply, Request, RequestKey};

use super::{
    disk,
    test_cluster::{LiveNode, RESERVE, TestCluster, wait_until},
};
use crate::{
    blob::{gc::GRACE, test_blobs::put, verify},
    quota::Limits,
    raft::node::Options,
};

async fn ask(node: &LiveNode, request: Request) -> Result<Reply, Refusal> {
    let who = Arc::new("operator/anna".parse::<archipelago_common::Principal>().unwrap());
    node.executor.execute(who, RequestKey(rand::random()), request).await
}

fn add(site: &str) -> Request {
    Request::AddSite { site: site.parse().unwrap() }
}

async fn client(cluster: &TestCluster, who: &str) -> Client {
    let patience = Patience::Within(Duration::from_secs(20));
    Client::connect_over(cluster.transport(who), cluster.addresses(), "test", patience).await.unwrap()
}

async fn three(cluster: &TestCluster) -> Vec<LiveNode> {
    let mut nodes = vec![cluster.start(1).await, cluster.start(2).await, cluster.start(3).await];
    wait_until("a leader that all know", || {
        let leaders: Vec<_> = nodes.iter().map(|node| node.executor.raft().view().leader).collect();
        leaders[0].is_some() && leaders.iter().all(|leader| *leader == leaders[0])
    })
    .await;
    nodes.sort_by_key(|node| !node.executor.raft().view().is_leader());
    nodes
}

/// Publishes a reference of one base, which all nodes then have.
async fn publish(nodes: &[LiveNode]) -> BlobRef {
    let card = BaseCard {
        format: BaseCard::PLAIN_FORMAT,
        model: "scvi".to_owned(),
        config: BTreeMap::new(),
        genes: vec!["LYZ".to_owned()],
        batch_key: "batch".to_owned(),
        labels_key: None,
        labels: vec![],
        layout: Layout::plain(BTreeMap::new()),
        moves_embedding: true,
        training: BTreeMap::new(),
        recipe: None,
    };
    let tensors = StateDict::from_iter([("frozen".to_owned(), Tensor::from_f32(&[1], &[1.0]))]);
    let base = put(nodes[0].executor.replicas().store(), &Base { card, tensors }.to_bytes().unwrap());
    let version = Version { base, columns: BTreeMap::new() };
    let request = Request::PublishReference { name: "lung".parse().unwrap(), version };
    ask(&nodes[0], request).await.unwrap();
    wait_until("every node has the base", || nodes.iter().all(|node| node.executor.replicas().store().contains(&base)))
        .await;
    base
}

fn path(node: &LiveNode, blob: &BlobRef) -> std::path::PathBuf {
    node.executor.replicas().store().path(&blob.digest)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_over_a_sites_quota_is_refused_with_the_quota_and_nobody_else_is() {
    let mut cluster = TestCluster::new(1, Options::default());
    cluster.limits = Limits { bytes_per_day: 10, ..Limits::default() };
    let node = cluster.start(1).await;
    wait_until("the node leads", || node.executor.raft().view().is_leader()).await;
    ask(&node, add("north")).await.unwrap();
    let (north, anna) = (client(&cluster, "site/north").await, client(&cluster, "operator/anna").await);
    let upload =
        async |client: &Client, bytes: &[u8]| client.put_blob(BlobRef::of(bytes), Source::Bytes(bytes), |_| ()).await;
    upload(&north, b"8 bytes.").await.unwrap();
    let error = upload(&north, b"3 more").await.unwrap_err();
    assert!(
        matches!(&error, ClientError::Refused(Refusal::Conflict { reason }) if reason.contains("8 of its 10 bytes (`bytes_per_day`)")),
        "{error}"
    );
    // What is there already costs nothing.
    upload(&north, b"8 bytes.").await.unwrap();
    upload(&anna, b"as many bytes as she likes").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sites_day_is_counted_at_all_coordinators_together_and_over_restarts() {
    let mut cluster = TestCluster::new(3, Options::default());
    cluster.limits = Limits { bytes_per_day: 10, ..Limits::default() };
    let nodes = three(&cluster).await;
    ask(&nodes[0], add("north")).await.unwrap();
    let upload = async |bytes: &[u8]| {
        let north = client(&cluster, "site/north").await;
        north.put_blob(BlobRef::of(bytes), Source::Bytes(bytes), |_| ()).await
    };
    let is_refused = |result: Result<(), ClientError>| match result {
        Err(ClientError::Refused(Refusal::Conflict { reason })) => {
            assert!(reason.contains("8 of its 10 bytes"), "{reason}")
        }
        other => panic!("{other:?}"),
    };
    upload(b"8 bytes.").await.unwrap();
    is_refused(upload(b"3 m").await);
    assert!(nodes[0].executor.raft().hand_over(None, Duration::from_secs(5)).await);
    is_refused(upload(b"3 m").await);
    drop(nodes);
    let _nodes = three(&cluster).await;
    is_refused(upload(b"3 m").await);
    upload(b"2.").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_little_space_takes_nothing_new_says_so_and_goes_on_when_there_is_space() {
    let (_cluster, node) = TestCluster::single().await;
    let condition = node.executor.condition();
    condition.note_free(Some(RESERVE - 1));
    assert_eq!(condition.state(), NodeState::DiskLow);
    assert!(matches!(ask(&node, add("north")).await, Err(Refusal::Busy { .. })));
    let store = node.executor.replicas().store().clone();
    assert!(matches!(store.receive(BlobRef::of(b"x")), Err(crate::Error::DiskLow { spare: 0, .. })));
    // Reading goes on.
    assert_eq!(ask(&node, Request::ListSites).await, Ok(Reply::Sites(vec![])));
    let Ok(Reply::Health(health)) = ask(&node, Request::ShowHealth).await else { panic!() };
    assert_eq!(health[0].answer.as_ref().unwrap().state, NodeState::DiskLow);
    condition.note_free(Some(RESERVE + 1));
    ask(&node, add("north")).await.unwrap();
    assert!(store.receive(BlobRef::of(b"x")).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_with_little_space_gives_the_leadership_to_one_that_has_more() {
    let cluster = TestCluster::new(3, Options::default());
    let nodes = three(&cluster).await;
    for (i, node) in nodes.iter().enumerate() {
        let free = if i == 0 { RESERVE - 1 } else { RESERVE + 1 };
        tokio::spawn(disk::watch(node.executor.clone(), Box::new(move || Ok(free)), "log.redb".into()));
    }
    wait_until("another leads", || nodes[1..].iter().any(|node| node.executor.raft().view().is_leader())).await;
    assert!(!nodes[0].executor.raft().view().is_leader());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_blob_is_put_aside_and_comes_again_from_another_coordinator() {
    let cluster = TestCluster::new(3, Options::default());
    let nodes = three(&cluster).await;
    let base = publish(&nodes).await;
    let follower = &nodes[1];
    let good = std::fs::read(path(follower, &base)).unwrap();
    let mut bad = good.clone();
    bad[0] ^= 1;
    std::fs::write(path(follower, &base), bad).unwrap();
    verify::begin(follower.executor.replicas());
    wait_until("the damage is found and repaired", || {
        follower.executor.condition().record(follower.executor.raft().view().node).blobs_damaged == 1
            && std::fs::read(path(follower, &base)).is_ok_and(|bytes| bytes == good)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_the_leaders_disk_has_spoilt_comes_to_whoever_asks_for_it_all_the_same() {
    let cluster = TestCluster::new(3, Options::default());
    let nodes = three(&cluster).await;
    publish(&nodes).await;
    let all: Vec<u8> = (0..3_u32 << 20).map(|i| (i / 7 % 251) as u8).collect();
    let blob = BlobRef::of(&all);
    let anna = client(&cluster, "operator/anna").await;
    anna.put_blob(blob, Source::Bytes(&all), |_| ()).await.unwrap();
    wait_until("all have it", || nodes.iter().all(|node| node.executor.replicas().store().contains(&blob))).await;
    let mut spoilt = all.clone();
    spoilt[(2 << 20) + 3] ^= 1;
    std::fs::write(path(&nodes[0], &blob), spoilt).unwrap();
    let dir = tempfile::tempdir().unwrap();
    anna.get_blob(blob, &dir.path().join("blob"), |_| ()).await.unwrap();
    assert_eq!(std::fs::read(dir.path().join("blob")).unwrap(), all);
    let health = nodes[0].executor.condition().record(nodes[0].executor.raft().view().node);
    assert_eq!(health.blobs_damaged, 1, "the transfer that failed told the leader");
    assert_eq!(std::fs::read(path(&nodes[0], &blob)).unwrap(), all, "and it has a good one again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_a_disk_has_spoilt_counts_for_nothing_and_comes_anew() {
    let cluster = TestCluster::new(3, Options::default());
    let nodes = three(&cluster).await;
    let all: Vec<u8> = (0..3_u32 << 20).map(|i| (i / 5 % 253) as u8).collect();
    let blob = BlobRef::of(&all);
    let anna = client(&cluster, "operator/anna").await;
    anna.put_blob(blob, Source::Bytes(&all), |_| ()).await.unwrap();
    wait_until("all have it", || nodes.iter().all(|node| node.executor.replicas().store().contains(&blob))).await;
    let mut spoilt = all.clone();
    spoilt[(1 << 20) + 9] ^= 1;
    nodes.iter().for_each(|node| std::fs::write(path(node, &blob), &spoilt).unwrap());
    anna.put_blob(blob, Source::Bytes(&all), |_| ()).await.unwrap();
    let sound = || nodes.iter().filter(|node| std::fs::read(path(node, &blob)).is_ok_and(|bytes| bytes == all)).count();
    assert!(sound() >= 2, "it is on a majority as it came");
    wait_until("it is everywhere as it came", || sound() == 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_that_disks_have_lost_are_missed_by_name_and_come_again() {
    let cluster = TestCluster::new(3, Options::default());
    let nodes = three(&cluster).await;
    let base = publish(&nodes).await;
    // While nobody who has it can be reached, it stays missing, and that shows.
    let (one, rest) = nodes.split_first().unwrap();
    let elsewhere: Vec<_> =
        rest.iter().map(|node| (path(node, &base), std::fs::read(path(node, &base)).unwrap())).collect();
    for node in &nodes {
        std::fs::remove_file(path(node, &base)).unwrap();
    }
    assert_eq!(one.executor.replicas().call_roll().await.unwrap(), 1);
    let missing = || one.executor.condition().record(one.executor.raft().view().node).blobs_missing;
    wait_until("it is missed", || missing() == 1).await;
    assert_eq!(one.executor.replicas().store().size(), (0, 0), "what is gone is not counted");
    for (place, bytes) in elsewhere {
        std::fs::write(place, bytes).unwrap();
    }
    wait_until("it has come again", || one.executor.replicas().store().contains(&base) && missing() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_collects_what_nothing_refers_to_and_keeps_the_rest() {
    let cluster = TestCluster::new(3, Options::default());
    let nodes = three(&cluster).await;
    let base = publish(&nodes).await;
    let orphan = put(nodes[0].executor.replicas().store(), b"its submission never came");
    nodes[0].executor.replicas().ensure_majority(orphan).await.unwrap();
    wait_until("every node has it", || nodes.iter().all(|n| n.executor.replicas().store().contains(&orphan))).await;
    for node in &nodes {
        for blob in [&base, &orphan] {
            let long_ago = FileTimes::new().set_modified(SystemTime::now() - 2 * GRACE);
            File::options().write(true).open(path(node, blob)).unwrap().set_times(long_ago).unwrap();
        }
    }
    // A blob is there a moment before its receiver is done with it.
    let named = [base.digest].into();
    let is_left_alone = |node: &LiveNode| {
        node.executor.replicas().store().sweep(&named, GRACE, true).is_ok_and(|found| found.blobs == 1)
    };
    wait_until("nobody is receiving it any more", || nodes.iter().all(is_left_alone)).await;
    for dry_run in [true, false] {
        let Ok(Reply::Collected(collected)) = ask(&nodes[0], Request::CollectBlobs { dry_run }).await else { panic!() };
        assert_eq!(collected.len(), 3);
        for of_node in collected {
            let answer = of_node.answer.unwrap();
            assert_eq!((answer.blobs, answer.bytes), (1, orphan.size), "node {}", of_node.node);
        }
    }
    for node in &nodes {
        let store = node.executor.replicas().store();
        assert!(store.contains(&base) && !store.contains(&orphan));
    }
}
