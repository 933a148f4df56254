//! Reading the state: what each peer may see and fetch, and what the blob store must keep. Every look is at one thing, or at
//! a page of a list: none walks the whole state, so none holds up the log.

use std::{collections::BTreeSet, ops::Bound};

use archipelago_common::{
    BlobRef, ConditionKey, Digest, Fingerprint, Name, Principal, SiteId, TaskId, VersionId, codec,
    enrolment::{CertifiedKey, EnrolmentRecord},
    limits,
    proposal::Proposal,
    record::{
        AssignmentHead, AssignmentState, Change, Page, ReferenceHead, SiteRecord, Stage, SubmittedCondition, TaskHead,
        TaskRecord, TaskState,
    },
    standing::Standing,
};
use serde::Serialize;

use crate::{
    Cluster, Reference,
    mutation::{self, Rule},
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

/// How much one answer holds. Whoever serves takes [`Room::default`]; the simulation takes less, so that every list is
/// longer than an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// Items of a page.
    pub items: usize,
    /// Bytes beyond which nothing is added to a page; its last item may go beyond.
    pub bytes: u64,
    /// Conditions that are shown with a change.
    pub conditions: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self { items: limits::PAGE_ITEMS, bytes: limits::PAGE_BYTES as u64, conditions: CHANGE_ITEMS }
    }
}

/// Which tasks are meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// Those that take submissions.
    Open,
    /// All.
    All,
}

impl Cluster {
    /// All references, by name.
    pub fn references(&self) -> impl Iterator<Item = &Reference> {
        self.references.values()
    }

    /// One reference.
    pub fn reference(&self, name: &Name) -> Option<&Reference> {
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

    /// The references after this one.
    pub fn reference_page(&self, room: Room, after: Option<&Name>) -> Page<ReferenceHead> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        page(room, self.references.range::<Name, _>((from, Bound::Unbounded)).map(|(_, reference)| reference.head()))
    }

    /// What a version of a reference holds after this condition; of one owner only, where one is named.
    pub fn version_page(
        &self,
        room: Room,
        (reference, version): (&Name, VersionId),
        owner: Option<&SiteId>,
        after: Option<&ConditionKey>,
    ) -> Option<Page<(ConditionKey, BlobRef)>> {
        let reference = self.references.get(reference)?;
        let version = if mutation::is_broken(Rule::PagesOfVersion) { reference.current() } else { version };
        let found = reference.page(version, owner, after, room.items + 1)?;
        Some(page(room, found.into_iter()))
    }

    /// The changes of a reference from this one on, each with its first conditions; the rest of a long one are in
    /// [`Self::change_page`].
    pub fn change_heads(&self, room: Room, reference: &Name, from: u64) -> Option<Page<(Change, bool)>> {
        let changes = self.references.get(reference)?.changes();
        let rest = changes.get(usize::try_from(from).unwrap_or(usize::MAX)..).unwrap_or_default();
        Some(page(
            room,
            rest.iter().map(|change| {
                let columns =
                    change.columns.iter().take(room.conditions).map(|(key, blob)| (key.clone(), *blob)).collect();
                let head = Change { version: change.version, why: change.why.clone(), at_ms: change.at_ms, columns };
                (head, change.columns.len() > room.conditions)
            }),
        ))
    }

    /// The conditions of one change after this one.
    pub fn change_page(
        &self,
        room: Room,
        reference: &Name,
        change: u64,
        after: Option<&ConditionKey>,
    ) -> Option<Page<(ConditionKey, BlobRef)>> {
        let change = self.references.get(reference)?.changes().get(usize::try_from(change).ok()?)?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = change.columns.range::<ConditionKey, _>((from, Bound::Unbounded));
        Some(page(room, rest.map(|(key, blob)| (key.clone(), *blob))))
    }

