//! Raft's configuration follows the members that the state machine names.
//!
//! Who should be a member is replicated state ([`Cluster::voters`], [`Cluster::learners`]); who is one is Raft's
//! configuration. The leader proposes the difference, one change at a time and through joint consensus, whenever
//! nothing else is under way. So an accepted change is carried out by whoever leads next, and none is made twice.

use std::collections::BTreeSet;

use archipelago_cluster::Cluster;
use archipelago_common::NodeId;
use raft::eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState};

use super::Node;

/// Who counts, as Raft has it at the moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Configuration {
    /// Who votes.
    pub voters: BTreeSet<NodeId>,
    /// Who voted before, and still counts until a change is complete; empty at other times.
    pub outgoing: BTreeSet<NodeId>,
    /// Who gets everything and counts for nothing.
    pub learners: BTreeSet<NodeId>,
}

/// How far another member is behind, as the leader sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Entries that it lacks.
    pub entries_behind: u64,
    /// Whether it was heard of within the last election timeout.
    pub is_active: bool,
    /// The last entry that it has acknowledged.
    pub acknowledged: u64,
}

impl Configuration {
    fn of(state: &ConfState) -> Self {
        let set = |ids: &[u64]| ids.iter().filter_map(|&id| NodeId::new(id)).collect();
        let mut learners: BTreeSet<_> = set(&state.learners);
        learners.extend(set(&state.learners_next));
        Self { voters: set(&state.voters), outgoing: set(&state.voters_outgoing), learners }
    }

    /// Every set of nodes of which a majority must hold what is acknowledged: the voters, those that voted before a
    /// change that is under way, and those that are `wanted` after one that was accepted.
    pub fn electorates(&self, wanted: BTreeSet<NodeId>) -> Vec<BTreeSet<NodeId>> {
        let sets = [self.voters.clone(), self.outgoing.clone(), wanted];
        sets.into_iter().filter(|set| !set.is_empty()).collect()
    }

    /// Whether a node is part of it in any way.
    pub fn contains(&self, node: NodeId) -> bool {
        [&self.voters, &self.outgoing, &self.learners].iter().any(|set| set.contains(&node))
    }

    /// Whether it is what the state machine wants, with no change under way.
    pub fn is_settled(&self, cluster: &Cluster) -> bool {
        let is_wanted = self.voters == cluster.voters() && self.learners == cluster.learners();
        self.outgoing.is_empty() && (is_wanted || cluster.voters().is_empty())
    }
}

impl Node {
    /// Who counts.
    pub fn configuration(&self) -> Configuration {
        Configuration::of(&self.conf_state)
    }

    /// How far every other member is, if this node leads.
    pub fn standings(&self) -> Vec<(NodeId, Standing)> {
        if !self.is_leader() {
            return Vec::new();
        }
        let last = self.raw.raft.raft_log.last_index();
        let standing = |(&id, progress): (&u64, &raft::Progress)| {
            let entries_behind = last.saturating_sub(progress.matched);
            let is_active = progress.recent_active || id == self.id.as_u64();
            Some((NodeId::new(id)?, Standing { entries_behind, is_active, acknowledged: progress.matched }))
        };
        self.raw.raft.prs().iter().filter_map(standing).collect()
    }

    /// Offers the leadership, if this node has it, to `successor`, or to the active voter that is furthest. Proposals are
    /// refused as busy until it has taken it, or an election timeout has passed.
    pub fn hand_over(&mut self, successor: Option<NodeId>) {
        if !self.is_leader() || self.raw.raft.lead_transferee.is_some() {
            return;
        }
        let wanted = self.cluster().voters();
        let is_fit = |id: &u64| {
            let may_stay = wanted.is_empty() || NodeId::new(*id).is_some_and(|id| wanted.contains(&id));
            *id != self.id.as_u64() && self.conf_state.voters.contains(id) && may_stay
        };
        let others = self.raw.raft.prs().iter().filter(|(id, progress)| is_fit(id) && progress.recent_active);
        let furthest = match successor {
            Some(named) => others.map(|(id, _)| *id).find(|id| *id == named.as_u64()),
            None => others.max_by_key(|(_, progress)| progress.matched).map(|(id, _)| *id),
        };
        if let Some(successor) = furthest {
            self.raw.transfer_leader(successor);
        }
    }

    /// A change has been applied. A leader that is no member any more must not stay one: Raft leaves it to us to end its
    /// leadership, and fails at the next entry if we do not.
    pub(super) fn reconfigured(&mut self, conf_state: ConfState) {
        self.conf_state = conf_state;
        self.needs_snapshot = true;
        if self.is_leader() && !self.configuration().contains(self.id) {
            let term = self.raw.raft.term;
            self.raw.raft.become_follower(term, raft::INVALID_ID);
        }
    }

    /// Proposes the next step towards the members that the state machine names, if there is one to make.
    pub(super) fn follow_members(&mut self) {
        let raft = &self.raw.raft;
        let is_busy = raft.has_pending_conf() || raft.lead_transferee.is_some();
        if is_busy || !self.is_leader() || self.cluster().voters().is_empty() {
            return;
        }
        if !self.conf_state.voters_outgoing.is_empty() {
            // Raft leaves the joint configuration by itself, but only under the leader that entered it: one that leads
            // later finds it applied already, and would stay in it for ever.
            if !self.conf_state.voters.contains(&self.id.as_u64()) {
                return self.hand_over(None);
            }
            return self.propose_change(ConfChangeV2::default());
        }
        let change = change(&self.configuration(), &self.cluster().voters(), &self.cluster().learners());
        if change.changes.is_empty() {
            return;
        }
        if !self.cluster().voters().contains(&self.id) {
            // Who has to go does not lead its own removal: it could not tell whether it was carried out.
            return self.hand_over(None);
        }
        self.propose_change(change);
    }

    fn propose_change(&mut self, change: ConfChangeV2) {
        tracing::info!(changes = ?change.changes, "changing the members");
        if self.raw.propose_conf_change(Vec::new(), change).is_err() {
            // Too much is under way. The next `Ready` leads here again.
            tracing::debug!("the change of members waits");
        }
    }
}

/// What leads from the configuration to the members that there should be.
fn change(now: &Configuration, voters: &BTreeSet<NodeId>, learners: &BTreeSet<NodeId>) -> ConfChangeV2 {
    let single = |kind: ConfChangeType, node: &NodeId| {
        let mut change = ConfChangeSingle::default();
        change.set_change_type(kind);
        change.node_id = node.as_u64();
        change
    };
    let mut changes: Vec<_> =
        voters.difference(&now.voters).map(|node| single(ConfChangeType::AddNode, node)).collect();
    let new_learners = learners.iter().filter(|node| !now.contains(**node));
    changes.extend(new_learners.map(|node| single(ConfChangeType::AddLearnerNode, node)));
    let gone = now.voters.union(&now.learners).filter(|node| !voters.contains(node) && !learners.contains(node));
    changes.extend(gone.map(|node| single(ConfChangeType::RemoveNode, node)));
    let touches_voters = *voters != now.voters;
    let mut change = ConfChangeV2 { changes: changes.into(), ..ConfChangeV2::default() };
    // Through both majorities and out again by itself. Learners alone need no second majority.
    let transition = if touches_voters { ConfChangeTransition::Implicit } else { ConfChangeTransition::Auto };
    change.set_transition(transition);
    change
}
