//! States that differ: a disk changes what a node has written of its state, in a way that no checksum shows, and the node goes
//! on from there. Coordinators compare what they have come to (`server::compare`, here in virtual time), and whoever a majority
//! contradicts stops.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use archipelago_cluster::{Body, Cluster, Command};
use archipelago_common::{Digest, NodeId, Principal, SiteId};
use archipelago_coordinator::{
    error::Result,
    raft::log_store::LogStore,
    server::compare::{difference, is_outvoted},
};

use crate::{
    host::{Host, Loss},
    world::World,
};

impl World {
    /// A node's process dies, and its disk changes something in its state before it starts again.
    pub(crate) fn spoil_state(&mut self, node: NodeId) {
        let is_member = |live: &crate::host::Live| {
            let voters = live.node.cluster().voters();
            voters.len() >= 3 && voters.contains(&node)
        };
        let live = self.hosts.get(&node).and_then(|host| host.live.as_ref());
        // Once in a run, and not beside a log that was lost: two of three are no minority.
        if !live.is_some_and(is_member) || self.has_lost_memory() {
            return;
        }
        self.crash(node, false);
        let Some(host) = self.hosts.get_mut(&node) else { return };
        match spoil(host) {
            Ok(()) => {
                host.was_spoilt = true;
                self.coverage.note("states that a disk changed");
                self.say(format_args!("n{node}'s disk changes its state"));
            }
            Err(_) if host.disk.is_full() || host.disk.has_failed() => {}
            Err(error) => self.fail(format!("n{node}'s log cannot be opened: {error}")),
        }
    }

    /// Whether a node of this run has forgotten something, or remembers what never was.
    pub(crate) fn has_lost_memory(&self) -> bool {
        self.hosts.values().any(|host| host.lost.is_some() || host.was_spoilt)
    }

    /// A node asks the others what they have come to, and stops if it is the one that is wrong.
    pub(crate) fn compare(&mut self, node: NodeId) {
        let now = self.now;
        let Some(live) = self.hosts.get_mut(&node).and_then(|host| host.live.as_mut()) else { return };
        if now < live.compared_at + COMPARE_MS {
            return;
        }
        live.compared_at = now;
        let (own, voters) = (live.node.cluster().marks(), live.node.configuration().voters);
        let hears = |other: &&NodeId| **other != node && self.talk(node, **other);
        let differs = |other: &NodeId| difference(&own, &self.marks(*other)).is_some();
        let n_contradict = voters.iter().filter(hears).filter(|other| differs(other)).count();
        if n_contradict > 0 {
            self.coverage.note("states found to differ");
        }
        if is_outvoted(n_contradict, voters.len()) {
            self.coverage.note("nodes that stopped: a majority contradicts them");
            self.say(format_args!("n{node} is contradicted by {n_contradict} and stops"));
            self.crash(node, false);
            if let Some(host) = self.hosts.get_mut(&node) {
                host.lost = Some(Loss::Outvoted);
            }
        }
    }

    /// Diverged states: at the end nobody goes on whom a majority of these voters contradicts. Counted here and not asked of
    /// the product, whose count is what is checked.
    pub(crate) fn contradicted(&self, voters: &BTreeSet<NodeId>) -> Option<String> {
        if !self.hosts.values().any(|host| host.was_spoilt) {
            return None;
        }
        let states: BTreeMap<_, BTreeMap<u64, Digest>> =
            voters.iter().map(|node| (*node, self.marks(*node).into_iter().collect())).collect();
        let contradict = |one: &BTreeMap<u64, Digest>, other: &BTreeMap<u64, Digest>| {
            one.iter().any(|(length, digest)| other.get(length).is_some_and(|other| other != digest))
        };
        let is_wrong = |own: &BTreeMap<u64, Digest>| {
            states.values().filter(|other| contradict(own, other)).count() > voters.len() / 2
        };
        let wrong = states.iter().find(|(_, own)| is_wrong(own)).map(|(node, _)| node)?;
        Some(format!("n{wrong} holds another state than a majority, and goes on"))
    }

    fn marks(&self, node: NodeId) -> Vec<(u64, Digest)> {
        let live = self.hosts.get(&node).and_then(|host| host.live.as_ref());
        live.map(|live| live.node.cluster().marks()).unwrap_or_default()
    }
}

/// Whether a state is one that a disk has changed, or has come from such a one in a snapshot.
pub(crate) fn is_spoilt(cluster: &Cluster) -> bool {
    static GHOST: LazyLock<Principal> = LazyLock::new(|| Principal::Site(ghost()));
    cluster.admit(&GHOST).is_ok()
}

/// The last snapshot on a node's disk says that somebody was enrolled who was not.
fn spoil(host: &Host) -> Result<()> {
    let mut store = LogStore::open_backend(host.disk.clone(), host.id, &host.beginning()?, host.incarnation)?;
    let mut snapshot = store.last_snapshot().clone();
    let mut cluster = Cluster::restore(&snapshot.data)?;
    let (principal, now_ms) = (Principal::Operator(ghost().name().clone()), cluster.now_ms());
    cluster.apply(&Command { key: [0xff; 16], principal, now_ms, body: Body::AddSite { site: ghost() } });
    snapshot.data = cluster.snapshot()?.into();
    store.compact(snapshot, u64::MAX)
}

fn ghost() -> SiteId {
    "ghost".parse().expect("a sound name")
}

/// Pause between two comparisons, ms; as on a live node.
const COMPARE_MS: u64 = 5_000;