    /// The sites after this one.
    pub fn site_page(&self, room: Room, after: Option<&SiteId>) -> Page<SiteRecord> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        page(room, self.sites.range::<SiteId, _>((from, Bound::Unbounded)).map(|(_, site)| site.clone()))
    }

    /// The keys of sites after this one.
    pub fn key_page(&self, room: Room, after: Option<&SiteId>) -> Page<(SiteId, CertifiedKey)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let keys = self.certified.range::<SiteId, _>((from, Bound::Unbounded));
        page(room, keys.map(|(site, certified)| (site.clone(), *certified)))
    }

    /// How everybody stands after this one.
    pub fn standing_page(&self, room: Room, after: Option<&Principal>) -> Page<Standing> {
        page(room, self.known_after(after, room.items.saturating_add(1)).iter().map(|who| self.standing(who)))
    }

    /// The proposals after this one.
    pub fn proposal_page(&self, room: Room, after: Option<u64>) -> Page<Proposal> {
        page(room, self.proposals_after(after).cloned())
    }

    /// The invitations after this one.
    pub fn enrolment_page(&self, room: Room, after: Option<&Fingerprint>) -> Page<EnrolmentRecord> {
        page(room, self.enrolments_after(after).cloned())
    }

    /// The tasks after this one that a peer may see, as it may see them: a site those it may take or has taken, without
    /// the assignments of others; anyone else all.
    pub fn task_page(&self, room: Room, principal: &Principal, which: Which, after: Option<TaskId>) -> Page<TaskHead> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let seen = |id: &TaskId| self.head_for(principal, self.tasks.get(id)?);
        match (which, principal) {
            (Which::Open, _) => page(room, self.index.open().range((from, Bound::Unbounded)).filter_map(seen)),
            (Which::All, Principal::Site(site)) => {
                // Of all that there ever was, a site sees little: it is not looked for among the rest.
                let tasks = self.index.tasks_of(site, from, room.items + 1);
                page(room, tasks.iter().filter_map(seen))
            }
            (Which::All, _) => page(room, self.tasks.range((from, Bound::Unbounded)).filter_map(|(id, _)| seen(id))),
        }
    }

    /// One task as a peer may see it; see [`Self::task_page`].
    pub fn task_head(&self, principal: &Principal, id: TaskId) -> Option<TaskHead> {
        self.head_for(principal, self.tasks.get(&id)?)
    }

    /// The assignments of a task after this site's, as far as a peer may see them.
    pub fn assignment_page(
        &self,
        room: Room,
        principal: &Principal,
        id: TaskId,
        after: Option<&SiteId>,
    ) -> Option<Page<(SiteId, AssignmentHead)>> {
        let task = self.tasks.get(&id).filter(|task| self.sees(principal, task))?;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = task.assignments.range::<SiteId, _>((from, Bound::Unbounded));
        let seen = rest.filter(|(site, _)| may_see(principal, site));
        Some(page(room, seen.map(|(site, assignment)| (site.clone(), AssignmentHead::from(assignment)))))
    }

    /// What a site handed in for a task, after this condition, as far as a peer may see it.
    pub fn submission_page(
        &self,
        room: Room,
        principal: &Principal,
        (id, site): (TaskId, &SiteId),
        after: Option<&ConditionKey>,
    ) -> Option<Page<(ConditionKey, SubmittedCondition)>> {
        let task = self.tasks.get(&id).filter(|task| self.sees(principal, task) && may_see(principal, site))?;
        let AssignmentState::Accepted { submission, .. } = &task.assignments.get(site)?.state else { return None };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = submission.conditions.range::<ConditionKey, _>((from, Bound::Unbounded));
        Some(page(room, rest.map(|(key, condition)| (key.clone(), condition.clone()))))
    }

    /// The whole tasks that a peer of an earlier protocol may see, as it may see them. A site sees no assignment of others.
    /// None if there is too much of it for one answer.
    pub fn tasks_for(&self, principal: &Principal) -> Option<Vec<TaskRecord>> {
        let mut room = limits::PAGE_BYTES as u64;
        let mut seen = Vec::new();
        let mut see = |task: &TaskRecord| {
            room = room.checked_sub(weight(principal, task)?)?;
            seen.push(as_seen_by(principal, task));
            Some(())
        };
        match principal {
            Principal::Site(site) => {
                let tasks = self.index.tasks_of(site, Bound::Unbounded, usize::MAX);
                let mut tasks = tasks.iter().filter_map(|id| self.tasks.get(id));
                tasks.by_ref().filter(|task| self.sees(principal, task)).try_for_each(&mut see)?;
            }
            _ => self.tasks.values().try_for_each(&mut see)?,
        }
        Some(seen)
    }

    /// One whole task as a peer of an earlier protocol may see it. None inside if there is too much of it.
    pub fn task_for(&self, principal: &Principal, id: TaskId) -> Option<Option<TaskRecord>> {
        let task = self.tasks.get(&id).filter(|task| self.sees(principal, task))?;
        Some(weight(principal, task).map(|_| as_seen_by(principal, task)))
    }

    /// How much there is.
    pub fn counts(&self) -> Counts {
        Counts {
            references: self.references.len() as u64,
            sites: self.sites.values().filter(|site| site.revoked_ms.is_none()).count() as u64,
            open_tasks: self.index.open().len() as u64,
        }
    }

    /// The answer that a request got, if it was carried out and is remembered. Who refuses a request before it is put
    /// into the log looks here first: it may be a repetition whose first answer was lost on the way.
    pub fn answered(&self, principal: &Principal, key: [u8; 16]) -> Option<&crate::Outcome> {
        self.requests.answered(principal, key)
    }

    /// Blobs that the state names, after this one: some thousands at a time. All others may be collected once no transfer
    /// needs them. Blobs of withdrawn conditions stay, for audit.
    pub fn named_blobs(&self, after: Option<BlobRef>) -> Vec<BlobRef> {
        if mutation::is_broken(Rule::KeepNamedBlobs) {
            let needed = self
                .references
                .values()
                .flat_map(|reference| std::iter::once(reference.base()).chain(reference.columns().values().copied()));
            return needed.filter(|blob| after.is_none_or(|after| *blob > after)).collect();
        }
        self.index.named_after(after, limits::PAGE_ITEMS)
    }

    /// All blobs that the state names; for tests and the simulation.
    pub fn referenced_blobs(&self) -> BTreeSet<BlobRef> {
        let mut all = BTreeSet::new();
        loop {
            let next = self.named_blobs(all.last().copied());
            if next.is_empty() {
                return all;
            }
            all.extend(next);
        }
    }

    /// Whether the state names a blob.
    pub fn names(&self, blob: &BlobRef) -> bool {
        self.index.names(blob)
    }

    /// Bytes of the blobs of a site's accepted submissions, each counted once.
    pub fn stored_bytes(&self, site: &SiteId) -> u64 {
        self.index.bytes_of(site)
    }

    /// Whether a peer may download a blob. A site gets what belongs to the current version of a reference, which is all
    /// that a task can need, and its own submissions: neither what was withdrawn nor the embeddings of others.
    pub fn may_fetch(&self, principal: &Principal, digest: &Digest) -> bool {
        let Principal::Site(site) = principal else { return true };
        if self.require_enrolled(site).is_err() {
            return false;
        }
        self.index.is_of(site, digest) || self.references.values().any(|reference| reference.needs(digest))
    }

    fn head_for(&self, principal: &Principal, task: &TaskRecord) -> Option<TaskHead> {
        if !self.sees(principal, task) {
            return None;
        }
        let own = match principal {
            Principal::Site(site) => task.assignments.get(site).map(AssignmentHead::from),
            _ => None,
        };
        let (n_assigned, n_accepted) = match principal {
            Principal::Site(_) => (
                u64::from(own.is_some()),
                u64::from(own.as_ref().is_some_and(|own| matches!(own.stage, Stage::Accepted { .. }))),
            ),
            _ => (task.assignments.len() as u64, self.index.n_accepted(task.id)),
        };
        Some(TaskHead {
            id: task.id,
            task: task.task.clone(),
            publisher: task.publisher.clone(),
            published_ms: task.published_ms,
            state: task.state.clone(),
            n_assigned,
            n_accepted,
            own,
        })
    }

    fn sees(&self, principal: &Principal, task: &TaskRecord) -> bool {
        let Principal::Site(site) = principal else { return true };
        let may_take = task.state == TaskState::Open && task.task.allows(site);
        self.require_enrolled(site).is_ok() && (may_take || task.assignments.contains_key(site))
    }
}

