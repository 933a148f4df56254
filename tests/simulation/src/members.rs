//! Members in the simulation: the first leader writes down the founders, sessions hear who is there, and what a leader
//! looks at before members change is looked up, where a live one asks.

use std::collections::BTreeSet;

use archipelago_cluster::Body;
use archipelago_common::{BlobRef, NodeId, member};
use archipelago_coordinator::server::{course, refusal};
use archipelago_protocol::message::{Refusal, Request};

use crate::{
    host::{Caller, CourseId, Live, Served, address},
    watch::named_blobs,
    world::World,
};

impl World {
    /// The nodes that a node pushes blobs to and fetches them from.
    pub(crate) fn others(&self, node: NodeId) -> Vec<NodeId> {
        let live = self.hosts.get(&node).and_then(|host| host.live.as_ref());
        let known = live.map(|live| member::addresses(live.node.cluster().members())).unwrap_or_default();
        let all: BTreeSet<_> = if known.is_empty() { self.founders.clone() } else { known.into_keys().collect() };
        all.into_iter().filter(|other| *other != node).collect()
    }

    /// The members as whoever has applied most knows them: what an operator would write into a configuration.
    pub(crate) fn members(&self) -> BTreeSet<NodeId> {
        let lives = self.hosts.values().filter_map(|host| host.live.as_ref());
        let latest = lives.max_by_key(|live| live.node.applied());
        let known = latest.map(|live| member::addresses(live.node.cluster().members())).unwrap_or_default();
        if known.is_empty() { self.founders.clone() } else { known.into_keys().collect() }
    }

    /// Tells the sessions of a node where the members are, if that has changed.
    pub(crate) fn tell_members(&mut self, node: NodeId) {
        let Some(live) = self.live(node) else { return };
        let addresses = member::addresses(live.node.cluster().members());
        if addresses == live.told {
            return;
        }
        live.told.clone_from(&addresses);
        for served in live.served.values_mut() {
            if let Served::Control(session) = served {
                session.handle_members_changed(addresses.clone());
            }
        }
        self.flush(node);
    }

    /// The first leader writes down the founders.
    pub(crate) fn adopt(&mut self, node: NodeId) {
        let addresses = self.founders.iter().map(|founder| (*founder, address(*founder))).collect();
        let Some(live) = self.live(node) else { return };
        if !live.node.is_leader() || live.node.cluster().members().next().is_some() {
            return;
        }
        let course = live.begin(Caller::Nobody);
        let key = self.draw_key();
        self.follow(node, course, course::begin_own(node, key, Body::AdoptMembers { addresses }));
    }

    /// What the leader looks at before a request begins its course.
    pub(crate) fn prepare(&mut self, node: NodeId, course: CourseId, request: &Request) -> Result<(), Refusal> {
        let is_change = matches!(
            request,
            Request::AddMember { .. }
                | Request::PromoteMember { .. }
                | Request::RemoveMember { .. }
                // Nobody's blobs are counted while they may be deleted.
                | Request::Erase { .. }
        );
        let Some(live) = self.live(node).filter(|live| is_change && live.node.is_leader()) else { return Ok(()) };
        if live.changing.is_some() || !live.naming.is_empty() {
            return Err(refusal::dropped(archipelago_coordinator::raft::node::Dropped::Busy));
        }
        let index = live.node.committed();
        let voters = live.node.cluster().voters();
        let is_fit = match request {
            Request::PromoteMember { node: learner } => self.is_complete(*learner, index),
            Request::RemoveMember { node: leaving } => {
                let staying: Vec<_> = voters.into_iter().filter(|voter| voter != leaving).collect();
                staying.iter().filter(|voter| self.is_complete(**voter, index)).count() > staying.len() / 2
            }
            _ => true,
        };
        if !is_fit {
            self.coverage.note("changes of members refused");
            return Err(Refusal::Conflict { reason: "somebody has to catch up first".to_owned() });
        }
        self.coverage.note("changes of members begun");
        if let Some(live) = self.live(node) {
            live.changing = Some(course);
        }
        Ok(())
    }

    /// Whether a node has applied this much and lacks no blob.
    fn is_complete(&self, node: NodeId, index: u64) -> bool {
        let Some(host) = self.hosts.get(&node) else { return false };
        let has_all = |live: &Live| named_blobs(&live.node.cluster()).iter().all(|blob| host.shelves.contains(blob));
        host.live.as_ref().is_some_and(|live| live.node.applied() >= index && has_all(live))
    }

    /// Removes blobs that nothing refers to, on a node that has applied all that was acknowledged.
    pub(crate) fn collect(&mut self, node: NodeId) {
        // A live node asks the leader for such an index; one that was just started knows little.
        let most = self.watch.most_applied();
        let now = self.now;
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let Some(live) = host.live.as_ref().filter(|live| live.node.applied() >= most) else { return };
        let named: BTreeSet<_> = live.node.cluster().referenced_blobs().into_iter().map(|blob| blob.digest).collect();
        let needed: BTreeSet<_> = named_blobs(&live.node.cluster()).into_iter().map(|blob| blob.digest).collect();
        for digest in host.shelves.sweep(&named, now) {
            self.coverage.note("blobs collected");
            if needed.contains(&digest) {
                return self.fail(format!("n{node} has removed blob {}, which its state names", digest.short()));
            }
        }
    }

    /// Deletes what was erased, but for what was held a moment ago or comes in just now: that is looked at again.
    pub(crate) fn erase(&mut self, node: NodeId) {
        let now = self.now;
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let Some(live) = host.live.as_mut() else { return };
        let (seq, blobs) = live.node.cluster().erased_since(live.erased);
        let mut is_left = |blob: &BlobRef| live.receiving.contains(blob) || !host.shelves.erase(blob, now);
        let (left, gone): (Vec<_>, Vec<_>) = blobs.iter().partition(|blob| is_left(blob));
        let needed = named_blobs(&live.node.cluster());
        if left.is_empty() {
            live.erased = seq;
        }
        for blob in gone {
            self.coverage.note("blobs erased");
            if needed.contains(blob) {
                return self.fail(format!("n{node} has erased blob {blob}, which its state names"));
            }
        }
    }
}
