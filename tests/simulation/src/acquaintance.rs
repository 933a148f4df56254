//! Who is taken for a coordinator, and what time it is among them: the loops of `server::greeting` and
//! `server::timekeeper`, in virtual time.

use std::collections::BTreeMap;

use archipelago_cluster::{Body, Refusal as Refused, agreed_ms};
use archipelago_common::{
    NodeId, limits,
    member::{Incarnation, MemberRole},
};
use archipelago_coordinator::server::course;

use crate::{host::Origin, network::Actor, world::World};

impl World {
    /// Whether one node takes another for the member of its id. One that it does not know may be vouched for.
    pub(crate) fn recognises(&self, node: NodeId, other: NodeId) -> bool {
        let (Some(host), Some(peer)) = (self.hosts.get(&node), self.hosts.get(&other)) else { return false };
        let Some(live) = &host.live else { return true };
        let (cluster, incarnation) = (live.node.cluster(), Incarnation(peer.incarnation));
        // A change that removes it may need its vote to be complete.
        if live.node.configuration().contains(other) {
            return cluster.recognise_life(other, incarnation).is_ok();
        }
        match cluster.recognise(other, incarnation) {
            Ok(()) | Err(Refused::NotFound { .. }) => true,
            Err(_) => false,
        }
    }

    /// Holds a node that listened to another to the rule that there is one life of a log, where it knows which.
    pub(crate) fn check_life(&mut self, node: NodeId, other: NodeId) {
        let (Some(host), Some(peer)) = (self.hosts.get(&node), self.hosts.get(&other)) else { return };
        let Some(known) = host.live.as_ref().and_then(|live| live.node.cluster().incarnation(other)) else { return };
        let is_known = known == Incarnation(peer.incarnation);
        self.coverage.note("checked: one life of a log");
        if !is_known {
            self.fail(format!(
                "one life of a log: n{node} listens to n{other}, whose log is not the one that it knows"
            ));
        }
    }

    /// The leader writes down which life of a member's log counts, one at a time.
    pub(crate) fn introduce(&mut self, node: NodeId) {
        let Some(live) = self.hosts.get(&node).and_then(|host| host.live.as_ref()) else { return };
        if !live.node.is_leader() {
            return;
        }
        let unknown = {
            let cluster = live.node.cluster();
            let is_unknown = |id: &NodeId| cluster.incarnation(*id).is_none();
            let members = cluster.members().filter(|member| member.role != MemberRole::Removed);
            let unknown: Vec<NodeId> = members.map(|member| member.node).filter(is_unknown).collect();
            unknown
        };
        let hears = |other: &NodeId| *other == node || (self.is_up(*other) && !self.is_cut(node, *other));
        let Some(other) = unknown.into_iter().find(hears) else { return };
        let incarnation = Incarnation(self.hosts[&other].incarnation);
        self.propose_own(node, Body::Introduce { node: other, incarnation });
    }

    /// The leader compares clocks.
    pub(crate) fn keep_time(&mut self, node: NodeId) {
        let now = self.now;
        let Some(live) = self.hosts.get_mut(&node).and_then(|host| host.live.as_mut()) else { return };
        let term = live.node.term();
        if !live.node.is_leader() || (live.kept_time.0 == term && now < live.kept_time.1 + KEEP_MS) {
            return;
        }
        let state_ms = live.node.cluster().now_ms();
        live.stamps.lead(term, state_ms, now);
        let voters = live.node.configuration().voters;
        let is_heard = |other: &NodeId| *other == node || (self.is_up(*other) && !self.is_cut(node, *other));
        let heard = self.hosts.keys().copied().filter(is_heard);
        let clocks: BTreeMap<NodeId, u64> = heard.map(|other| (other, self.hosts[&other].clock_ms(now))).collect();
        let of_voters = clocks.iter().filter(|(other, _)| voters.contains(other)).map(|(_, ms)| *ms);
        let Some(agreed) = agreed_ms(of_voters, voters.len()) else {
            return self.coverage.note("clocks that did not agree");
        };
        let Some(live) = self.live(node) else { return };
        live.kept_time = (term, now);
        let stamp = live.stamps.now_ms(term, now, agreed);
        if stamp.is_some_and(|stamp| stamp > agreed + limits::STAMP_STEP_MS) {
            return;
        }
        let is_beyond = state_ms > 0 && agreed > state_ms + limits::AGREED_STEP_MS;
        if is_beyond {
            return;
        }
        live.stamps.agree(term, agreed, now);
        if state_ms == 0 || agreed > state_ms + limits::STAMP_STEP_MS / 4 {
            self.coverage.note("times agreed on");
            self.propose_own(node, Body::AgreeOnTime { clocks });
        }
    }

    /// A node's log is lost; it is founded anew under its old id, as if by somebody who did not know better.
    pub(crate) fn lose_log(&mut self, node: NodeId) {
        let is_known = |host: &crate::host::Host| {
            host.live.as_ref().is_some_and(|live| {
                let cluster = live.node.cluster();
                cluster.incarnation(node).is_some() && cluster.voters().len() >= 3
            })
        };
        // Only once all who run know it, and once in a run: two lost logs of three are no minority.
        let is_first = self.hosts.values().all(|host| !host.is_anew);
        let is_settled = self.hosts.values().filter(|host| host.live.is_some()).all(is_known);
        if !is_first || !is_settled || !self.is_up(node) {
            return;
        }
        self.crash(node, false);
        let Some(host) = self.hosts.get_mut(&node) else { return };
        host.disk = crate::disk::Disk::default();
        host.incarnation += ANEW;
        host.is_anew = true;
        let founded = host.found();
        self.coverage.note("logs founded anew");
        if let Err(error) = founded {
            self.fail(format!("n{node} is not founded: {error}"));
        }
    }

    fn propose_own(&mut self, node: NodeId, body: Body) {
        let Some(live) = self.live(node) else { return };
        let course = live.begin(Origin::Own);
        let key = self.draw_key();
        self.follow(node, course, course::begin_own(node, key, body));
    }

    fn is_up(&self, node: NodeId) -> bool {
        self.hosts.get(&node).is_some_and(|host| host.live.is_some())
    }

    fn is_cut(&self, one: NodeId, other: NodeId) -> bool {
        let (one, other) = (Actor::Node(one), Actor::Node(other));
        self.network.is_cut(one, other) || self.network.is_cut(other, one)
    }
}

/// Pause between two comparisons of clocks, ms.
const KEEP_MS: u64 = 3_000;
/// What a new life of a log is counted up by.
const ANEW: u64 = 1_000;
