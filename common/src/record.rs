//! What the coordinators remember, in the form in which it is replicated, answered and shown.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    blob::BlobRef,
    condition::ConditionKey,
    id::{Name, NodeId, SiteId, TaskId, VersionId},
    layout::Layout,
    manifest::{BaseCard, Version},
    state_dict::TensorSpec,
    task::{ConditionMetrics, SurgeryTask},
};

/// A reference model under its name.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ReferenceRecord {
    /// Its name in the consortium.
    pub name: Name,
    /// The operator who published it.
    pub publisher: Name,
    /// What its base is, read from the base file by the leader.
    pub summary: BaseSummary,
    /// The version that new tasks map onto unless they say otherwise.
    pub current: VersionId,
    /// Every version in the order in which it came to be; the first was published. A version that came back, after a
    /// withdrawal say, stands here once for each time.
    pub lineage: Vec<Event>,
    /// The versions by id.
    pub versions: BTreeMap<VersionId, Version>,
}

/// The facts about a base that the coordinator needs without reading its tensors.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct BaseSummary {
    /// Model of the zoo.
    pub model: String,
    /// Size of the gene panel.
    pub n_genes: u64,
    /// Type and shape of the tensors that each condition owns. What they are, and what else versions hold, the reference's
    /// layout says where it is not plain.
    pub columns: BTreeMap<String, TensorSpec>,
    /// Whether surgery can move a query's embedding.
    pub moves_embedding: bool,
}

impl BaseSummary {
    /// The layout of a reference of which nothing more is known.
    pub fn layout(&self) -> Layout {
        Layout::plain(self.columns.clone())
    }
}

impl From<&BaseCard> for BaseSummary {
    fn from(card: &BaseCard) -> Self {
        Self {
            model: card.model.clone(),
            n_genes: card.genes.len() as u64,
            columns: card.layout.columns(),
            moves_embedding: card.moves_embedding,
        }
    }
}

/// How one version followed another.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Event {
    /// The version that came to be.
    pub version: VersionId,
    /// The version before; none for the first.
    pub parent: Option<VersionId>,
    /// Why.
    pub cause: Cause,
    /// The leader's clock at the time, Unix milliseconds.
    pub at_ms: u64,
}

/// Why a version came to be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// An operator published the reference.
    Published,
    /// Accepted submissions of a task were merged, exactly.
    Merged {
        /// The task.
        task: TaskId,
        /// The conditions that were added.
        keys: Vec<ConditionKey>,
    },
    /// Conditions were taken out again; their blobs and this entry remain for audit.
    Withdrawn {
        /// Who asked: the owning site or an operator.
        by: Name,
        /// The conditions that were removed.
        keys: Vec<ConditionKey>,
    },
    /// A value was derived from the version, which stays what it is.
    Derived {
        /// Who handed it in.
        by: Name,
        /// The value, as the reference's layout calls it.
        value: Name,
        /// The function whose result it is.
        function: Name,
        /// The result.
        result: BlobRef,
    },
}

/// A reference without its history, which comes in pages.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ReferenceHead {
    /// Its name in the consortium.
    pub name: Name,
    /// The operator who published it.
    pub publisher: Name,
    /// What its base is.
    pub summary: BaseSummary,
    /// The base that all its versions have.
    pub base: BlobRef,
    /// The version that new tasks map onto unless they say otherwise.
    pub current: VersionId,
    /// Conditions in the current version.
    pub n_conditions: u64,
    /// Changes from the first, which published it.
    pub n_changes: u64,
}

/// One step of a reference from version to version: what it changed, not what there was.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Change {
    /// The version that came to be.
    pub version: VersionId,
    /// Why.
    pub why: Why,
    /// The leader's clock at the time, Unix milliseconds.
    pub at_ms: u64,
    /// The conditions that came, or went, with their columns. What went remains for audit.
    pub columns: BTreeMap<ConditionKey, BlobRef>,
}

/// Why a version came to be; which conditions were concerned is in the [`Change`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// An operator published the reference with these conditions.
    Published,
    /// Accepted submissions of a task were merged, exactly.
    Merged {
        /// The task.
        task: TaskId,
    },
    /// Conditions were taken out again.
    Withdrawn {
        /// Who asked: the owning site or an operator.
        by: Name,
    },
    /// A value was derived from the version; nothing came and nothing went.
    Derived {
        /// Who handed it in.
        by: Name,
        /// The value, as the reference's layout calls it.
        value: Name,
        /// The function whose result it is.
        function: Name,
        /// The result.
        result: BlobRef,
    },
}

impl Change {
    /// Whether its conditions came; otherwise they went.
    pub fn adds(&self) -> bool {
        !matches!(self.why, Why::Withdrawn { .. })
    }

