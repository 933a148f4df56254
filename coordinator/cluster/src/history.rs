//! A reference and how its versions followed one another, kept as changes: what each version added or took out, never what
//! it holds. So a thousand merges cost what they merged, and not the square of it.
//!
//! What the current version holds is kept beside them, as is an index of versions and blobs; both are made anew when a
//! state is restored. An earlier version is found by taking back the changes since.

use std::{collections::BTreeMap, ops::Bound};

use archipelago_common::{
    BlobRef, ConditionKey, Digest, Name, SiteId, TaskId, Version, VersionId,
    record::{BaseSummary, Cause, Change, Event, ReferenceHead, ReferenceHistory, ReferenceRecord, Why},
};
use serde::{Deserialize, Serialize};

/// A reference model under its name.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Reference {
    name: Name,
    publisher: Name,
    summary: BaseSummary,
    base: BlobRef,
    changes: Vec<Change>,
    #[serde(skip)]
    now: Now,
}

/// What follows from the changes.
#[derive(Clone, PartialEq, Debug, Default)]
struct Now {
    columns: BTreeMap<ConditionKey, BlobRef>,
    /// How many conditions of the current version have columns of this digest.
    uses: BTreeMap<Digest, u32>,
    /// What was derived from the current version, by value.
    derived: BTreeMap<Name, BlobRef>,
    /// By version, the first change that led to it.
    firsts: BTreeMap<VersionId, usize>,
    n_merged: usize,
    /// Accepted for tasks that are still to close: their columns, and for how many tasks.
    waiting: BTreeMap<ConditionKey, (BlobRef, u32)>,
}

impl Reference {
    /// A reference that was just published.
    pub(crate) fn new(name: Name, publisher: Name, summary: BaseSummary, first: &Version, at_ms: u64) -> Self {
        let change = Change { version: first.id(), why: Why::Published, at_ms, columns: first.columns.clone() };
        let changes = vec![change];
        let mut reference = Self { name, publisher, summary, base: first.base, changes, now: Now::default() };
        reference.index();
        reference
    }

    /// A reference as it was kept before format 3 of the state.
    ///
    /// # Errors  in words, where the record contradicts itself
    pub(crate) fn of_record(record: ReferenceRecord) -> Result<Self, String> {
        let ReferenceRecord { name, publisher, summary, lineage, versions, .. } = record;
        let lost = || format!("`{name}` has a lineage of versions that it does not have");
        let mut changes: Vec<Change> = Vec::new();
        for event in &lineage {
            let version = versions.get(&event.version).ok_or_else(lost)?;
            let before = changes.last().map(|change| change.version);
            let before = before.map(|id| versions.get(&id).ok_or_else(lost)).transpose()?;
            changes.push(change_of(event, before, version).ok_or_else(lost)?);
        }
        let base = versions.values().next().ok_or_else(lost)?.base;
        let mut reference = Self { name, publisher, summary, base, changes, now: Now::default() };
        reference.index();
        Ok(reference)
    }

    /// Makes what follows from the changes, but for what waits.
    pub(crate) fn index(&mut self) {
        self.now = Now::default();
        for (change_idx, change) in self.changes.iter().enumerate() {
            self.now.follow(change_idx, change);
        }
    }

    /// Its name in the consortium.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The operator who published it.
    pub fn publisher(&self) -> &Name {
        &self.publisher
    }

    /// What its base is.
    pub fn summary(&self) -> &BaseSummary {
        &self.summary
    }

    /// The base of all its versions.
    pub fn base(&self) -> BlobRef {
        self.base
    }

    /// The version that new tasks map onto.
    pub fn current(&self) -> VersionId {
        self.changes.last().expect("a reference begins with its publication").version
    }

    /// What the current version holds.
    pub fn columns(&self) -> &BTreeMap<ConditionKey, BlobRef> {
        &self.now.columns
    }

    /// Every step from the first version to the current one.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Whether a version is or was one of this reference.
    pub fn has(&self, version: VersionId) -> bool {
        self.now.firsts.contains_key(&version)
    }

    /// What there is to know of it without its history.
    pub fn head(&self) -> ReferenceHead {
        ReferenceHead {
            name: self.name.clone(),
            publisher: self.publisher.clone(),
            summary: self.summary.clone(),
            base: self.base,
            current: self.current(),
            n_conditions: self.now.columns.len() as u64,
            n_changes: self.changes.len() as u64,
        }
    }

    /// All there is to know of it; for tests and audits.
    pub fn history(&self) -> ReferenceHistory {
        ReferenceHistory { head: self.head(), changes: self.changes.clone() }
    }

