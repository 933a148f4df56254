//! Reading the state: what each peer may see and fetch, and what the blob store must keep.

use std::collections::BTreeSet;

use archipelago_common::{
    BlobRef, Digest, Name, Principal, SiteId, TaskId,
    record::{AssignmentState, ReferenceRecord, Submission, TaskRecord, TaskState},
};

use crate::{
    Cluster, Outcome,
    mutation::{self, Rule},
    reference,
};

/// How much there is of each thing, for the status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counts {
    /// References.
    pub references: u64,
    /// Enrolled sites that are not revoked.
    pub sites: u64,
    /// Open tasks.
    pub open_tasks: u64,
}

impl Cluster {
    /// All references, by name.
    pub fn references(&self) -> impl Iterator<Item = &ReferenceRecord> {
        self.references.values()
    }

    /// One reference.
    pub fn reference(&self, name: &Name) -> Option<&ReferenceRecord> {
        self.references.get(name)
    }

    /// All tasks, by number, with every site's assignment.
    pub fn tasks(&self) -> impl Iterator<Item = &TaskRecord> {
        self.tasks.values()
    }

    /// One task, with every site's assignment.
    pub fn task(&self, id: TaskId) -> Option<&TaskRecord> {
        self.tasks.get(&id)
    }

    /// The tasks that a peer may see, as it may see them: a site those it may take or has taken, without the
    /// assignments of others; anyone else all.
    pub fn tasks_for(&self, principal: &Principal) -> Vec<TaskRecord> {
        self.tasks.values().filter_map(|task| self.seen_by(principal, task)).collect()
    }

    /// One task as a peer may see it; see [`Self::tasks_for`].
    pub fn task_for(&self, principal: &Principal, id: TaskId) -> Option<TaskRecord> {
        self.seen_by(principal, self.tasks.get(&id)?)
    }

    /// How much there is.
    pub fn counts(&self) -> Counts {
        Counts {
            references: self.references.len() as u64,
            sites: self.sites.values().filter(|site| site.revoked_ms.is_none()).count() as u64,
            open_tasks: self.open_tasks().count() as u64,
        }
    }

    /// The answer that a request got, if it was carried out and is remembered. Who refuses a request before it is put
    /// into the log looks here first: it may be a repetition whose first answer was lost on the way.
    pub fn answered(&self, principal: &Principal, key: [u8; 16]) -> Option<&Outcome> {
        self.requests.answered(principal, key)
    }

    /// Every blob that the state names; all others may be collected once no transfer needs them. Blobs of withdrawn
    /// conditions stay, for audit.
    pub fn referenced_blobs(&self) -> BTreeSet<BlobRef> {
        if mutation::is_broken(Rule::KeepNamedBlobs) {
            return self.references.values().flat_map(|record| reference::current(record).blobs()).collect();
        }
        let versions = self.references.values().flat_map(|reference| reference.versions.values());
        let of_versions = versions.flat_map(|version| version.blobs());
        let of_submissions = self.tasks.values().flat_map(submissions).flat_map(|(_, submission)| submission.blobs());
        of_versions.chain(of_submissions).collect()
    }

    /// Bytes of the blobs of a site's accepted submissions, each counted once.
    pub fn stored_bytes(&self, site: &SiteId) -> u64 {
        let of_site = self.tasks.values().flat_map(submissions).filter(|(owner, _)| *owner == site);
        let blobs: BTreeSet<_> = of_site.flat_map(|(_, submission)| submission.blobs()).collect();
        blobs.iter().map(|blob| blob.size).sum()
    }

    /// Whether a peer may download a blob. A site gets the current version of each reference, the versions of open
    /// tasks it may take, and its own submissions: neither what was withdrawn nor the embeddings of others.
    pub fn may_fetch(&self, principal: &Principal, digest: &Digest) -> bool {
        let Principal::Site(site) = principal else { return true };
        if self.require_enrolled(site).is_err() {
            return false;
        }
        let current = self.references.values().map(reference::current);
        let asked = self.open_tasks().filter(|task| task.task.allows(site)).filter_map(|task| {
            let live = self.require_live(&task.task.reference, task.task.version).ok()?;
            live.versions.get(&task.task.version)
        });
        let is_it = |blob: BlobRef| blob.digest == *digest;
        current.chain(asked).any(|version| version.blobs().any(is_it))
            || self.tasks.values().flat_map(submissions).any(|(owner, given)| owner == site && given.blobs().any(is_it))
    }

    fn seen_by(&self, principal: &Principal, task: &TaskRecord) -> Option<TaskRecord> {
        let Principal::Site(site) = principal else { return Some(task.clone()) };
        let may_take = task.state == TaskState::Open && task.task.allows(site);
        let is_seen = self.require_enrolled(site).is_ok() && (may_take || task.assignments.contains_key(site));
        is_seen.then(|| {
            let own = task.assignments.get(site).map(|assignment| (site.clone(), assignment.clone()));
            TaskRecord { assignments: own.into_iter().collect(), ..task.clone() }
        })
    }
}

/// The accepted submissions of a task, by site.
pub(crate) fn submissions(task: &TaskRecord) -> impl Iterator<Item = (&SiteId, &Submission)> {
    task.assignments.iter().filter_map(|(site, assignment)| match &assignment.state {
        AssignmentState::Accepted { submission, .. } => Some((site, submission)),
        _ => None,
    })
}
