//! What a certificate sees of the consortium, asked anew when somebody looks.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use archipelago_client::{Client, ClientError};
use archipelago_common::{
    ConditionKey, Name, Principal, SiteId, TaskId,
    act::Act,
    contact::SiteContact,
    enrolment::CertifiedKey,
    health::{HealthRecord, OfNode},
    member::MembersRecord,
    record::{AssignmentHead, AssignmentState, ReferenceHead, ReferenceHistory, SiteRecord, TaskHead, TaskState, Why},
    task::ConditionMetrics,
};
use archipelago_protocol::message::{Refusal, Reply, Request, Which};
use tokio::sync::Mutex;

use super::layout::Shell;

/// The consortium as it is seen; what the certificate may not ask for is not there.
#[derive(Clone)]
pub(super) struct Seen {
    /// The coordinators' clock, Unix milliseconds.
    pub(super) now_ms: u64,
    pub(super) members: Option<MembersRecord>,
    pub(super) health: Option<Vec<OfNode<HealthRecord>>>,
    pub(super) sites: Option<BTreeMap<SiteId, SiteSeen>>,
    pub(super) references: Vec<ReferenceHead>,
    /// All of them, oldest first.
    pub(super) tasks: Vec<TaskHead>,
    /// What was done, oldest first.
    pub(super) acts: Option<Arc<Vec<Act>>>,
}

/// A site.
#[derive(Clone)]
pub(super) struct SiteSeen {
    pub(super) record: SiteRecord,
    pub(super) contact: Option<SiteContact>,
    pub(super) certified: Option<CertifiedKey>,
    /// What it has claimed of the open tasks.
    pub(super) work: BTreeMap<TaskId, AssignmentHead>,
}

/// A reference with what is known of each condition.
pub(super) struct ReferenceSeen {
    pub(super) history: ReferenceHistory,
    pub(super) metrics: BTreeMap<ConditionKey, ConditionMetrics>,
    /// Whether figures of older tasks were not asked for.
    pub(super) is_cut: bool,
}

/// What left a site for a task, by kind: how often, and bytes.
#[derive(Clone, Copy, Default)]
pub(super) struct Left {
    pub(super) n_columns: u64,
    pub(super) column_bytes: u64,
    pub(super) n_embeddings: u64,
    pub(super) embedding_bytes: u64,
    pub(super) n_figures: u64,
}

/// Who looks, and what was seen last.
pub(super) struct Watch {
    client: Client,
    consortium: String,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    seen: Option<Arc<Seen>>,
    taken: Option<Instant>,
    fault: Option<String>,
}

