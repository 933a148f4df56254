//! Who is taken for a coordinator, and what time it is among them: the loops of `server::greeting` and
//! `server::timekeeper`, in virtual time.

use std::collections::BTreeMap;

use archipelago_cluster::{Body, Refusal as Refused, agreed_ms, are_of_one_cluster, awaited_founder};
use archipelago_common::{
    NodeId, limits,
    member::{Incarnation, MemberRole},
};
use archipelago_coordinator::server::course;

use crate::{
    host::{Caller, EPOCH_MS, Loss},
    network::Actor,
    world::World,
};

impl World {
    /// Whether one node takes another for the member of its id, and its log for one of the same cluster. One that it does not
    /// know may be vouched for.
    pub(crate) fn recognises(&self, node: NodeId, other: NodeId) -> bool {
        let (Some(host), Some(peer)) = (self.hosts.get(&node), self.hosts.get(&other)) else { return false };
        let Some(live) = &host.live else { return true };
        if !are_of_one_cluster(host.origin(), peer.origin()) {
            return false;
        }
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

    /// A founder whose log holds nothing hears from the others whether they take it for one (`server::founding`).
    pub(crate) fn ask_founders(&mut self, node: NodeId) {
        let Some(host) = self.hosts.get(&node) else { return };
        let Some(live) = host.live.as_ref().filter(|live| live.node.is_founding()) else { return };
        let (origin, voters, mut takers) = (host.origin(), live.node.configuration().voters, live.takers.clone());
        let others: Vec<_> = voters.into_iter().filter(|other| *other != node).collect();
        for other in others.iter().filter(|other| self.is_up(**other) && !self.is_cut(node, **other)) {
            match self.recognises(*other, node) && self.recognises(node, *other) {
                true => drop(takers.insert(*other, self.hosts[other].origin())),
                false => drop(takers.remove(other)),
            }
        }
        let awaited = awaited_founder(origin, others, |other| takers.get(&other).copied());
        if awaited.is_some() {
            self.coverage.note("founders that were waited for");
        }
        let Some(live) = self.live(node) else { return };
        live.takers = takers;
        live.node.note_founders(awaited.is_none());
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
        let hears = |other: &NodeId| *other == node || (self.is_up(*other) && self.talk(node, *other));
        let Some(other) = unknown.into_iter().find(hears) else { return };
        let incarnation = Incarnation(self.hosts[&other].incarnation);
        self.propose_own(node, Body::Introduce { node: other, incarnation });
    }

    /// The leader compares clocks.
    pub(crate) fn keep_time(&mut self, node: NodeId) {
        let now = self.now;
        let Some(host) = self.hosts.get_mut(&node) else { return };
        let Some(live) = &mut host.live else { return };
        let term = live.node.term();
        if !live.node.is_leader() || (live.kept_time.0 == term && now < live.kept_time.1 + KEEP_MS) {
            return;
        }
        let state_ms = live.node.cluster().now_ms();
        let voters = live.node.configuration().voters;
        live.stamps.lead(term, state_ms, now);
        let is_heard = |other: &NodeId| *other == node || (self.is_up(*other) && self.talk(node, *other));
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
        if voters.len() == 1 {
            // There is nobody who could know better: from here time goes on, until clocks have caught up with it.
            self.watch.count_by_one_clock(agreed.saturating_sub(EPOCH_MS + now));
        }
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
        // Only once all that have members know it, and once in a run: two that have forgotten are no minority of three. Before there are
        // members, a founder that is astray will be founded anew too.
        let is_member = |host: &&crate::host::Host| {
            host.live.as_ref().is_some_and(|live| live.node.cluster().members().next().is_some())
        };
        let mut members = self.hosts.values().filter(is_member).peekable();
        let is_settled = members.peek().is_some() && members.all(is_known);
        // One that was founded alone is a cluster of its own again before anybody can tell it of the others: docs/reliability.md says so.
        let was_founded_alone = self.founders == [node].into();
        if self.has_lost_memory() || !is_settled || was_founded_alone {
            return;
        }
        self.empty_disk(node);
        if let Some(host) = self.hosts.get_mut(&node) {
            host.lost = Some(Loss::FoundedAnew);
        }
        self.coverage.note("logs founded anew");
        self.found_again(node);
    }

    /// Whether two nodes that run could talk: nothing is cut, and each takes the other for a member.
    pub(crate) fn talk(&self, one: NodeId, other: NodeId) -> bool {
        !self.is_cut(one, other) && self.recognises(one, other) && self.recognises(other, one)
    }

    fn propose_own(&mut self, node: NodeId, body: Body) {
        let Some(live) = self.live(node) else { return };
        let course = live.begin(Caller::Nobody);
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
