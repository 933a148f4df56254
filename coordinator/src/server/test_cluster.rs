//! Whole nodes in one process, over a network in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use archipelago_cluster::Cluster;
use archipelago_common::{Identity, NodeId, Principal, member::Origin};
use archipelago_transport::{Transport, memory::MemoryNetwork};
use tokio::task::JoinSet;

use super::{Deadlines, Executor, accept, greeting, timekeeper};
use crate::{
    blob::{BlobStore, erase, replicate::Replicas},
    condition::Condition,
    links::Links,
    quota::{Limits, Quotas},
    raft::{
        log_store::{Beginning, LogStore},
        node::{Node, Options},
        peers::Peers,
        task::Raft,
    },
};

/// A running node; it dies when this is dropped.
pub(crate) struct LiveNode {
    pub(crate) executor: Executor,
    _parts: JoinSet<()>,
}

/// Where nodes run.
pub(crate) struct TestCluster {
    dir: tempfile::TempDir,
    network: MemoryNetwork,
    voters: BTreeSet<NodeId>,
    options: Options,
    pub(crate) limits: Limits,
    pub(crate) deadlines: Deadlines,
}

impl TestCluster {
    pub(crate) fn new(n_nodes: u64, options: Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let voters = (1..=n_nodes).map(|id| NodeId::new(id).unwrap()).collect();
        Self {
            dir,
            network: MemoryNetwork::default(),
            voters,
            options,
            limits: Limits::default(),
            deadlines: Deadlines::default(),
        }
    }

    /// One node that leads.
    pub(crate) async fn single() -> (Self, LiveNode) {
        let cluster = Self::new(1, Options::default());
        let node = cluster.start(1).await;
        wait_until("the node leads", || node.executor.raft().view().is_leader()).await;
        (cluster, node)
    }

    /// Starts a node on what it left behind, if anything.
    pub(crate) async fn start(&self, id: u64) -> LiveNode {
        let id = NodeId::new(id).unwrap();
        let home = self.home(id);
        let principal = Principal::Coordinator(id);
        let identity = Identity { consortium: "lung".parse().unwrap(), principal };
        let transport = Arc::new(self.network.transport(identity));
        // A node that was just dropped may still be on its way out.
        let mut listener = loop {
            match transport.listen(&format!("node-{id}:1")).await {
                Err(archipelago_transport::Error::Listen { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
                listening => break listening.unwrap(),
            }
        };
        let links = Links::new(id, transport, &self.addresses());
        let condition = Condition::new(RESERVE);
        let path = self.log(id, &home);
        let (raft, task) = loop {
            let (path, options) = (path.clone(), self.options);
            let open = move || Node::new(id, LogStore::open(&path, id)?, options);
            match Raft::start(id, Box::new(open), Box::new(|| true), condition.clone()) {
                Err(crate::Error::LogInUse { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
                started => break started.unwrap(),
            }
        };
        let store = BlobStore::open(&home.join("blobs"), condition).unwrap();
        let replicas = Replicas::new(store, links.clone(), raft.clone());
        let executor = Executor::new(raft.clone(), replicas.clone(), Quotas::new(self.limits.clone()));
        let mut parts = JoinSet::new();
        let peers = Peers::new(&links, &raft);
        parts.spawn(async move { task.run(peers).await.unwrap() });
        parts.spawn(erase::run(replicas.clone()));
        parts.spawn(replicas.keep_complete());
        executor.begin_to_greet();
        parts.spawn(timekeeper::run(executor.clone()));
        parts.spawn(greeting::run(executor.clone()));
        let (serving, deadlines) = (executor.clone(), self.deadlines);
        parts.spawn(async move { accept::run(&mut listener, serving, deadlines).await });
        LiveNode { executor, _parts: parts }
    }

    /// The directory of a node, which may be dead.
    pub(crate) fn home(&self, id: NodeId) -> PathBuf {
        self.dir.path().join(id.to_string())
    }

    /// A way in for anybody.
    pub(crate) fn transport(&self, who: &str) -> Arc<dyn Transport> {
        let identity = Identity { consortium: "lung".parse().unwrap(), principal: who.parse().unwrap() };
        Arc::new(self.network.transport(identity))
    }

    /// Where the nodes are.
    pub(crate) fn addresses(&self) -> BTreeMap<NodeId, String> {
        self.voters.iter().map(|node| (*node, format!("node-{node}:1"))).collect()
    }

    fn log(&self, id: NodeId, home: &Path) -> PathBuf {
        std::fs::create_dir_all(home).unwrap();
        let path = home.join("log.redb");
        if !path.exists() {
            // As an earlier version began it: nobody waits for a founder that a test does not start.
            let (voters, state) = (self.voters.clone(), Cluster::founded().snapshot().unwrap());
            LogStore::create(&path, id, &Beginning { voters, origin: Origin::Unknown, state }).unwrap();
        }
        path
    }
}

/// Bytes of the reserve of test nodes.
pub(crate) const RESERVE: u64 = 1_000;

pub(crate) async fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let soon = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), soon).await.unwrap_or_else(|_| panic!("not within 20 s: {what}"));
}
