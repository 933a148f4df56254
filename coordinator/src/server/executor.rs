//! From a request to its answer: reads of the state, checks that only bytes can tell, and commands.
//!
//! What the state machine cannot see, because it knows names of blobs only, the leader checks before it proposes: that
//! they are durable on a majority, and what is in them (see `checks`). Everything else is decided by the state machine,
//! in the order of the log.

use std::{
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use archipelago_cluster::{Body, Cluster, Command, Outcome, Selection};
use archipelago_common::{
    NodeId, Principal,
    record::{StatusRecord, Submission},
};
use archipelago_protocol::message::{Refusal, Reply, Request, RequestKey, Withdrawal};

use super::{checks, refusal};
use crate::{blob::replicate::Replicas, ops::metrics, raft::task::Raft};

/// Answers requests. Clones are the same.
#[derive(Clone)]
pub struct Executor {
    raft: Raft,
    replicas: Replicas,
}

impl Executor {
    /// An executor over this node.
    pub fn new(raft: Raft, replicas: Replicas) -> Self {
        Self { raft, replicas }
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
    pub async fn execute(&self, who: Arc<Principal>, key: RequestKey, request: Request) -> Result<Reply, Refusal> {
        let (kind, begun) = (kind(&request), Instant::now());
        let result = self.carry_out(&who, key, request).await;
        metrics::REQUEST_SECONDS.observe(begun.elapsed().as_secs_f64());
        metrics::REQUESTS_TOTAL.with_label_values(&[kind, outcome(&result)]).inc();
        result
    }

    /// Carries out a command that nobody asked for, in this node's name.
    ///
    /// # Errors  [`Refusal`]
    pub async fn execute_own(&self, node: NodeId, body: Body) -> Result<(), Refusal> {
        self.command(&Principal::Coordinator(node), RequestKey(rand::random()), body).await.map(drop)
    }

    async fn carry_out(&self, who: &Principal, key: RequestKey, request: Request) -> Result<Reply, Refusal> {
        match request {
            Request::Status => self.status().await,
            Request::ListReferences => {
                self.read(|cluster| Reply::References(cluster.references().cloned().collect())).await
            }
            Request::ShowReference { name } => self.read(move |cluster| reference(cluster, &name)).await?,
            Request::ListTasks => {
                let who = who.clone();
                self.read(move |cluster| Reply::Tasks(cluster.tasks_for(&who))).await
            }
            Request::ShowTask { task } => {
                let who = who.clone();
                self.read(move |cluster| show_task(cluster, &who, task)).await?
            }
            Request::ListSites => self.read(|cluster| Reply::Sites(cluster.sites().cloned().collect())).await,
            request => {
                self.require_leader()?;
                let body = self.checked(who, request).await?;
                let outcome = self.command(who, key, body).await?;
                self.reply(who, outcome).await
            }
        }
    }

    /// The command that a request stands for, after the checks that need bytes.
    async fn checked(&self, who: &Principal, request: Request) -> Result<Body, Refusal> {
        Ok(match request {
            Request::PublishReference { name, version } => {
                checks::require_durable(&self.replicas, version.blobs()).await?;
                let summary = checks::reference(&self.replicas, &version)?;
                Body::PublishReference { name, version, summary: Box::new(summary) }
            }
            Request::Submit(submission) => {
                self.check_submission(&submission).await?;
                Body::Submit(submission)
            }
            Request::Claim { task } => Body::Claim { task },
            Request::Renew { task, epoch, progress } => Body::Renew { task, epoch, progress },
            Request::GiveUp { task, epoch, reason } => Body::GiveUp { task, epoch, reason },
            Request::Withdraw { reference, what } => Body::Withdraw {
                reference,
                selection: match what {
                    Withdrawal::Site(site) => Selection::Site(site),
                    Withdrawal::Keys(keys) => Selection::Keys(keys),
                },
            },
            Request::AddSite { site } => Body::AddSite { site },
            Request::RevokeSite { site } => Body::RevokeSite { site },
            Request::PublishTask(task) => Body::PublishTask(task),
            Request::CloseTask { task } => Body::CloseTask { task },
            Request::CancelTask { task } => Body::CancelTask { task },
            Request::Status
            | Request::ListReferences
            | Request::ShowReference { .. }
            | Request::ListTasks
            | Request::ShowTask { .. }
            | Request::ListSites => {
                let reason = format!("`{}` changes nothing and is no command of `{who}`", kind(&request));
                return Err(Refusal::Invalid { reason });
            }
        })
    }

    async fn check_submission(&self, submission: &Submission) -> Result<(), Refusal> {
        let id = submission.task;
        let asked = self.read(move |cluster| {
            let task = &cluster.task(id)?.task;
            let layout = cluster.reference(&task.reference)?.summary.columns.clone();
            Some((layout, task.max_column_norm))
        });
        // Of an unknown task the state machine speaks better.
        let Some((layout, max_norm)) = asked.await? else { return Ok(()) };
        checks::require_durable(&self.replicas, submission.blobs()).await?;
        let columns = submission.conditions.iter().map(|(key, condition)| (key, condition.columns));
        checks::columns(&self.replicas, columns, &layout, max_norm)
    }

    async fn command(&self, who: &Principal, key: RequestKey, body: Body) -> Result<Outcome, Refusal> {
        let now_ms = now_ms();
        if let Some(outcome) = self.renewed_already(who, &body, now_ms).await? {
            return Ok(outcome);
        }
        let command = Command { key: key.0, principal: who.clone(), now_ms, body };
        let answer = self.raft.propose(&command).await.map_err(refusal::dropped)?;
        answer.map_err(refusal::from_cluster)
    }

    /// The answer to a renewal that comes too soon after the last to be worth a log entry.
    async fn renewed_already(&self, who: &Principal, body: &Body, now_ms: u64) -> Result<Option<Outcome>, Refusal> {
        let (Principal::Site(site), Body::Renew { task, epoch, .. }) = (who, body) else { return Ok(None) };
        let (site, task, epoch) = (site.clone(), *task, *epoch);
        self.read(move |cluster| cluster.renewal_without_log(&site, task, epoch, now_ms)).await
    }

    /// The whole record where the outcome only names one. This node has applied the command, so its own state will do.
    async fn reply(&self, who: &Principal, outcome: Outcome) -> Result<Reply, Refusal> {
        let who = who.clone();
        match outcome {
            Outcome::Ticked | Outcome::Released => Ok(Reply::Released),
            Outcome::Site(record) => Ok(Reply::Site(record)),
            Outcome::Assigned { epoch, lease_until_ms } => Ok(Reply::Assigned { epoch, lease_until_ms }),
            Outcome::Accepted { version } => {
                metrics::SUBMISSIONS_ACCEPTED_TOTAL.inc();
                Ok(Reply::Accepted { version })
            }
            Outcome::Reference { name, .. } => {
                self.raft.peek(move |cluster| reference(cluster, &name)).await.map_err(refusal::dropped)?
            }
            Outcome::Task(task) => {
                self.raft.peek(move |cluster| show_task(cluster, &who, task)).await.map_err(refusal::dropped)?
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
            voters: view.voters,
            references: counts.references,
            sites: counts.sites,
            open_tasks: counts.open_tasks,
            blobs,
            blob_bytes,
        }))
    }

    async fn read<R: Send + 'static>(&self, query: impl FnOnce(&Cluster) -> R + Send + 'static) -> Result<R, Refusal> {
        self.raft.read(query).await.map_err(refusal::dropped)
    }

    /// Before any work is done for a request that another node must carry out.
    fn require_leader(&self) -> Result<(), Refusal> {
        let view = self.raft.view();
        if view.is_leader() { Ok(()) } else { Err(Refusal::NotLeader { leader: view.leader }) }
    }
}

