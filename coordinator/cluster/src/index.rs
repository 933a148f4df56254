//! What follows from the state and is kept beside it, so that no command and no answer walks all of it: which tasks are
//! open, what falls due next, which blobs are named, what each site has handed in.
//!
//! It is made anew from a state that is restored, and every change of an assignment goes through [`Index::moved`].

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use archipelago_common::{
    BlobRef, Digest, SiteId, TaskId,
    record::{AssignmentRecord, AssignmentState, Change, Submission, TaskRecord, TaskState},
};

use crate::{Cluster, history::Reference};

/// See the module.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Index {
    open: BTreeSet<TaskId>,
    /// Leases (of a site) and deadlines (of a task) by their last moment.
    due: BTreeSet<(u64, TaskId, Option<SiteId>)>,
    /// By blob, how often a reference or a submission names it.
    named: BTreeMap<BlobRef, u32>,
    handed_in: BTreeMap<SiteId, HandedIn>,
    /// By task, how many submissions were accepted, if any.
    n_accepted: BTreeMap<TaskId, u64>,
    /// The tasks that a site ever claimed.
    claimed: BTreeMap<SiteId, BTreeSet<TaskId>>,
}

/// The blobs of a site's accepted submissions.
#[derive(Clone, PartialEq, Debug, Default)]
struct HandedIn {
    blobs: BTreeMap<Digest, (u64, u32)>,
    n_bytes: u64,
}

impl Cluster {
    /// Makes anew what follows from the state.
    pub(crate) fn index(&mut self) {
        let mut index = Index::default();
        for reference in self.references.values_mut() {
            reference.index();
            index.published(reference);
        }
        for task in self.tasks.values() {
            index.opened(task);
            for (site, assignment) in &task.assignments {
                index.moved(task.id, site, None, Some(assignment));
            }
        }
        for deed in self.proposals.values().filter_map(|proposed| proposed.deed.as_ref()) {
            index.proposed(deed.blobs());
        }
        self.unname_erased(&mut index);
        self.index = index;
        let ids: Vec<TaskId> = self.index.open.iter().copied().collect();
        for id in ids {
            self.wait_anew(id);
        }
    }

    /// Notes in the reference what waits for the close of a task.
    fn wait_anew(&mut self, id: TaskId) {
        let task = &self.tasks[&id];
        let Some(reference) = self.references.get_mut(&task.task.reference) else { return };
        for (key, columns) in crate::task::waiting_in(task) {
            reference.begin_to_wait(key, columns);
        }
    }
}

impl Index {
    /// The open tasks, by number.
    pub(crate) fn open(&self) -> &BTreeSet<TaskId> {
        &self.open
    }

    /// The tasks after this one that a site may take or has taken, `most` at most.
    pub(crate) fn tasks_of(&self, site: &SiteId, after: Bound<TaskId>, most: usize) -> BTreeSet<TaskId> {
        let claimed = self.claimed.get(site).into_iter().flat_map(|tasks| tasks.range((after, Bound::Unbounded)));
        let mut tasks: BTreeSet<TaskId> = claimed.take(most).copied().collect();
        tasks.extend(self.open.range((after, Bound::Unbounded)).take(most));
        tasks
    }

    /// How many submissions for a task were accepted.
    pub(crate) fn n_accepted(&self, task: TaskId) -> u64 {
        self.n_accepted.get(&task).copied().unwrap_or_default()
    }

    /// The first moment after which a lease or deadline is over.
    pub(crate) fn next_limit_ms(&self) -> Option<u64> {
        self.due.first().map(|(limit_ms, ..)| *limit_ms)
    }

    /// The next lease or deadline that is over at `now_ms`.
    pub(crate) fn next_over(&self, now_ms: u64) -> Option<(TaskId, Option<SiteId>)> {
        let (limit_ms, task, site) = self.due.first()?;
        (*limit_ms < now_ms).then(|| (*task, site.clone()))
    }

    /// A reference was published, or restored with all its changes.
    pub(crate) fn published(&mut self, reference: &Reference) {
        self.name(reference.base());
        let came = reference.changes().iter().filter(|change| change.adds());
        came.flat_map(|change| change.columns.values()).for_each(|blob| self.name(*blob));
        reference.changes().iter().filter_map(Change::result).for_each(|result| self.name(result));
    }

    /// These blobs are of what somebody proposed to publish.
    pub(crate) fn proposed(&mut self, blobs: impl Iterator<Item = BlobRef>) {
        blobs.for_each(|blob| self.name(blob));
    }

    /// And are no more: it was published, or comes to nothing.
    pub(crate) fn proposed_no_more(&mut self, blobs: impl Iterator<Item = BlobRef>) {
        blobs.for_each(|blob| self.unname(&blob));
    }

