//! Whom this node takes for a coordinator, and what the leader writes down of those it knows.

use std::{collections::BTreeSet, time::Duration};

use archipelago_cluster::{Body, Cluster, Edition, Refusal as Refused, are_of_one_cluster};
use archipelago_common::{
    NodeId,
    member::{Incarnation, MemberRole, Origin},
};
use archipelago_protocol::message::{Greeting, PeerAsk, PeerReply, Presentation, Refusal};

use super::{Executor, refusal};
use crate::raft::task::Identity;

impl Executor {
    /// Has this node say who it is on every connection that it makes.
    pub fn begin_to_greet(&self) {
        let raft = self.raft().clone();
        self.replicas().links().acquaintance().greet_with(Box::new(move || {
            let raft = raft.clone();
            Box::pin(async move {
                let Identity { incarnation, origin, last_index } = raft.identity().await.ok()?;
                let greeting = Greeting { incarnation, last_index, edition: Edition::LATEST.number() };
                Some(Presentation { greeting, origin })
            })
        }));
    }

    /// Another coordinator has said who it is. The answer says who this one is.
    ///
    /// # Errors  [`Refusal`], with what an operator is to do about it
    pub(super) async fn greeted(&self, by: NodeId, said: Presentation) -> Result<Presentation, Refusal> {
        let acquaintance = self.replicas().links().acquaintance();
        let own = acquaintance.own().await.ok_or(Refusal::Busy { retry_after_ms: refusal::DISK_MS })?;
        let Greeting { incarnation, last_index, .. } = said.greeting;
        let recognised = self.recognise(by, incarnation).await?;
        if !matches!(recognised, Err(Refused::Forbidden { .. })) {
            self.require_one_founding(by, (said.origin, own.origin))?;
        }
        match recognised {
            Ok(()) => {}
            Err(Refused::NotFound { .. }) if self.is_vouched_for(by, incarnation).await => {}
            Err(Refused::NotFound { .. }) => {
                return Err(Refusal::Forbidden { reason: format!("coordinator {by} is no member") });
            }
            Err(refused) => {
                self.estrange(by, &refused.to_string());
                return Err(refusal::from_cluster(refused));
            }
        }
        self.require_memory(by, last_index).await?;
        acquaintance.note(by, said);
        Ok(own)
    }

    /// Refuses a founder of another cluster.
    fn require_one_founding(&self, by: NodeId, (theirs, own): (Origin, Origin)) -> Result<(), Refusal> {
        if are_of_one_cluster(own, theirs) {
            return Ok(());
        }
        let reason = format!(
            "coordinators {by} and {} were founded with other members (`--peers`), and would be of two clusters; found \
             the one whose list is wrong anew, with the list of all others, or with `--join` if it is to be added",
            self.raft().view().node
        );
        self.estrange(by, &reason);
        self.replicas().links().acquaintance().note_misfounded(by, &reason);
        // In another word than for one whose log is not the one that is known: whoever asks such founders for something hears it.
        Err(Refusal::Conflict { reason })
    }

    /// Says once that a coordinator is not taken for a member: it comes back several times a second.
    fn estrange(&self, by: NodeId, reason: &str) {
        if self.replicas().links().acquaintance().estrange(by, reason) {
            tracing::error!(node = %by, reason, "a coordinator is not taken for a member");
        }
    }

    /// Whether this node's state knows a coordinator with this life of its log.
    pub(super) async fn vouch(&self, node: NodeId, incarnation: Incarnation) -> Result<(), Refusal> {
        let is_known = move |cluster: &Cluster| cluster.incarnation(node) == Some(incarnation);
        match self.raft().peek(is_known).await.map_err(refusal::dropped)? {
            true => self.recognise(node, incarnation).await?.map_err(refusal::from_cluster),
            false => Err(Refusal::NotFound { what: format!("member {node}") }),
        }
    }