/// Whether a peer sees an assignment of this site.
fn may_see(principal: &Principal, site: &SiteId) -> bool {
    !matches!(principal, Principal::Site(asker) if asker != site)
}

fn as_seen_by(principal: &Principal, task: &TaskRecord) -> TaskRecord {
    let seen = task.assignments.iter().filter(|(site, _)| may_see(principal, site));
    let assignments = seen.map(|(site, assignment)| (site.clone(), assignment.clone())).collect();
    TaskRecord {
        id: task.id,
        task: task.task.clone(),
        publisher: task.publisher.clone(),
        published_ms: task.published_ms,
        state: task.state.clone(),
        assignments,
    }
}

/// Bytes of a task as a peer sees it; none if it is too much for one answer, which is noticed without looking at all of it.
fn weight(principal: &Principal, task: &TaskRecord) -> Option<u64> {
    let mut bytes = codec::size(&task.task).saturating_add(ITEM_BYTES);
    for (site, assignment) in &task.assignments {
        if !may_see(principal, site) {
            continue;
        }
        bytes = bytes.saturating_add(match &assignment.state {
            AssignmentState::Accepted { submission, .. } => {
                ITEM_BYTES.saturating_mul(2 + submission.conditions.len() as u64)
            }
            AssignmentState::GivenUp { reason } => ITEM_BYTES + reason.len() as u64,
            AssignmentState::Assigned | AssignmentState::Lapsed => ITEM_BYTES,
        });
        if bytes > limits::PAGE_BYTES as u64 {
            return None;
        }
    }
    Some(bytes)
}

/// As many of these as an answer may have, and whether there are more.
pub fn page<T: Serialize>(room: Room, mut items: impl Iterator<Item = T>) -> Page<T> {
    let (mut taken, mut n_bytes) = (Vec::new(), 0);
    while (taken.len() < room.items && n_bytes < room.bytes) || mutation::is_broken(Rule::PagesEnd) {
        let Some(item) = items.next() else { return Page { items: taken, more: false } };
        n_bytes += codec::size(&item);
        taken.push(item);
    }
    Page { more: items.next().is_some(), items: taken }
}

/// Conditions of one change that are shown with it.
const CHANGE_ITEMS: usize = 64;
/// Bytes of a name, a condition with its metrics, or an assignment, at most.
const ITEM_BYTES: u64 = 512;