    /// What a version holds after condition `after`, `most` of it at most: of one owner only, where one is named.
    pub fn page(
        &self,
        version: VersionId,
        owner: Option<&SiteId>,
        after: Option<&ConditionKey>,
        most: usize,
    ) -> Option<Vec<(ConditionKey, BlobRef)>> {
        let (until, since) = self.changes.split_at(self.now.firsts.get(&version)? + 1);
        let is_meant = |key: &ConditionKey| owner.is_none_or(|owner| key.owner() == owner);
        let size = |changes: &[Change]| changes.iter().map(|change| change.columns.len()).sum::<usize>();
        if size(until) < size(since) {
            return Some(replay(until, after, &is_meant, most));
        }
        let mut found = Vec::new();
        let mut from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.clone()));
        // Some of the current version at a time, so that few of the changes are looked at for a page.
        while found.len() < most {
            let next = self.now.columns.range((from.clone(), Bound::Unbounded)).nth(WINDOW);
            let until = next.map_or(Bound::Unbounded, |(key, _)| Bound::Included(key.clone()));
            self.find((from, until.clone()), since, &is_meant, &mut found);
            match until {
                Bound::Included(key) => from = Bound::Excluded(key),
                _ => break,
            }
        }
        found.truncate(most);
        Some(found)
    }

    /// Adds what the version before some changes held between two conditions.
    fn find(
        &self,
        between: (Bound<ConditionKey>, Bound<ConditionKey>),
        since: &[Change],
        is_meant: &dyn Fn(&ConditionKey) -> bool,
        found: &mut Vec<(ConditionKey, BlobRef)>,
    ) {
        // From the latest change back: what was there before the earliest of them counts.
        let mut before: BTreeMap<&ConditionKey, Option<BlobRef>> = BTreeMap::new();
        for change in since.iter().rev() {
            for (key, blob) in change.columns.range(between.clone()).filter(|(key, _)| is_meant(key)) {
                before.insert(key, (!change.adds()).then_some(*blob));
            }
        }
        let gone = before.iter().filter_map(|(key, blob)| Some((*key, (*blob)?)));
        let stayed = self.now.columns.range(between).filter(|(key, _)| is_meant(key) && !before.contains_key(key));
        let held = merge_by_key(stayed.map(|(key, blob)| (key, *blob)), gone);
        found.extend(held.map(|(key, blob)| (key.clone(), blob)));
    }

    /// One version as a whole; for tests and audits.
    pub fn version(&self, version: VersionId) -> Option<Version> {
        let columns = self.page(version, None, None, usize::MAX)?.into_iter().collect();
        Some(Version { base: self.base, columns })
    }

    /// A condition of a version that is not in the current one, or there with other columns.
    pub(crate) fn withdrawn_since(&self, version: VersionId) -> Option<ConditionKey> {
        let first = *self.now.firsts.get(&version)?;
        if self.changes[first + 1..].iter().all(Change::adds) {
            return None;
        }
        let held = self.page(version, None, None, usize::MAX)?;
        held.into_iter().find(|(key, blob)| self.now.columns.get(key) != Some(blob)).map(|(key, _)| key)
    }

    /// Whether the current version, or its base, needs a blob.
    pub(crate) fn needs(&self, digest: &Digest) -> bool {
        let is_derived = || self.now.derived.values().any(|result| result.digest == *digest);
        self.base.digest == *digest || self.now.uses.contains_key(digest) || is_derived()
    }

    /// Conditions that were ever merged, or published at first.
    pub(crate) fn n_merged(&self) -> usize {
        self.now.n_merged
    }

    /// Conditions that wait for the close of a task; their keys are taken.
    pub(crate) fn waiting(&self) -> impl ExactSizeIterator<Item = (&ConditionKey, BlobRef)> {
        self.now.waiting.iter().map(|(key, (columns, _))| (key, *columns))
    }

    /// The columns that wait for a close under a key.
    pub(crate) fn waits(&self, key: &ConditionKey) -> Option<BlobRef> {
        self.now.waiting.get(key).map(|(columns, _)| *columns)
    }

    /// One more task has this condition waiting for its close.
    pub(crate) fn begin_to_wait(&mut self, key: &ConditionKey, columns: BlobRef) {
        self.now.waiting.entry(key.clone()).or_insert((columns, 0)).1 += 1;
    }

    /// One task less has it waiting.
    pub(crate) fn end_to_wait(&mut self, key: &ConditionKey) {
        if let Some((_, n_tasks)) = self.now.waiting.get_mut(key) {
            *n_tasks -= 1;
            if *n_tasks == 0 {
                self.now.waiting.remove(key);
            }
        }
    }

    /// Adds conditions, none of which may be there. The version that comes of it is the current one.
    pub(crate) fn merge(&mut self, task: TaskId, columns: BTreeMap<ConditionKey, BlobRef>, at_ms: u64) -> VersionId {
        self.follow(Why::Merged { task }, columns, at_ms)
    }

    /// Takes conditions out, all of which are there.
    pub(crate) fn withdraw(&mut self, by: Name, columns: BTreeMap<ConditionKey, BlobRef>, at_ms: u64) -> VersionId {
        self.follow(Why::Withdrawn { by }, columns, at_ms)
    }

    /// What was derived from the current version under this name.
    pub fn derived(&self, value: &Name) -> Option<BlobRef> {
        self.now.derived.get(value).copied()
    }

    /// Notes what was derived from the current version, which stays what it is.
    pub(crate) fn derive(&mut self, why: Why, at_ms: u64) -> VersionId {
        self.follow(why, BTreeMap::new(), at_ms)
    }

    fn follow(&mut self, why: Why, columns: BTreeMap<ConditionKey, BlobRef>, at_ms: u64) -> VersionId {
        let mut change = Change { version: self.current(), why, at_ms, columns };
        let change_idx = self.changes.len();
        self.now.change(&change);
        change.version = Version::id_of(self.base, &self.now.columns);
        self.now.firsts.entry(change.version).or_insert(change_idx);
        let version = change.version;
        self.changes.push(change);
        version
    }
}

