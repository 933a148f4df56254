//! Tests of who is taken for a coordinator.

use std::{sync::Arc, time::Duration};

use archipelago_cluster::{Body, Cluster, Edition};
use archipelago_common::{
    BlobRef, NodeId,
    member::{Incarnation, Origin},
};
use archipelago_protocol::message::{
    GetReply, Greeting, PeerAsk, PeerReply, Refusal, Reply, Request, RequestKey, StreamOpen,
};
use redb::backends::FileBackend;

use crate::{
    frames,
    links::begin,
    raft::{
        log_store::{Beginning, LogStore},
        node::Options,
    },
    server::test_cluster::{LiveNode, TestCluster, wait_until},
};

/// Three nodes whose logs are known to all; the leader first.
async fn acquainted(cluster: &TestCluster) -> Vec<LiveNode> {
    let mut nodes = vec![cluster.start(1).await, cluster.start(2).await, cluster.start(3).await];
    wait_until("a leader that all know", || {
        let leaders: Vec<_> = nodes.iter().map(|node| node.executor.raft().view().leader).collect();
        leaders[0].is_some() && leaders.iter().all(|leader| *leader == leaders[0])
    })
    .await;
    nodes.sort_by_key(|node| !node.executor.raft().view().is_leader());
    let leader = &nodes[0].executor;
    let own = leader.raft().view().node;
    let addresses = cluster.addresses();
    while leader.execute_own(own, Body::AdoptMembers { addresses: addresses.clone() }).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for node in &nodes {
        let raft = node.executor.raft();
        let all: Vec<NodeId> = addresses.keys().copied().collect();
        let known =
            move |known: &archipelago_cluster::Cluster| all.iter().all(|node| known.incarnation(*node).is_some());
        let until = async {
            while !raft.peek(known.clone()).await.unwrap() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), until).await.expect("every log is known to every node");
    }
    nodes
}

async fn add_site(node: &LiveNode, site: &str) -> bool {
    let who = Arc::new("operator/anna".parse::<archipelago_common::Principal>().unwrap());
    let request = Request::AddSite { site: site.parse().unwrap() };
    node.executor.execute(who, RequestKey(rand::random()), request).await.is_ok()
}

fn id(node: &LiveNode) -> NodeId {
    node.executor.raft().view().node
}

/// Today's fault: with its disk gone and founded again under its old id, a node gave its vote to one that had missed an
/// acknowledged write, and the write was gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_founded_anew_under_its_id_counts_for_nothing() {
    let cluster = TestCluster::new(3, Options::default());
    let mut nodes = acquainted(&cluster).await;
    let behind = nodes.remove(2);
    let behind_id = id(&behind);
    drop(behind);
    assert!(add_site(&nodes[0], "north").await);
    let (leader_id, wiped_id) = (id(&nodes[0]), id(&nodes[1]));
    drop(nodes);
    std::fs::remove_dir_all(cluster.home(wiped_id)).unwrap();
    let (behind, wiped) = (cluster.start(behind_id.as_u64()).await, cluster.start(wiped_id.as_u64()).await);
    // Several election timeouts.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!((behind.executor.raft().view().leader, wiped.executor.raft().view().leader), (None, None));
    let back = cluster.start(leader_id.as_u64()).await;
    wait_until("one of those that remember leads", || back.executor.raft().view().leader.is_some()).await;
    assert_ne!(back.executor.raft().view().leader, Some(wiped_id));
    let leader = if back.executor.raft().view().is_leader() { &back } else { &behind };
    let who = Arc::new("operator/anna".parse::<archipelago_common::Principal>().unwrap());
    let Ok(Reply::Sites(sites)) = leader.executor.execute(who, RequestKey([9; 16]), Request::ListSites).await else {
        panic!("the leader does not answer")
    };
    assert_eq!(sites.len(), 1, "what was acknowledged is there");
}