    /// These columns were merged.
    pub(crate) fn merged<'a>(&mut self, columns: impl Iterator<Item = &'a BlobRef>) {
        columns.for_each(|blob| self.name(*blob));
    }

    /// A task was published, or restored.
    pub(crate) fn opened(&mut self, task: &TaskRecord) {
        if task.state == TaskState::Open {
            self.open.insert(task.id);
            self.due.extend(task.task.deadline_ms.map(|limit_ms| (limit_ms, task.id, None)));
        }
    }

    /// A task is open no more.
    pub(crate) fn ended(&mut self, task: &TaskRecord) {
        self.open.remove(&task.id);
        if let Some(limit_ms) = task.task.deadline_ms {
            self.due.remove(&(limit_ms, task.id, None));
        }
    }

    /// An assignment came, went or became another.
    pub(crate) fn moved(
        &mut self,
        task: TaskId,
        site: &SiteId,
        before: Option<&AssignmentRecord>,
        after: Option<&AssignmentRecord>,
    ) {
        if before.is_none() {
            self.claimed.entry(site.clone()).or_default().insert(task);
        }
        if let Some(limit_ms) = before.and_then(lease) {
            self.due.remove(&(limit_ms, task, Some(site.clone())));
        }
        if let Some(limit_ms) = after.and_then(lease) {
            self.due.insert((limit_ms, task, Some(site.clone())));
        }
        let (gone, come) = (before.and_then(submission), after.and_then(submission));
        if gone.is_none() && come.is_none() {
            return;
        }
        let n_accepted = self.n_accepted.entry(task).or_default();
        *n_accepted = *n_accepted + u64::from(come.is_some()) - u64::from(gone.is_some());
        if *n_accepted == 0 {
            self.n_accepted.remove(&task);
        }
        // What comes first, so that nothing is forgotten in between.
        for blob in come.into_iter().flat_map(Submission::blobs) {
            self.name(blob);
            self.handed_in.entry(site.clone()).or_default().add(&blob);
        }
        for blob in gone.into_iter().flat_map(Submission::blobs) {
            self.unname(&blob);
            if let Some(handed_in) = self.handed_in.get_mut(site) {
                handed_in.remove(&blob);
            }
        }
        if self.handed_in.get(site).is_some_and(|handed_in| handed_in.blobs.is_empty()) {
            self.handed_in.remove(site);
        }
    }

    /// Blobs that the state names after this one, `most` at most.
    pub(crate) fn named_after(&self, after: Option<BlobRef>, most: usize) -> Vec<BlobRef> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.named.range((from, Bound::Unbounded)).take(most).map(|(blob, _)| *blob).collect()
    }

    /// Whether the state names a blob.
    pub(crate) fn names(&self, blob: &BlobRef) -> bool {
        self.named.contains_key(blob)
    }

    /// Bytes of the blobs of a site's accepted submissions, each counted once.
    pub(crate) fn bytes_of(&self, site: &SiteId) -> u64 {
        self.handed_in.get(site).map_or(0, |handed_in| handed_in.n_bytes)
    }

    /// Whether a blob is in an accepted submission of a site.
    pub(crate) fn is_of(&self, site: &SiteId, digest: &Digest) -> bool {
        self.handed_in.get(site).is_some_and(|handed_in| handed_in.blobs.contains_key(digest))
    }

    /// Of an accepted submission of a site, these blobs are named no more.
    pub(crate) fn erased(&mut self, site: &SiteId, blobs: &[BlobRef]) {
        for blob in blobs {
            self.unname(blob);
            if let Some(handed_in) = self.handed_in.get_mut(site) {
                handed_in.remove(blob);
            }
        }
        if self.handed_in.get(site).is_some_and(|handed_in| handed_in.blobs.is_empty()) {
            self.handed_in.remove(site);
        }
    }

    fn name(&mut self, blob: BlobRef) {
        *self.named.entry(blob).or_default() += 1;
    }

    pub(crate) fn unname(&mut self, blob: &BlobRef) {
        if let Some(n_names) = self.named.get_mut(blob) {
            *n_names -= 1;
            if *n_names == 0 {
                self.named.remove(blob);
            }
        }
    }
}

impl HandedIn {
    fn add(&mut self, blob: &BlobRef) {
        let (size, n_times) = self.blobs.entry(blob.digest).or_insert((blob.size, 0));
        *n_times += 1;
        if *n_times == 1 {
            self.n_bytes += *size;
        }
    }

    fn remove(&mut self, blob: &BlobRef) {
        let Some((size, n_times)) = self.blobs.get_mut(&blob.digest) else { return };
        *n_times -= 1;
        if *n_times == 0 {
            self.n_bytes -= *size;
            self.blobs.remove(&blob.digest);
        }
    }
}

fn lease(assignment: &AssignmentRecord) -> Option<u64> {
    (assignment.state == AssignmentState::Assigned).then_some(assignment.lease_until_ms)
}

fn submission(assignment: &AssignmentRecord) -> Option<&Submission> {
    match &assignment.state {
        AssignmentState::Accepted { submission, .. } => Some(submission),
        _ => None,
    }
}