impl Watch {
    pub(super) fn new(consortium: String, client: Client) -> Self {
        Self { client, consortium, last: Mutex::default() }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// What is shown around every page: the consortium as it is now, or as it was when somebody last answered.
    pub(super) async fn shell(&self) -> Shell {
        let mut last = self.last.lock().await;
        if last.taken.is_none_or(|taken| taken.elapsed() >= FRESH) {
            let known = last.seen.as_ref().and_then(|seen| seen.acts.clone());
            match Seen::take(&self.client, known).await {
                Ok(seen) => (last.seen, last.fault) = (Some(Arc::new(seen)), None),
                Err(error) => last.fault = Some(error.to_string()),
            }
            last.taken = Some(Instant::now());
        }
        Shell { consortium: self.consortium.clone(), seen: last.seen.clone(), fault: last.fault.clone() }
    }

    /// A reference, with figures of its conditions from the tasks that brought them.
    pub(super) async fn reference(&self, name: &Name) -> Result<ReferenceSeen, ClientError> {
        let history = self.client.history(name).await?;
        let tasks = history.changes.iter().rev().filter_map(|change| match &change.why {
            Why::Merged { task } => Some(*task),
            Why::Published | Why::Withdrawn { .. } | Why::Derived { .. } => None,
        });
        let mut newest: Vec<TaskId> = Vec::new();
        tasks.for_each(|task| {
            if !newest.contains(&task) {
                newest.push(task)
            }
        });
        let mut metrics = BTreeMap::new();
        for task in newest.iter().take(MOST_TASKS) {
            for assignment in self.client.task(*task).await?.assignments.into_values() {
                let AssignmentState::Accepted { submission, .. } = assignment.state else { continue };
                for (key, condition) in submission.conditions {
                    if let Some(figures) = condition.metrics {
                        metrics.entry(key).or_insert(figures);
                    }
                }
            }
        }
        Ok(ReferenceSeen { history, metrics, is_cut: newest.len() > MOST_TASKS })
    }

    /// What left a site, by task, newest first; of the latest tasks that anybody took.
    pub(super) async fn left(&self, seen: &Seen, site: &SiteId) -> Result<Vec<(TaskId, Left)>, ClientError> {
        let mut found = Vec::new();
        for head in seen.tasks.iter().rev().filter(|head| head.n_accepted > 0).take(MOST_TASKS) {
            let record = self.client.task(head.id).await?;
            let Some(assignment) = record.assignments.get(site) else { continue };
            let AssignmentState::Accepted { submission, .. } = &assignment.state else { continue };
            let mut left = Left::default();
            for condition in submission.conditions.values() {
                left.n_columns += 1;
                left.column_bytes += condition.columns.size;
                left.n_embeddings += u64::from(condition.embeddings.is_some());
                left.embedding_bytes += condition.embeddings.map_or(0, |blob| blob.size);
                left.n_figures += u64::from(condition.metrics.is_some());
            }
            found.push((head.id, left));
        }
        Ok(found)
    }
}

impl Seen {
    async fn take(client: &Client, known: Option<Arc<Vec<Act>>>) -> Result<Self, ClientError> {
        let now_ms = match client.request(Request::ShowTime).await? {
            Reply::Time(now_ms) => now_ms,
            _ => 0,
        };
        let members = allowed(client.request(Request::ListMembers).await)?.and_then(|reply| match reply {
            Reply::Members(members) => Some(members),
            _ => None,
        });
        let health = allowed(client.request(Request::ShowHealth).await)?.and_then(|reply| match reply {
            Reply::Health(health) => Some(health),
            _ => None,
        });
        let tasks = client.tasks(Which::All).await?;
        Ok(Self {
            now_ms,
            members,
            health,
            sites: Self::sites(client, &tasks).await?,
            references: client.references().await?,
            acts: Self::acts(client, known).await?,
            tasks,
        })
    }

    async fn sites(client: &Client, tasks: &[TaskHead]) -> Result<Option<BTreeMap<SiteId, SiteSeen>>, ClientError> {
        let Some(records) = allowed(client.sites().await)? else { return Ok(None) };
        // Those of an earlier version know neither.
        let mut contacts = allowed(client.contacts().await)?.unwrap_or_default();
        let standings = allowed(client.standings().await)?.unwrap_or_default();
        let mut certified: BTreeMap<SiteId, CertifiedKey> = standings
            .into_iter()
            .filter_map(|standing| match (standing.who, standing.certified) {
                (Principal::Site(site), Some(certified)) => Some((site, certified)),
                _ => None,
            })
            .collect();
        let mut work: BTreeMap<SiteId, BTreeMap<TaskId, AssignmentHead>> = BTreeMap::new();
        for head in tasks.iter().filter(|head| head.state == TaskState::Open && head.n_assigned > 0) {
            for (site, assignment) in client.assignments(head.id).await? {
                work.entry(site).or_default().insert(head.id, assignment);
            }
        }
        let seen = |record: SiteRecord| {
            let site = record.site.clone();
            let (contact, certified) = (contacts.remove(&site), certified.remove(&site));
            (site.clone(), SiteSeen { record, contact, certified, work: work.remove(&site).unwrap_or_default() })
        };
        Ok(Some(records.into_iter().map(seen).collect()))
    }

    /// What is known, and what has come since: the record is long.
    async fn acts(client: &Client, known: Option<Arc<Vec<Act>>>) -> Result<Option<Arc<Vec<Act>>>, ClientError> {
        let mut known = known.unwrap_or_default();
        let last = known.last().map_or(0, |act| act.seq);
        let Some(new) = allowed(client.acts(last).await)? else { return Ok(None) };
        if !new.is_empty() {
            let acts = Arc::make_mut(&mut known);
            acts.extend(new);
            acts.drain(..acts.len().saturating_sub(MOST_ACTS));
        }
        Ok(Some(known))
    }
}

/// Nothing where this certificate may not ask, or the coordinators do not know the question.
fn allowed<T>(answer: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(ClientError::Refused(Refusal::Forbidden { .. } | Refusal::Invalid { .. })) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whoever looks within this time sees the same.
const FRESH: Duration = Duration::from_secs(1);
/// Tasks that are asked for one page: each is a question or two.
const MOST_TASKS: usize = 50;
/// Acts that are kept.
const MOST_ACTS: usize = 5_000;
