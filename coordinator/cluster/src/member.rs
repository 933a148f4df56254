//! The members of the cluster as they should be. The leader's node makes Raft's configuration follow, one joint
//! consensus at a time, so a change that was accepted is carried out whoever leads next.
//!
//! What only the leader can see (whether a learner has caught up, whether a majority that remains has every blob) it
//! checks before it proposes.

use std::collections::{BTreeMap, BTreeSet};

use archipelago_common::{
    NodeId, Principal, Role, limits,
    member::{self, Incarnation, MemberRecord, MemberRole},
};

use crate::{
    Cluster, Outcome, Refusal,
    mutation::{self, Rule},
    site,
};

impl Cluster {
    /// Every coordinator that is or was a member, by id. Empty until a leader has written down the founders.
    pub fn members(&self) -> impl Iterator<Item = &MemberRecord> {
        self.members.values()
    }

    /// One coordinator that is or was a member.
    pub fn member(&self, node: NodeId) -> Option<&MemberRecord> {
        self.members.get(&node)
    }

    /// The members that vote, or should; none while the founders are not written down.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        self.of_role(MemberRole::Voter)
    }

    /// The members that learn, or should.
    pub fn learners(&self) -> BTreeSet<NodeId> {
        self.of_role(MemberRole::Learner)
    }

    /// The life of a member's log that counts, once it is written down.
    pub fn incarnation(&self, node: NodeId) -> Option<Incarnation> {
        self.incarnations.get(&node).copied()
    }

    /// Whether a coordinator that says this of its log is the member of its id. Anybody is, while no members are known.
    ///
    /// # Errors  [`Refusal::Forbidden`], with what to do; [`Refusal::NotFound`] for one that is no member, as far as this
    /// state knows
    pub fn recognise(&self, node: NodeId, incarnation: Incarnation) -> Result<(), Refusal> {
        if self.members.is_empty() {
            return Ok(());
        }
        match self.members.get(&node).map(|member| member.role) {
            None => return Err(Refusal::not_found(format!("member {node}"))),
            Some(MemberRole::Removed) => return Err(Refusal::forbidden(format!("coordinator {node} was removed"))),
            Some(MemberRole::Learner | MemberRole::Voter) => {}
        }
        self.recognise_life(node, incarnation)
    }

    /// Whether this life of a node's log is the one that counts, whatever became of its membership: until a change of members is
    /// complete, one that it removes still votes.
    ///
    /// # Errors  [`Refusal::Forbidden`] for another life of its log
    pub fn recognise_life(&self, node: NodeId, incarnation: Incarnation) -> Result<(), Refusal> {
        match self.incarnations.get(&node) {
            Some(known) if *known != incarnation && !mutation::is_broken(Rule::OneLife) => {
                Err(Refusal::forbidden(format!(
                    "node {node} is not the node {node} we know: its log was founded anew, and what it had promised is \
                     forgotten; add it as node {}",
                    self.free_id()
                )))
            }
            _ => Ok(()),
        }
    }

    /// Writes down which life of a member's log counts.
    pub(crate) fn introduce(
        &mut self,
        principal: &Principal,
        node: NodeId,
        incarnation: Incarnation,
    ) -> Result<Outcome, Refusal> {
        site::require_coordinator(principal)?;
        self.recognise(node, incarnation)?;
        if self.members.contains_key(&node) {
            self.incarnations.entry(node).or_insert(incarnation);
        }
        Ok(Outcome::Members)
    }

    /// Writes down the founders, whom Raft knows from the beginning. Done once, by the first leader that can.
    pub(crate) fn adopt_members(
        &mut self,
        principal: &Principal,
        addresses: &BTreeMap<NodeId, String>,
    ) -> Result<Outcome, Refusal> {
        site::require_coordinator(principal)?;
        if !self.members.is_empty() {
            return Ok(Outcome::Members);
        }
        if addresses.is_empty() || addresses.len() > limits::MEMBERS {
            let found = addresses.len();
            return Err(Refusal::invalid(format!("there are {found} founders, expected 1 to {}", limits::MEMBERS)));
        }
        for address in addresses.values() {
            member::check_address(address).map_err(|e| Refusal::invalid(e.to_string()))?;
        }
        let founder = |(node, address): (&NodeId, &String)| (*node, self.new_member(*node, address, MemberRole::Voter));
        self.members = addresses.iter().map(founder).collect();
        Ok(Outcome::Members)
    }

    pub(crate) fn add_member(
        &mut self,
        principal: &Principal,
        node: NodeId,
        address: &str,
    ) -> Result<Outcome, Refusal> {
        self.require_managed(principal)?;
        member::check_address(address).map_err(|e| Refusal::invalid(e.to_string()))?;
        if let Some(known) = self.members.get(&node) {
            // Asked again after a lost answer.
            if known.role != MemberRole::Removed && known.address == address {
                return Ok(Outcome::Members);
            }
            let free = self.free_id();
            let state = if known.role == MemberRole::Removed { "was a member" } else { "is a member" };
            return Err(Refusal::conflict(format!(
                "node {node} {state} already, and ids are never reused; add it as node {free}"
            )));
        }
        if self.revoked.contains_key(&Principal::Coordinator(node)) {
            return Err(Refusal::conflict(format!("coordinator {node} was revoked; add it under another id")));
        }
        if let Some(other) = self.members.values().find(|m| m.address == address && m.role != MemberRole::Removed) {
            let reason = format!("`{address}` is the address of node {}; remove that first", other.node);
            return Err(Refusal::conflict(reason));
        }
        site::require_room("coordinators, present and former,", self.members.len(), limits::MEMBERS)?;
        let record = self.new_member(node, address, MemberRole::Learner);
        self.members.insert(node, record);
        Ok(Outcome::Members)
    }

    pub(crate) fn promote_member(&mut self, principal: &Principal, node: NodeId) -> Result<Outcome, Refusal> {
        self.require_managed(principal)?;
        let n_voters = self.voters().len();
        let member = self.require_member(node)?;
        match member.role {
            MemberRole::Voter => Ok(Outcome::Members),
            MemberRole::Removed => Err(Refusal::conflict(format!("node {node} was removed; ids are never reused"))),
            MemberRole::Learner => {
                site::require_room("voters", n_voters, limits::VOTERS)?;
                member.role = MemberRole::Voter;
                Ok(Outcome::Members)
            }
        }
    }

    pub(crate) fn remove_member(&mut self, principal: &Principal, node: NodeId) -> Result<Outcome, Refusal> {
        self.require_managed(principal)?;
        let is_last = self.voters() == BTreeSet::from([node]);
        let now_ms = self.now_ms;
        let member = self.require_member(node)?;
        if member.role == MemberRole::Removed {
            return Ok(Outcome::Members);
        }
        if is_last {
            let reason =
                format!("node {node} is the last voter; without it there is no cluster. Promote another first");
            return Err(Refusal::conflict(reason));
        }
        (member.role, member.removed_ms) = (MemberRole::Removed, Some(now_ms));
        Ok(Outcome::Members)
    }

    fn new_member(&self, node: NodeId, address: &str, role: MemberRole) -> MemberRecord {
        MemberRecord { node, address: address.to_owned(), role, added_ms: self.now_ms, removed_ms: None }
    }

    /// The lowest id that no coordinator has or had, above all others.
    fn free_id(&self) -> u64 {
        self.members.keys().next_back().map_or(1, |last| last.as_u64() + 1)
    }

    fn of_role(&self, role: MemberRole) -> BTreeSet<NodeId> {
        self.members.values().filter(|member| member.role == role).map(|member| member.node).collect()
    }

    /// Only an operator changes the members, and only once the founders are known.
    fn require_managed(&self, principal: &Principal) -> Result<(), Refusal> {
        site::require_role(principal, Role::Administrator)?;
        if self.members.is_empty() {
            return Err(Refusal::conflict("the founders are not written down yet; ask again in a moment"));
        }
        Ok(())
    }

    fn require_member(&mut self, node: NodeId) -> Result<&mut MemberRecord, Refusal> {
        self.members.get_mut(&node).ok_or_else(|| Refusal::not_found(format!("coordinator {node}")))
    }
}
