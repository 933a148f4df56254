//! Members: what only the leader can see before it lets the state machine change them, and what follows on each node.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use archipelago_cluster::{Body, Cluster, Deed, Room};
use archipelago_common::{
    NodeId, member,
    member::{MemberRole, MemberStatus, MembersRecord},
};
use archipelago_protocol::message::{PeerAsk, PeerReply, Refusal, Reply, Request, RequestKey};

use super::{
    Executor,
    course::{self, Asker},
    refusal,
};
use crate::{links::majority_of, raft::task::View};

/// Keeps the links where the members are, for as long as the node runs; the first leader writes down the founders.
pub(super) async fn run(executor: Executor, founders: BTreeMap<NodeId, String>) {
    let mut changes = executor.raft().watch();
    loop {
        let view = changes.borrow_and_update().clone();
        let links = executor.replicas().links();
        if view.members.is_empty() {
            links.follow(&founders);
            adopt(&executor, &view, &founders).await;
        } else {
            links.follow(&member::addresses(view.members.iter()));
            links.introduce(introduction(&view));
        }
        executor.condition().note_removed(view.is_removed());
        if view.is_removed() {
            tracing::warn!("this node was removed from the cluster; stop it");
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// A node that is not a founder says where it is, because others may have been away when it was added. Founders need
/// not, and while nothing was changed they must not: nodes of an earlier version would not understand.
fn introduction(view: &View) -> Option<String> {
    let founded_ms = view.members.iter().map(|member| member.added_ms).min()?;
    let own = view.members.iter().find(|member| member.node == view.node)?;
    (own.added_ms > founded_ms).then(|| own.address.clone())
}

async fn adopt(executor: &Executor, view: &View, founders: &BTreeMap<NodeId, String>) {
    let voters = &view.configuration.voters;
    let addresses: BTreeMap<_, _> =
        founders.iter().filter(|(node, _)| voters.contains(node)).map(|(node, a)| (*node, a.clone())).collect();
    // A file that does not name every voter cannot say where all of them are; another leader's may.
    if !view.is_leader() || addresses.len() < voters.len() {
        return;
    }
    if let Err(error) = executor.execute_own(view.node, Body::AdoptMembers { addresses }).await {
        tracing::warn!(%error, "the founders were not written down");
    }
}

impl Executor {
    /// The change of members that a request would make: its own, or what it approves.
    pub(super) async fn change_of(&self, request: &Request) -> Result<Option<Change>, Refusal> {
        match request {
            Request::AddMember { .. } => Ok(Some(Change::Add)),
            Request::PromoteMember { node } => Ok(Some(Change::Promote(*node))),
            Request::RemoveMember { node } => Ok(Some(Change::Remove(*node))),
            Request::ApproveProposal { number } => {
                self.require_leader()?;
                let number = *number;
                let look = move |cluster: &Cluster| match cluster.proposed(number)? {
                    Deed::AddMember { .. } => Some(Change::Add),
                    Deed::PromoteMember { node } => Some(Change::Promote(*node)),
                    Deed::RemoveMember { node } => Some(Change::Remove(*node)),
                    _ => None,
                };
                self.raft().read(look).await.map_err(refusal::dropped)
            }
            _ => Ok(None),
        }
    }

    /// Adds, promotes or removes a coordinator, and waits until Raft has followed.
    pub(super) async fn change_members(
        &self,
        who: Asker,
        key: RequestKey,
        request: Request,
        change: Change,
    ) -> Result<Reply, Refusal> {
        self.require_leader()?;
        // A new consortium's founders are written down within moments of its first election.
        let are_known = |view: &View| !view.members.is_empty() || !view.is_leader();
        let _ = tokio::time::timeout(FOUNDED, self.raft().watch().wait_for(are_known)).await;
        // Nothing that names blobs is checked against members that are about to change.
        let alone = tokio::time::timeout(ALONE, self.membership.write()).await;
        let _alone = alone.map_err(|_| refusal::dropped(crate::raft::node::Dropped::Busy))?;
        match change {
            Change::Add => {}
            Change::Promote(node) => self.require_caught_up(node).await?,
            Change::Remove(node) => self.require_dispensable(node).await?,
        }
        let reply = self.follow(course::begin(who, key, request, Room::default())).await?;
        let settled = |view: &View| !view.is_leader() || is_settled(view);
        // A change that takes longer goes on by itself; the answer shows that it has not settled.
        let _ = tokio::time::timeout(SETTLE, self.raft().watch().wait_for(settled)).await;
        match reply {
            // It was proposed, or approved.
            Reply::Proposal(proposal) => Ok(Reply::Proposal(proposal)),
            _ => self.members().await,
        }
    }

    /// Has another node lead.
    pub(super) async fn transfer_leadership(&self, to: Option<NodeId>) -> Result<Reply, Refusal> {
        self.require_leader()?;
        let view = self.raft().view();
        if to == Some(view.node) {
            return self.members().await;
        }
        if let Some(node) = to.filter(|node| !view.configuration.voters.contains(node)) {
            return Err(Refusal::Conflict { reason: format!("node {node} is not a voter, so it cannot lead") });
        }
        if view.configuration.voters.len() < 2 {
            return Err(Refusal::Conflict { reason: "there is no other voter that could lead".to_owned() });
        }
        if let Some(node) = to
            && !self.standing(node).await?.is_active
        {
            return Err(Refusal::Conflict { reason: format!("node {node} has not been heard of; start it first") });
        }
        match self.raft().hand_over(to, HAND_OVER).await {
            true => self.members().await,
            false => Err(Refusal::Busy { retry_after_ms: 1_000 }),
        }
    }

    /// All members as this node sees them.
    pub(super) async fn members(&self) -> Result<Reply, Refusal> {
        let standings: BTreeMap<_, _> = self.raft().standings().await.map_err(refusal::dropped)?.into_iter().collect();
        let view = self.raft().view();
        let configuration = &view.configuration;
        let status = |member: &member::MemberRecord| {
            let standing = standings.get(&member.node);
            let is_settled = configuration.outgoing.is_empty()
                && configuration.voters.contains(&member.node) == (member.role == MemberRole::Voter)
                && configuration.learners.contains(&member.node) == (member.role == MemberRole::Learner);
            MemberStatus {
                member: member.clone(),
                is_settled,
                is_active: standing.is_some_and(|standing| standing.is_active),
                entries_behind: standing.map_or(0, |standing| standing.entries_behind),
            }
        };
        let members = view.members.iter().map(status).collect();
        Ok(Reply::Members(MembersRecord { leader: view.leader, members }))
    }

    /// A learner that is behind would be a voter that cannot vote for what it has not seen, and a majority with holes.
    async fn require_caught_up(&self, node: NodeId) -> Result<(), Refusal> {
        let view = self.raft().view();
        if !view.members.iter().any(|member| member.node == node && member.role == MemberRole::Learner) {
            // The state machine says it better.
            return Ok(());
        }
        let standing = self.standing(node).await?;
        if !standing.is_active {
            return Err(unheard(node));
        }
        let index = self.raft().barrier().await.map_err(refusal::dropped)?;
        match self.holdings_of(node, index).await {
            Some((applied, 0)) if applied >= index => Ok(()),
            Some((applied, missing)) => Err(Refusal::Conflict {
                reason: format!(
                    "node {node} is behind: it lacks {} entries and {missing} blobs; wait and ask again",
                    index.saturating_sub(applied)
                ),
            }),
            None => Err(unheard(node)),
        }
    }

    /// Refuses a removal after which a majority might not have everything that was acknowledged.
    async fn require_dispensable(&self, node: NodeId) -> Result<(), Refusal> {
        let view = self.raft().view();
        let voters = view.members.iter().filter(|member| member.role == MemberRole::Voter).map(|member| member.node);
        let voters: BTreeSet<_> = voters.collect();
        if !voters.contains(&node) || voters.len() == 1 {
            return Ok(());
        }
        let index = self.raft().barrier().await.map_err(refusal::dropped)?;
        let staying: Vec<_> = voters.into_iter().filter(|voter| *voter != node).collect();
        let mut n_complete = 0;
        for voter in &staying {
            let holdings = self.holdings_of(*voter, index).await;
            n_complete += usize::from(matches!(holdings, Some((applied, 0)) if applied >= index));
        }
        let needed = majority_of(staying.len());
        if n_complete >= needed {
            return Ok(());
        }
        Err(Refusal::Conflict {
            reason: format!(
                "without node {node}, only {n_complete} of {} voters would have everything, {needed} are needed; start \
                 the others or wait until they have caught up",
                staying.len()
            ),
        })
    }

    async fn standing(&self, node: NodeId) -> Result<crate::raft::node::Standing, Refusal> {
        let standings = self.raft().standings().await.map_err(refusal::dropped)?;
        let found = standings.into_iter().find(|(other, _)| *other == node).map(|(_, standing)| standing);
        found.ok_or_else(|| Refusal::Conflict { reason: format!("node {node} is not part of the configuration yet") })
    }

    /// What a node has applied, and how many blobs it lacks; asked again for a while until it has applied `index` and
    /// lacks none. None if it does not answer.
    async fn holdings_of(&self, node: NodeId, index: u64) -> Option<(u64, u64)> {
        let mut last = None;
        for _ in 0..HOLDINGS_TRIES {
            let answer = if node == self.raft().view().node {
                self.holdings().await.ok()
            } else {
                let link = self.replicas().links().to(node)?;
                match tokio::time::timeout(ASK, link.ask(PeerAsk::Holdings)).await {
                    Ok(Ok(PeerReply::Holdings { applied, missing })) => Some((applied, missing)),
                    _ => None,
                }
            };
            last = answer.or(last);
            if matches!(last, Some((applied, 0)) if applied >= index) {
                break;
            }
            tokio::time::sleep(AGAIN).await;
        }
        last
    }
}

/// How the members are to change.
#[derive(Clone, Copy)]
pub(super) enum Change {
    Add,
    Promote(NodeId),
    Remove(NodeId),
}

fn unheard(node: NodeId) -> Refusal {
    let reason = format!("node {node} has not been heard of; start it with `serve`, and look at its address and log");
    Refusal::Conflict { reason }
}

fn is_settled(view: &View) -> bool {
    let of_role = |role| view.members.iter().filter(|m| m.role == role).map(|m| m.node).collect::<BTreeSet<_>>();
    view.configuration.outgoing.is_empty()
        && view.configuration.voters == of_role(MemberRole::Voter)
        && view.configuration.learners == of_role(MemberRole::Learner)
}

/// Longest wait until the founders are written down.
const FOUNDED: Duration = Duration::from_secs(3);
/// Longest wait for requests that name blobs to be through.
pub(super) const ALONE: Duration = Duration::from_secs(3);
/// Longest wait for Raft to follow a change that was accepted.
const SETTLE: Duration = Duration::from_secs(4);
/// Longest wait for a successor to take over.
const HAND_OVER: Duration = Duration::from_secs(3);
/// Longest wait for another coordinator's answer.
const ASK: Duration = Duration::from_millis(500);
/// Pause before it is asked again.
const AGAIN: Duration = Duration::from_millis(200);
/// How often a node is asked what it holds: the last entry may have just arrived there.
const HOLDINGS_TRIES: usize = 5;