/// What a coordinator that says this of itself is told, and whether it may then fetch blobs.
async fn present_as(cluster: &TestCluster, who: &str, at: NodeId, greeting: Option<Greeting>) -> (bool, bool) {
    let connection = cluster.transport(who).dial(&cluster.addresses()[&at], at).await.unwrap();
    let mut is_known = false;
    if let Some(greeting) = greeting {
        let mut stream = begin(&connection, &StreamOpen::Peer(PeerAsk::Greet(greeting))).await.unwrap();
        is_known = matches!(frames::receive(&mut stream).await, Ok(PeerReply::Greeting(_)));
    }
    let get = StreamOpen::Get { blob: BlobRef::of(b"x"), from_chunk: 0 };
    let mut stream = begin(&connection, &get).await.unwrap();
    let answer = frames::receive::<GetReply>(&mut stream).await;
    let is_served = !matches!(answer, Ok(GetReply::Refused(Refusal::Forbidden { .. })) | Err(_));
    (is_known, is_served)
}

/// Today's fault: a certificate of a coordinator that never was a member, or was removed, was enough to read all blobs.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_alone_makes_no_member() {
    let cluster = TestCluster::new(3, Options::default());
    let nodes = acquainted(&cluster).await;
    let (leader, other) = (id(&nodes[0]), id(&nodes[1]));
    let greeting = |incarnation| Some(Greeting { incarnation, last_index: u64::MAX, edition: 2 });
    let known = nodes[0].executor.raft().peek(move |cluster| cluster.incarnation(other)).await.unwrap().unwrap();
    let stranger = Incarnation(known.0 ^ 1);
    for (who, said, expected) in [
        ("coordinator/9".to_owned(), greeting(stranger), (false, false)),
        ("coordinator/9".to_owned(), None, (false, false)),
        (format!("coordinator/{other}"), greeting(stranger), (false, false)),
        (format!("coordinator/{other}"), None, (false, false)),
        (format!("coordinator/{other}"), greeting(known), (true, true)),
    ] {
        assert_eq!(present_as(&cluster, &who, leader, said).await, expected, "{who} {said:?}");
    }
}

/// What a build left behind whose latest edition was the third: the state that it wrote, with all that it can hold.
const OF_EDITION_3: &[u8] = include_bytes!("../../cluster/testdata/golden/state-4.bin");

#[tokio::test(flavor = "multi_thread")]
async fn data_directories_of_edition_3_open_with_all_they_held_and_go_on_by_the_rules_of_today() {
    let before = Cluster::restore(OF_EDITION_3).unwrap();
    assert_eq!(before.edition(), Edition::Third);
    let cluster = TestCluster::new(4, Options::default());
    let voters = before.voters();
    for node in &voters {
        std::fs::create_dir_all(cluster.home(*node)).unwrap();
        let log = std::fs::File::create_new(cluster.home(*node).join("log.redb")).unwrap();
        let beginning = Beginning { voters: voters.clone(), origin: Origin::Unknown, state: OF_EDITION_3.to_vec() };
        let incarnation = before.incarnation(*node).map_or(1_000 + node.as_u64(), |known| known.0);
        LogStore::open_backend(FileBackend::new(log).unwrap(), *node, &beginning, incarnation).unwrap();
    }
    let mut nodes = Vec::new();
    for node in &voters {
        nodes.push(cluster.start(node.as_u64()).await);
    }
    let look = async |node: &LiveNode| node.executor.raft().peek(Cluster::clone).await.unwrap();
    let raised = async {
        for node in &nodes {
            while look(node).await.edition() < Edition::LATEST {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), raised).await.expect("every node has raised its edition");
    let added = async {
        while !add_site(nodes.iter().find(|node| node.executor.raft().view().is_leader()).unwrap_or(&nodes[0]), "new")
            .await
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), added).await.expect("what is asked for is carried out");
    wait_until("all have applied the same", || {
        let applied: Vec<_> = nodes.iter().map(|node| node.executor.raft().view().applied).collect();
        applied.iter().all(|index| *index == applied[0])
    })
    .await;
    let now = look(&nodes[0]).await;
    assert!(now.references().eq(before.references()) && now.tasks().eq(before.tasks()));
    assert!(before.sites().all(|site| now.sites().any(|kept| kept == site)));
    let charite = "charite".parse().unwrap();
    assert_eq!((before.uploaded_today(&charite), now.uploaded_today(&charite)), (4_096, 4_096));
    // Entries that nobody asked for, clocks and certificates, may come between two looks.
    let same = async {
        loop {
            let mut digests = Vec::new();
            for node in &nodes {
                digests.push(look(node).await.digest().unwrap());
            }
            if digests.iter().all(|digest| *digest == digests[0]) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), same).await.expect("all come to the same state");
}
