//! Tests of the live loop on a disk that fills up.

use std::sync::atomic::{AtomicBool, Ordering};

use archipelago_cluster::{Body, Cluster, Command, Outcome};
use archipelago_common::{Identity, Principal, health::NodeState};
use archipelago_transport::memory::MemoryNetwork;

use super::*;
use crate::{
    links::Links,
    raft::{
        log_store::{Beginning, LogStore},
        node::Options,
        task::Raft,
        test_disk::Disk,
    },
    server::test_cluster::wait_until,
};

/// A single live node on a disk in memory.
struct Scene {
    raft: Raft,
    condition: Arc<Condition>,
    disk: Disk,
    has_room: Arc<AtomicBool>,
    _running: tokio::task::JoinHandle<()>,
}

impl Scene {
    async fn start(disk: Disk) -> Self {
        let id = NodeId::new(1).unwrap();
        let condition = Condition::new(100);
        condition.note_free(Some(1_000));
        let opened = disk.clone();
        let open = move || {
            let founders = BTreeMap::from([(id, "node-1:1".to_owned())]);
            let beginning = Beginning::of_founders(&founders, Cluster::founded().snapshot().unwrap());
            let store = LogStore::open_backend(opened.clone(), id, &beginning, 1)?;
            Node::new(id, store, Options::default())
        };
        let has_room = Arc::new(AtomicBool::new(true));
        let asked = has_room.clone();
        let room = Box::new(move || asked.load(Ordering::Relaxed));
        let (raft, task) = Raft::start(id, Box::new(open), room, condition.clone()).unwrap();
        let identity = Identity { consortium: "lung".parse().unwrap(), principal: Principal::Coordinator(id) };
        let transport = Arc::new(MemoryNetwork::default().transport(identity));
        let peers = Peers::new(&Links::new(id, transport, &BTreeMap::new()), &raft);
        let running = tokio::spawn(async move { task.run(peers).await.unwrap() });
        Self { raft, condition, disk, has_room, _running: running }
    }

    async fn leads(&self) {
        wait_until("the node leads", || self.raft.view().is_leader()).await;
    }

    async fn add_site(&self, number: u8) -> Answer {
        let site = format!("site-{number}").parse().unwrap();
        let principal = Principal::Operator("anna".parse().unwrap());
        self.raft.propose(&Command { key: [number; 16], principal, now_ms: 1, body: Body::AddSite { site } }).await
    }

    async fn n_sites(&self) -> Result<usize, Dropped> {
        self.raft.peek(|cluster| cluster.sites().count()).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_is_full_takes_no_part_says_so_and_comes_back_with_everything() {
    let scene = Scene::start(Disk::default()).await;
    scene.leads().await;
    assert!(matches!(scene.add_site(1).await, Ok(Ok(Outcome::Site(_)))));

    scene.disk.fill();
    assert_eq!(scene.add_site(2).await, Err(Dropped::NotLeader { leader: None }));
    assert_eq!(scene.condition.state(), NodeState::DiskFull);
    assert_eq!(scene.raft.view().leader, None);
    assert_eq!(scene.n_sites().await, Ok(1), "it shows what it last knew");
    assert!(scene.add_site(2).await.is_err());

    scene.disk.empty();
    scene.leads().await;
    assert_eq!(scene.condition.state(), NodeState::Serving);
    // The same request again, as its caller would: once, whether or not the first attempt had reached the disk.
    assert!(matches!(scene.add_site(2).await, Ok(Ok(Outcome::Site(_)))));
    assert_eq!(scene.n_sites().await, Ok(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_on_a_full_disk_waits_for_space_instead_of_dying() {
    let disk = Disk::default();
    let first = Scene::start(disk.clone()).await;
    first.leads().await;
    first.add_site(1).await.unwrap().unwrap();
    drop(first);
    let disk = Disk::holding(disk.bytes());
    disk.fill();
    let scene = Scene::start(disk).await;
    assert_eq!(scene.condition.state(), NodeState::DiskFull);
    assert!(scene.n_sites().await.is_err(), "it knows nothing yet, and does not make anything up");
    scene.disk.empty();
    scene.leads().await;
    assert_eq!(scene.n_sites().await, Ok(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_takes_a_start_and_no_more_keeps_the_node_away() {
    let scene = Scene::start(Disk::default()).await;
    scene.leads().await;
    scene.disk.fill();
    scene.has_room.store(false, Ordering::Relaxed);
    assert!(scene.add_site(1).await.is_err());
    // A start would succeed from here on, as on a disk whose last pages are not full.
    scene.disk.empty();
    let until = Instant::now() + LEAST_AWAY + 3 * RETRY_TICKS as u32 * TICK;
    while Instant::now() < until {
        assert_eq!(scene.condition.state(), NodeState::DiskFull, "it came back for a moment");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    scene.has_room.store(true, Ordering::Relaxed);
    scene.leads().await;
    assert_eq!(scene.condition.state(), NodeState::Serving);
}