impl Now {
    fn follow(&mut self, change_idx: usize, change: &Change) {
        self.change(change);
        self.firsts.entry(change.version).or_insert(change_idx);
    }

    fn change(&mut self, change: &Change) {
        if let Why::Derived { value, result, .. } = &change.why {
            self.derived.insert(value.clone(), *result);
            return;
        }
        // What was derived from the version before is not what would be derived from the next one.
        self.derived.clear();
        if !change.adds() {
            for (key, blob) in &change.columns {
                self.columns.remove(key);
                self.forget(blob);
            }
            return;
        }
        self.n_merged += change.columns.len();
        for (key, blob) in &change.columns {
            // Nothing is ever overwritten, but where a rule is broken on purpose.
            if let Some(before) = self.columns.insert(key.clone(), *blob) {
                self.forget(&before);
            }
            *self.uses.entry(blob.digest).or_default() += 1;
        }
    }

    fn forget(&mut self, blob: &BlobRef) {
        if let Some(uses) = self.uses.get_mut(&blob.digest) {
            *uses -= 1;
            if *uses == 0 {
                self.uses.remove(&blob.digest);
            }
        }
    }
}

/// The change between two versions of a lineage.
fn change_of(event: &Event, before: Option<&Version>, after: &Version) -> Option<Change> {
    let pick = |keys: &[ConditionKey], from: &Version| {
        keys.iter().map(|key| Some((key.clone(), *from.columns.get(key)?))).collect::<Option<_>>()
    };
    let (why, columns) = match &event.cause {
        Cause::Published => (Why::Published, after.columns.clone()),
        Cause::Merged { task, keys } => (Why::Merged { task: *task }, pick(keys, after)?),
        Cause::Withdrawn { by, keys } => (Why::Withdrawn { by: by.clone() }, pick(keys, before?)?),
        Cause::Derived { by, value, function, result } => {
            let (by, value, function) = (by.clone(), value.clone(), function.clone());
            (Why::Derived { by, value, function, result: *result }, BTreeMap::new())
        }
    };
    Some(Change { version: event.version, why, at_ms: event.at_ms, columns })
}

/// What changes from the first on lead to, after a condition.
fn replay(
    changes: &[Change],
    after: Option<&ConditionKey>,
    is_meant: &dyn Fn(&ConditionKey) -> bool,
    most: usize,
) -> Vec<(ConditionKey, BlobRef)> {
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut held: BTreeMap<&ConditionKey, BlobRef> = BTreeMap::new();
    for change in changes {
        let concerned = change.columns.range::<ConditionKey, _>((from, Bound::Unbounded));
        for (key, blob) in concerned.filter(|(key, _)| is_meant(key)) {
            match change.adds() {
                true => drop(held.insert(key, *blob)),
                false => drop(held.remove(key)),
            }
        }
    }
    held.into_iter().take(most).map(|(key, blob)| (key.clone(), blob)).collect()
}

/// Two lists in the order of their keys as one; no key is in both.
fn merge_by_key<'a>(
    left: impl Iterator<Item = (&'a ConditionKey, BlobRef)>,
    right: impl Iterator<Item = (&'a ConditionKey, BlobRef)>,
) -> impl Iterator<Item = (&'a ConditionKey, BlobRef)> {
    let (mut left, mut right) = (left.peekable(), right.peekable());
    std::iter::from_fn(move || match (left.peek(), right.peek()) {
        (Some((one, _)), Some((other, _))) if other < one => right.next(),
        (Some(_), _) => left.next(),
        (None, _) => right.next(),
    })
}

/// Conditions of the current version that are looked at together.
const WINDOW: usize = 2_048;
