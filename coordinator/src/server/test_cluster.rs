//! Whole nodes in one process, over a network in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use archipelago_cluster::Cluster;
use archipelago_common::{Identity, NodeId, Principal};
use archipelago_transport::{Transport as _, memory::MemoryNetwork};
use tokio::task::JoinSet;

use super::{Executor, accept};
use crate::{
    blob::{BlobStore, replicate::Replicas},
    links::Links,
    raft::{
        log_store::LogStore,
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
}

impl TestCluster {
    pub(crate) fn new(n_nodes: u64, options: Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let voters = (1..=n_nodes).map(|id| NodeId::new(id).unwrap()).collect();
        Self { dir, network: MemoryNetwork::default(), voters, options }
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
        let home = self.dir.path().join(id.to_string());
        let node = Node::new(id, self.log(id, &home), self.options).unwrap();
        let principal = Principal::Coordinator(id);
        let identity = Identity { consortium: "lung".parse().unwrap(), principal };
        let transport = Arc::new(self.network.transport(identity));
        let mut listener = transport.listen(&format!("node-{id}")).await.unwrap();
        let others: BTreeMap<_, _> =
            self.voters.iter().filter(|other| **other != id).map(|other| (*other, format!("node-{other}"))).collect();
        let links = Links::new(transport, &others);
        let replicas = Replicas::new(BlobStore::open(&home.join("blobs")).unwrap(), links.clone());
        let (raft, task) = Raft::new(id, node);
        let executor = Executor::new(raft.clone(), replicas.clone());
        let mut parts = JoinSet::new();
        let peers = Peers::new(&links, &raft);
        parts.spawn(async move { task.run(peers).await.unwrap() });
        parts.spawn(replicas.keep_complete(raft));
        let serving = executor.clone();
        parts.spawn(async move { accept::run(&mut listener, serving).await });
        LiveNode { executor, _parts: parts }
    }

    fn log(&self, id: NodeId, home: &Path) -> LogStore {
        std::fs::create_dir_all(home).unwrap();
        let path = home.join("log.redb");
        if !path.exists() {
            LogStore::create(&path, id, &self.voters, Cluster::default().snapshot().unwrap()).unwrap();
        }
        LogStore::open(&path, id).unwrap()
    }
}

pub(crate) async fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let soon = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), soon).await.unwrap_or_else(|_| panic!("not within 20 s: {what}"));
}