    /// What was derived, if this is what it is about.
    pub fn result(&self) -> Option<BlobRef> {
        match &self.why {
            Why::Derived { result, .. } => Some(*result),
            Why::Published | Why::Merged { .. } | Why::Withdrawn { .. } => None,
        }
    }

    /// What the next version holds, from what the one before held.
    pub fn apply(&self, columns: &mut BTreeMap<ConditionKey, BlobRef>) {
        match self.adds() {
            true => columns.extend(self.columns.iter().map(|(key, blob)| (key.clone(), *blob))),
            false => columns.retain(|key, _| !self.columns.contains_key(key)),
        }
    }

    /// The change as an entry of a lineage, under its parent.
    pub fn event(&self, parent: Option<VersionId>) -> Event {
        let keys = || self.columns.keys().cloned().collect();
        let cause = match &self.why {
            Why::Published => Cause::Published,
            Why::Merged { task } => Cause::Merged { task: *task, keys: keys() },
            Why::Withdrawn { by } => Cause::Withdrawn { by: by.clone(), keys: keys() },
            Why::Derived { by, value, function, result } => {
                let (by, value, function) = (by.clone(), value.clone(), function.clone());
                Cause::Derived { by, value, function, result: *result }
            }
        };
        Event { version: self.version, parent, cause, at_ms: self.at_ms }
    }
}

/// A reference with its whole history: for people, and for audits.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ReferenceHistory {
    /// What it is.
    #[serde(flatten)]
    pub head: ReferenceHead,
    /// From the first version to the current one.
    pub changes: Vec<Change>,
}

impl ReferenceHistory {
    /// What the version holds that a change led to; the last one's is the current.
    pub fn after(&self, n_changes: usize) -> Version {
        let mut columns = BTreeMap::new();
        self.changes.iter().take(n_changes).for_each(|change| change.apply(&mut columns));
        Version { base: self.head.base, columns }
    }

    /// The current version.
    pub fn current(&self) -> Version {
        self.after(self.changes.len())
    }

    /// The record with every version whole: for audits, and for peers that ask for no pages. As long as the square of the
    /// history.
    pub fn record(&self) -> ReferenceRecord {
        let (mut columns, mut versions) = (BTreeMap::new(), BTreeMap::new());
        for change in &self.changes {
            change.apply(&mut columns);
            versions.entry(change.version).or_insert(Version { base: self.head.base, columns: columns.clone() });
        }
        let parents = std::iter::once(None).chain(self.changes.iter().map(|change| Some(change.version)));
        ReferenceRecord {
            name: self.head.name.clone(),
            publisher: self.head.publisher.clone(),
            summary: self.head.summary.clone(),
            current: self.head.current,
            lineage: self.changes.iter().zip(parents).map(|(change, parent)| change.event(parent)).collect(),
            versions,
        }
    }
}

/// An enrolled site.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SiteRecord {
    /// Its name, as in its certificate.
    pub site: SiteId,
    /// When it was enrolled, Unix milliseconds.
    pub enrolled_ms: u64,
    /// When it was revoked, if it was; a revoked site is refused at once.
    pub revoked_ms: Option<u64>,
}

/// A published task and all that became of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TaskRecord {
    /// Its number.
    pub id: TaskId,
    /// What is asked.
    pub task: SurgeryTask,
    /// The operator who published it.
    pub publisher: Name,
    /// When, Unix milliseconds.
    pub published_ms: u64,
    /// Whether it is open.
    pub state: TaskState,
    /// One assignment per site that ever claimed it.
    pub assignments: BTreeMap<SiteId, AssignmentRecord>,
}

/// Whether a task takes submissions.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskState {
    /// Sites may claim and submit.
    Open,
    /// Closed by an operator: what was accepted is merged.
    Closed,
    /// Cancelled by an operator: what was accepted under `publish = each` stays.
    Cancelled,
    /// Its deadline passed.
    Expired,
}

/// One site's lease on a task.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AssignmentRecord {
    /// Fencing epoch: grows with every claim after a lapse, and a result from an earlier one is refused.
    pub epoch: u64,
    /// Where it stands.
    pub state: AssignmentState,
    /// When the lease ends unless renewed, Unix milliseconds.
    pub lease_until_ms: u64,
    /// The last progress the site reported.
    pub progress: Option<Progress>,
}

/// Where an assignment stands.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AssignmentState {
    /// The site is at work.
    Assigned,
    /// The lease ran out; the site may claim again.
    Lapsed,
    /// The site gave up.
    GivenUp {
        /// In the site's words.
        reason: String,
    },
    /// The submission was accepted.
    Accepted {
        /// What was accepted.
        submission: Submission,
        /// When, Unix milliseconds.
        at_ms: u64,
        /// The version that holds it, once there is one.
        version: Option<VersionId>,
    },
}

