//! Founders that were not given the same list of members: one of them is astray until somebody sees it, and founds it anew.

use std::collections::BTreeMap;

use archipelago_cluster::Cluster;
use archipelago_common::{NodeId, member::Origin};

use crate::{disk::Disk, faults::Fault, host::address, world::Happening, world::World};

impl World {
    /// Gives one of the founders another list of members, in runs that have drawn this.
    pub(crate) fn lead_astray(&mut self) {
        let founders: Vec<_> = self.founders.iter().copied().collect();
        if !self.faults.leads_astray || founders.len() < 3 {
            return;
        }
        let Some(&node) = self.chance.pick(&founders) else { return };
        // Nobody else on its list is ever there.
        let others = [ABSENT, ABSENT + 1].into_iter().filter_map(NodeId::new);
        let list = others.chain([node]).map(|node| (node, address(node))).collect();
        self.coverage.note("fault: founded with another list");
        self.say(format_args!("n{node} is founded with another list"));
        if let Some(host) = self.hosts.get_mut(&node) {
            host.found_with(list);
        }
        let pause = self.chance.within(2_000..15_000);
        self.after(pause, Happening::Fault(Fault::FoundAnew(node)));
    }

    /// Somebody has seen it.
    pub(crate) fn found_right(&mut self, node: NodeId) {
        let list: BTreeMap<_, _> = self.founders.iter().map(|founder| (*founder, address(*founder))).collect();
        self.say(format_args!("n{node} is founded anew with the list of all"));
        self.empty_disk(node);
        if let Some(host) = self.hosts.get_mut(&node) {
            host.found_with(list);
        }
        self.found_again(node);
    }

    /// A node's process ends, and its log is gone.
    pub(crate) fn empty_disk(&mut self, node: NodeId) {
        self.crash(node, false);
        if let Some(host) = self.hosts.get_mut(&node) {
            host.disk = Disk::default();
            host.incarnation += ANEW;
        }
    }

    /// The log of a node whose disk is empty is founded.
    pub(crate) fn found_again(&mut self, node: NodeId) {
        let founded = self.hosts.get(&node).map(|host| host.found());
        if let Some(Err(error)) = founded {
            self.fail(format!("n{node} is not founded: {error}"));
        }
    }

    /// One founding: members are written down when all founders were founded with the same list.
    pub(crate) fn check_founding(&self, node: NodeId, cluster: &Cluster) -> Result<(), String> {
        if cluster.members().next().is_none() {
            return Ok(());
        }
        let origin = |founder: &NodeId| self.hosts.get(founder).map_or(Origin::Unknown, |host| host.origin());
        let first = self.founders.first().map(origin);
        match self.founders.iter().find(|founder| Some(origin(founder)) != first) {
            None => Ok(()),
            Some(_) => Err(format!("one founding: n{node} knows members, and their founders have different lists")),
        }
    }
}

/// The first id of nodes that are on a list and nowhere else.
const ABSENT: u64 = 100;
/// What a new life of a log is counted up by.
const ANEW: u64 = 1_000;
