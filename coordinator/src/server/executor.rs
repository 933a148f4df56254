//! From a request to its answer on a live node: carries out the steps of its [`course`].
//!
//! What the state machine cannot see, because it knows names of blobs only, the leader checks before it proposes: that
//! they are durable on a majority, and what is in them (see `checks`). Everything else is decided by the state machine,
//! in the order of the log.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use archipelago_cluster::{Body, Cluster, Room};
use archipelago_common::{NodeId, health::NodeState, record::StatusRecord};
use archipelago_protocol::message::{Refusal, Reply, Request, RequestKey};
use tokio::sync::RwLock;

use super::{
    certificates::Guestbook,
    checks,
    course::{self, Asker, Step},
    membership, refusal,
};
use crate::{
    blob::replicate::Replicas,
    clock::Clock,
    condition::Condition,
    contacts::Contacts,
    ops::{metrics, requests},
    quota::Quotas,
    raft::task::Raft,
};

/// Answers requests. Clones are the same.
#[derive(Clone)]
pub struct Executor {
    raft: Raft,
    replicas: Replicas,
    quotas: Quotas,
    clock: Arc<Clock>,
    guestbook: Guestbook,
    contacts: Contacts,
    /// Held by whoever has named blobs checked, and alone by whoever changes members: a majority that was counted must
    /// still be one when the command is in the log.
    pub(super) membership: Arc<RwLock<()>>,
}

impl Executor {
    /// An executor over this node.
    pub fn new(raft: Raft, replicas: Replicas, quotas: Quotas) -> Self {
        Self {
            raft,
            replicas,
            quotas,
            clock: Arc::default(),
            guestbook: Guestbook::default(),
            contacts: Contacts::default(),
            membership: Arc::default(),
        }
    }

    /// Time, as this node stamps it while it leads.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// What time it is, to a leader that knows.
    pub(super) fn now_ms(&self) -> Option<u64> {
        self.clock.now_ms(self.raft.view().term)
    }

    /// The stamp of a command. A new leader compares clocks first.
    async fn stamp_ms(&self) -> Result<u64, Refusal> {
        self.require_leader()?;
        let known = self.clock.known_ms(self.raft.view().term, COMPARE).await;
        known.ok_or(Refusal::Busy { retry_after_ms: refusal::CLOCK_MS })
    }

    /// What each site may take of it.
    pub fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// With which certificates peers have come.
    pub(super) fn guestbook(&self) -> &Guestbook {
        &self.guestbook
    }

    /// Which sites are heard here, and when they were last.
    pub fn contacts(&self) -> &Contacts {
        &self.contacts
    }

    /// How the node is.
    pub fn condition(&self) -> &Condition {
        self.replicas.store().condition()
    }

    /// The node.
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// The blobs.
    pub fn replicas(&self) -> &Replicas {
        &self.replicas
    }

    /// Carries out one request and notes it in the metrics.
    ///
    /// # Errors  [`Refusal`], for the peer
    pub async fn execute(&self, who: impl Into<Asker>, key: RequestKey, request: Request) -> Result<Reply, Refusal> {
        let (kind, begun) = (requests::kind(&request), Instant::now());
        let result = self.carry_out(who.into(), key, request).await;
        metrics::REQUEST_SECONDS.observe(begun.elapsed().as_secs_f64());
        if matches!(result, Ok(Reply::Accepted { .. })) {
            metrics::SUBMISSIONS_ACCEPTED_TOTAL.inc();
        }
        metrics::REQUESTS_TOTAL.with_label_values(&[kind, requests::outcome(&result)]).inc();
        result
    }

    /// Carries out a command that nobody asked for, in this node's name.
    ///
    /// # Errors  [`Refusal`]
    pub async fn execute_own(&self, node: NodeId, body: Body) -> Result<(), Refusal> {
        self.follow(course::begin_own(node, RequestKey(rand::random()), body)).await.map(drop)
    }

    async fn carry_out(&self, who: Asker, key: RequestKey, request: Request) -> Result<Reply, Refusal> {
        match request {
            Request::Status => self.status().await,
            Request::ShowTime => {
                self.require_leader()?;
                self.now_ms().map(Reply::Time).ok_or(Refusal::Busy { retry_after_ms: refusal::CLOCK_MS })
            }
            Request::ListMembers => {
                self.require_leader()?;
                self.members().await
            }
            Request::ListContacts { after } => {
                self.require_leader()?;
                Ok(Reply::Contacts(self.contacts.page(Room::default(), after.as_ref())))
            }
            Request::ShowHealth => self.health_of_all().await,
            Request::VerifyBlobs => self.verify_everywhere().await,
            Request::CollectBlobs { dry_run } => self.collect_everywhere(dry_run).await,
            Request::TransferLeadership { to } => self.transfer_leadership(to).await,
            request @ (Request::AddMember { .. }
            | Request::PromoteMember { .. }
            | Request::RemoveMember { .. }
            | Request::ApproveProposal { .. }) => match self.change_of(&request).await? {
                Some(change) => self.change_members(who, key, request, change).await,
                // What was approved may delete blobs.
                None => self.alone(who, key, request).await,
            },
            Request::Erase { .. } => self.alone(who, key, request).await,
            request => self.begin(who, key, request).await,
        }
    }