/// A task without what others made of it, which comes in pages.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TaskHead {
    /// Its number.
    pub id: TaskId,
    /// What is asked.
    pub task: SurgeryTask,
    /// The operator who published it.
    pub publisher: Name,
    /// When, Unix milliseconds.
    pub published_ms: u64,
    /// Whether it is open.
    pub state: TaskState,
    /// Sites that ever claimed it; for a site that asks, itself at most.
    pub n_assigned: u64,
    /// Of them, sites whose submission was accepted.
    pub n_accepted: u64,
    /// The asking site's own assignment, if it has one.
    pub own: Option<AssignmentHead>,
}

/// An assignment without what was handed in, which comes in pages.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AssignmentHead {
    /// Fencing epoch.
    pub epoch: u64,
    /// Where it stands.
    pub stage: Stage,
    /// When the lease ends unless renewed, Unix milliseconds.
    pub lease_until_ms: u64,
    /// The last progress the site reported.
    pub progress: Option<Progress>,
}

/// Where an assignment stands; an [`AssignmentState`] without the submission.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The site is at work.
    Assigned,
    /// The lease ran out; the site may claim again.
    Lapsed,
    /// The site gave up.
    GivenUp {
        /// In the site's words.
        reason: String,
    },
    /// The submission was accepted.
    Accepted {
        /// When, Unix milliseconds.
        at_ms: u64,
        /// The version that holds it, once there is one.
        version: Option<VersionId>,
        /// The version that was trained against.
        trained: VersionId,
        /// Conditions in it.
        n_conditions: u64,
    },
}

impl From<&AssignmentRecord> for AssignmentHead {
    fn from(record: &AssignmentRecord) -> Self {
        let stage = match &record.state {
            AssignmentState::Assigned => Stage::Assigned,
            AssignmentState::Lapsed => Stage::Lapsed,
            AssignmentState::GivenUp { reason } => Stage::GivenUp { reason: reason.clone() },
            AssignmentState::Accepted { submission, at_ms, version } => Stage::Accepted {
                at_ms: *at_ms,
                version: *version,
                trained: submission.version,
                n_conditions: submission.conditions.len() as u64,
            },
        };
        let AssignmentRecord { epoch, lease_until_ms, progress, .. } = *record;
        Self { epoch, stage, lease_until_ms, progress }
    }
}

/// Some of a list, in its order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Whether others follow: ask again after the last of these.
    pub more: bool,
}

/// How far a site has come.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// Epochs done, over all conditions.
    pub epochs_done: u64,
    /// Epochs planned, over all conditions.
    pub epochs_planned: u64,
    /// Last mean loss per cell, if the site's policy lets metrics out.
    pub loss: Option<f64>,
}

/// What a site sends back for a task.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Submission {
    /// The task.
    pub task: TaskId,
    /// The epoch of the assignment under which the work was done.
    pub epoch: u64,
    /// The version that was trained against; must be the task's.
    pub version: VersionId,
    /// The trained conditions.
    pub conditions: BTreeMap<ConditionKey, SubmittedCondition>,
}

/// One condition of a submission. The blobs were uploaded, and are durable, before the submission names them.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SubmittedCondition {
    /// Its columns.
    pub columns: BlobRef,
    /// Embeddings, where task and policy agree on them.
    pub embeddings: Option<BlobRef>,
    /// Aggregate figures, where the policy lets them out.
    #[serde(with = "crate::quality::layouts::metrics")]
    pub metrics: Option<ConditionMetrics>,
}

impl Submission {
    /// All blobs that the submission names.
    pub fn blobs(&self) -> impl Iterator<Item = BlobRef> {
        self.conditions.values().flat_map(|c| std::iter::once(c.columns).chain(c.embeddings))
    }
}

/// One coordinator's view of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StatusRecord {
    /// The node that answers.
    pub node: NodeId,
    /// The leader, if this node knows one.
    pub leader: Option<NodeId>,
    /// Raft term.
    pub term: u64,
    /// Last applied log index.
    pub applied: u64,
    /// Voting members.
    pub voters: Vec<NodeId>,
    /// References, sites and open tasks.
    pub references: u64,
    /// Enrolled sites that are not revoked.
    pub sites: u64,
    /// Open tasks.
    pub open_tasks: u64,
    /// Blobs and bytes in this node's store.
    pub blobs: u64,
    /// Bytes in this node's store.
    pub blob_bytes: u64,
}