    /// Whether a coordinator must have greeted before it says anything else: once the members are known, and all know how.
    pub(super) async fn must_greet(&self) -> bool {
        let is_settled = |cluster: &Cluster| cluster.edition() >= Edition::Second && cluster.members().next().is_some();
        self.raft().peek(is_settled).await.unwrap_or(false)
    }

    async fn recognise(&self, node: NodeId, incarnation: Incarnation) -> Result<Result<(), Refused>, Refusal> {
        // A change that removes it may need its vote to be complete.
        let still_counts = self.raft().view().configuration.contains(node);
        let recognised = move |cluster: &Cluster| match still_counts {
            true => cluster.recognise_life(node, incarnation),
            false => cluster.recognise(node, incarnation),
        };
        self.raft().peek(recognised).await.map_err(refusal::dropped)
    }

    /// A node that was away while another was added does not know it; one of those that it does know may.
    async fn is_vouched_for(&self, node: NodeId, incarnation: Incarnation) -> bool {
        for link in self.replicas().links().all().into_iter().filter(|link| link.node() != node) {
            let asked = tokio::time::timeout(ASK, link.ask(PeerAsk::Vouch { node, incarnation })).await;
            if matches!(asked, Ok(Ok(PeerReply::Known))) {
                return true;
            }
        }
        false
    }

    /// A leader knows what a follower has acknowledged. One that has less comes from an old copy of its disk.
    async fn require_memory(&self, by: NodeId, last_index: u64) -> Result<(), Refusal> {
        let standings = self.raft().standings().await.map_err(refusal::dropped)?;
        let acknowledged = standings.iter().find(|(node, _)| *node == by).map(|(_, standing)| standing.acknowledged);
        match acknowledged.filter(|acknowledged| *acknowledged > last_index) {
            None => Ok(()),
            Some(acknowledged) => {
                let reason = format!(
                    "node {by} has acknowledged entry {acknowledged} and its log ends at {last_index}: its disk has lost \
                     some; add it under a new id"
                );
                self.estrange(by, &reason);
                Err(Refusal::Forbidden { reason })
            }
        }
    }
}

/// Writes down, as long as this node leads, which life of each member's log counts, and raises the edition once every
/// member knows the next one.
pub(super) async fn run(executor: Executor) {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let view = executor.raft().view();
        if view.is_leader() && !view.members.is_empty() {
            note_members(&executor).await;
        }
    }
}

async fn note_members(executor: &Executor) {
    let view = executor.raft().view();
    let look = |cluster: &Cluster| {
        let unknown = |node: &NodeId| cluster.incarnation(*node).is_none();
        let members = cluster.members().filter(|member| member.role != MemberRole::Removed).map(|member| member.node);
        let members: BTreeSet<NodeId> = members.collect();
        (cluster.edition(), members.iter().copied().filter(unknown).collect::<BTreeSet<_>>(), members)
    };
    let Ok((edition, unknown, members)) = executor.raft().peek(look).await else { return };
    let acquaintance = executor.replicas().links().acquaintance();
    let own = acquaintance.own().await;
    let heard = |node: NodeId| if node == view.node { own } else { acquaintance.heard(node) };
    if edition < Edition::LATEST {
        let know_it =
            |node: &NodeId| heard(*node).is_some_and(|said| said.greeting.edition >= Edition::LATEST.number());
        if members.iter().all(know_it) {
            propose(executor, view.node, Body::RaiseEdition { edition: Edition::LATEST }).await;
        }
    }
    if edition < Edition::Second {
        // An earlier build would stop at a command that it does not know.
        return;
    }
    for node in unknown {
        if let Some(said) = heard(node) {
            let incarnation = said.greeting.incarnation;
            propose(executor, view.node, Body::Introduce { node, incarnation }).await;
        }
    }
}

async fn propose(executor: &Executor, own: NodeId, body: Body) {
    if let Err(error) = executor.execute_own(own, body).await {
        tracing::debug!(%error, "what was heard of a member is not written down");
    }
}

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// Longest wait for another coordinator's word.
const ASK: Duration = Duration::from_secs(1);

#[cfg(test)]
#[path = "greeting_tests.rs"]
mod tests;