    async fn begin(&self, who: Asker, key: RequestKey, request: Request) -> Result<Reply, Refusal> {
        let step = course::begin(who, key, request, Room::default());
        // What begins so changes something.
        if matches!(step, Step::Lead(_)) {
            self.require_leader()?;
            self.require_space()?;
        }
        self.follow(step).await
    }

    /// Nobody's blobs are counted while they may be deleted: what is handed in by then stays, and what comes after is looked for anew.
    async fn alone(&self, who: Asker, key: RequestKey, request: Request) -> Result<Reply, Refusal> {
        self.require_leader()?;
        let alone = tokio::time::timeout(membership::ALONE, self.membership.write()).await;
        let _alone = alone.map_err(|_| Refusal::Busy { retry_after_ms: refusal::CLOCK_MS })?;
        self.begin(who, key, request).await
    }

    /// Carries out step after step.
    pub(super) async fn follow(&self, mut step: Step) -> Result<Reply, Refusal> {
        // Held, once blobs were counted, until the command that names them is in the log.
        let mut members_stay = None;
        loop {
            step = match step {
                Step::Read(look) => {
                    let now_ms = self.now_ms();
                    let look = move |cluster: &Cluster| look(cluster, now_ms.unwrap_or(cluster.now_ms()));
                    self.raft.read(look).await.map_err(refusal::dropped)?
                }
                Step::Peek(look) => {
                    let now_ms = self.now_ms();
                    let look = move |cluster: &Cluster| look(cluster, now_ms.unwrap_or(cluster.now_ms()));
                    self.raft.peek(look).await.map_err(refusal::dropped)?
                }
                Step::Lead(then) => {
                    self.require_leader()?;
                    then()
                }
                Step::Durable(blobs, then) => {
                    members_stay.get_or_insert(self.membership.read().await);
                    checks::require_durable(&self.replicas, blobs).await?;
                    then()
                }
                Step::Inspect(inspection) => tokio::task::block_in_place(|| inspection(self.replicas.store())),
                Step::Propose(proposal, then) => {
                    let answer =
                        self.raft.propose(&proposal.stamped(self.stamp_ms().await?)).await.map_err(refusal::dropped)?;
                    then(answer.map_err(refusal::from_cluster)?)
                }
                Step::Done(result) => return result,
            }
        }
    }

    /// This node's own view, on whatever node it is asked: how else would one see what is wrong?
    async fn status(&self) -> Result<Reply, Refusal> {
        let view = self.raft.view();
        let counts = self.raft.peek(Cluster::counts).await.map_err(refusal::dropped)?;
        let (blobs, blob_bytes) = self.replicas.store().size();
        Ok(Reply::Status(StatusRecord {
            node: view.node,
            leader: view.leader,
            term: view.term,
            applied: view.applied,
            voters: view.configuration.voters.into_iter().collect(),
            references: counts.references,
            sites: counts.sites,
            open_tasks: counts.open_tasks,
            blobs,
            blob_bytes,
        }))
    }

    /// A leader whose disk is nearly full changes nothing: its log must outlast the wait for space or a successor.
    fn require_space(&self) -> Result<(), Refusal> {
        match self.condition().state() {
            NodeState::Serving => Ok(()),
            NodeState::DiskLow | NodeState::DiskFull | NodeState::Removed => {
                Err(Refusal::Busy { retry_after_ms: refusal::DISK_MS })
            }
        }
    }

    /// Before any work is done for a request that another node must carry out.
    pub(super) fn require_leader(&self) -> Result<(), Refusal> {
        let view = self.raft.view();
        if view.is_leader() {
            return Ok(());
        }
        // A consortium whose founders do not agree on who they are does not begin by itself.
        let stranger = view.is_founding.then(|| self.replicas.links().acquaintance().refused_founder()).flatten();
        Err(stranger.map_or(Refusal::NotLeader { leader: view.leader }, |reason| Refusal::Conflict { reason }))
    }
}

/// Longest wait until a new leader has compared clocks.
const COMPARE: Duration = Duration::from_secs(2);

#[cfg(test)]
#[path = "executor_tests.rs"]
mod tests;