/// This node's clock, Unix milliseconds.
pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn reference(cluster: &Cluster, name: &archipelago_common::Name) -> Result<Reply, Refusal> {
    let record = cluster.reference(name).cloned();
    record
        .map(|r| Reply::Reference(Box::new(r)))
        .ok_or_else(|| Refusal::NotFound { what: format!("reference `{name}`") })
}

fn show_task(cluster: &Cluster, who: &Principal, task: archipelago_common::TaskId) -> Result<Reply, Refusal> {
    let record = cluster.task_for(who, task);
    record.map(|r| Reply::Task(Box::new(r))).ok_or_else(|| Refusal::NotFound { what: format!("task {task}") })
}

fn kind(request: &Request) -> &'static str {
    match request {
        Request::Status => "status",
        Request::ListReferences => "list_references",
        Request::ShowReference { .. } => "show_reference",
        Request::ListTasks => "list_tasks",
        Request::ShowTask { .. } => "show_task",
        Request::ListSites => "list_sites",
        Request::Claim { .. } => "claim",
        Request::Renew { .. } => "renew",
        Request::GiveUp { .. } => "give_up",
        Request::Submit(_) => "submit",
        Request::Withdraw { .. } => "withdraw",
        Request::AddSite { .. } => "add_site",
        Request::RevokeSite { .. } => "revoke_site",
        Request::PublishReference { .. } => "publish_reference",
        Request::PublishTask(_) => "publish_task",
        Request::CloseTask { .. } => "close_task",
        Request::CancelTask { .. } => "cancel_task",
    }
}

fn outcome(result: &Result<Reply, Refusal>) -> &'static str {
    match result {
        Ok(_) => "done",
        Err(Refusal::NotLeader { .. }) => "not_leader",
        Err(Refusal::Busy { .. }) => "busy",
        Err(Refusal::Forbidden { .. }) => "forbidden",
        Err(Refusal::NotFound { .. }) => "not_found",
        Err(Refusal::Invalid { .. }) => "invalid",
        Err(Refusal::Stale { .. }) => "stale",
        Err(Refusal::Conflict { .. }) => "conflict",
        Err(Refusal::MissingBlobs { .. }) => "missing_blobs",
    }
}

#[cfg(test)]
#[path = "executor_tests.rs"]
mod tests;
