//! References and how one version follows another: publish, merge, withdraw.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use archipelago_common::{
    BlobRef, ConditionKey, Layout, Name, Principal, SiteId, TaskId, Version, VersionId, limits,
    record::{AssignmentState, BaseSummary, Cause, Event, ReferenceRecord, TaskRecord, TaskState},
    task::PublishMode,
};

use crate::{
    Cluster, Outcome, Refusal, Selection,
    mutation::{self, Rule},
    site,
};

impl Cluster {
    /// What versions of a reference hold.
    pub fn layout(&self, name: &Name) -> Option<Cow<'_, Layout>> {
        let plain = || Some(Cow::Owned(self.references.get(name)?.summary.layout()));
        self.layouts.get(name).map(Cow::Borrowed).or_else(plain)
    }

    pub(crate) fn require_layout(&self, name: &Name) -> Result<Cow<'_, Layout>, Refusal> {
        self.layout(name).ok_or_else(|| Refusal::not_found(format!("reference `{name}`")))
    }

    pub(crate) fn publish_reference(
        &mut self,
        principal: &Principal,
        name: &Name,
        version: &Version,
        summary: &BaseSummary,
        layout: &Layout,
    ) -> Result<Outcome, Refusal> {
        let publisher = site::require_operator(principal)?;
        if self.references.contains_key(name) {
            let reason =
                format!("a reference `{name}` is there already; a new base is a new reference: choose another name");
            return Err(Refusal::conflict(reason));
        }
        site::require_room("references", self.references.len(), limits::REFERENCES)?;
        self.require_own_namespace(publisher, version)?;
        require_sizes(version, summary)?;
        layout.check().map_err(|e| Refusal::invalid(e.to_string()))?;
        require_known(layout, version.columns.keys())?;
        let current = version.id();
        let first = Event { version: current, parent: None, cause: Cause::Published, at_ms: self.now_ms };
        let record = ReferenceRecord {
            name: name.clone(),
            publisher: publisher.clone(),
            summary: summary.clone(),
            current,
            lineage: vec![first],
            versions: BTreeMap::from([(current, version.clone())]),
        };
        self.references.insert(name.clone(), record);
        if !layout.is_plain() {
            self.layouts.insert(name.clone(), layout.clone());
        }
        Ok(Outcome::Reference { name: name.clone(), version: current })
    }

    pub(crate) fn withdraw(
        &mut self,
        principal: &Principal,
        reference: &Name,
        selection: &Selection,
    ) -> Result<Outcome, Refusal> {
        let by = self.require_withdrawer(principal, selection)?.clone();
        let record = self.require_reference(reference)?;
        let waiting: BTreeSet<_> = self.waiting(reference).map(|(key, _)| key.clone()).collect();
        let keys = select(current(record), &waiting, selection)?;
        let merged: Vec<_> = keys.iter().filter(|key| current(record).columns.contains_key(key)).cloned().collect();
        if !merged.is_empty() {
            let rest = current(record).without(&merged).map_err(|e| Refusal::not_found(e.to_string()))?;
            self.follow(reference, rest, Cause::Withdrawn { by, keys: merged });
        }
        self.drop_waiting(reference, &keys);
        Ok(Outcome::Reference { name: reference.clone(), version: self.require_reference(reference)?.current })
    }

    /// The current version with the conditions of a task added to it. Conditions that are there already make no new
    /// version: a merge is idempotent.
    ///
    /// # Errors  [`Refusal::Conflict`] where a key is present with other columns; the state is then as before
    pub(crate) fn merge(
        &mut self,
        reference: &Name,
        task: TaskId,
        columns: &BTreeMap<ConditionKey, BlobRef>,
    ) -> Result<VersionId, Refusal> {
        let record = self.require_reference(reference)?;
        let mut merged = current(record).merged(columns);
        if mutation::is_broken(Rule::NoCollision) {
            let overwritten = current(record).columns.clone().into_iter().chain(columns.clone()).collect();
            merged = Ok(Version { columns: overwritten, ..current(record).clone() });
        }
        let merged = merged.map_err(|e| Refusal::conflict(e.to_string()))?;
        let keys: Vec<_> = columns.keys().filter(|key| !current(record).columns.contains_key(key)).cloned().collect();
        if keys.is_empty() {
            return Ok(record.current);
        }
        Ok(self.follow(reference, merged, Cause::Merged { task, keys }))
    }

    /// Refuses work on a version that is not, or no longer, part of what the reference is.
    ///
    /// Versions grow by other sites' merges without harm to work in progress: the base is the same. A withdrawal is
    /// different, as columns may have been started from the withdrawn ones.
    pub(crate) fn require_live(&self, reference: &Name, version: VersionId) -> Result<&ReferenceRecord, Refusal> {
        let record = self.require_reference(reference)?;
        let trained = record
            .versions
            .get(&version)
            .ok_or_else(|| Refusal::not_found(format!("version `{version}` of reference `{reference}`")))?;
        let now = current(record);
        match trained.columns.iter().find(|(key, columns)| now.columns.get(key) != Some(columns)) {
            None => Ok(record),
            Some((key, _)) => Err(Refusal::stale(format!(
                "version `{}` is superseded: condition `{key}` was withdrawn from reference `{reference}`",
                version.0.short()
            ))),
        }
    }

    pub(crate) fn require_reference(&self, name: &Name) -> Result<&ReferenceRecord, Refusal> {
        self.references.get(name).ok_or_else(|| Refusal::not_found(format!("reference `{name}`")))
    }

    /// Makes `version` the current one. The caller has looked the reference up.
    fn follow(&mut self, reference: &Name, version: Version, cause: Cause) -> VersionId {
        let id = version.id();
        if let Some(record) = self.references.get_mut(reference) {
            let parent = Some(record.current);
            record.lineage.push(Event { version: id, parent, cause, at_ms: self.now_ms });
            record.versions.insert(id, version);
            record.current = id;
        }
        id
    }

    /// Takes keys out of accepted submissions that wait for their task to close.
    fn drop_waiting(&mut self, reference: &Name, keys: &BTreeSet<ConditionKey>) {
        let tasks = self.tasks.values_mut().filter(|task| task.task.reference == *reference);
        for assignment in tasks.filter(|task| is_waiting_task(task)).flat_map(|task| task.assignments.values_mut()) {
            let AssignmentState::Accepted { submission, version: None, .. } = &mut assignment.state else { continue };
            submission.conditions.retain(|key, _| !keys.contains(key));
            if submission.conditions.is_empty() {
                assignment.state = AssignmentState::GivenUp { reason: "withdrawn before the task closed".to_owned() };
            }
        }
    }

    /// The name under which a withdrawal is recorded. A site may select its own conditions, an operator any.
    fn require_withdrawer<'a>(&self, principal: &'a Principal, selection: &Selection) -> Result<&'a Name, Refusal> {
        if let Principal::Operator(name) = principal {
            return Ok(name);
        }
        let site = self.require_site(principal)?;
        let foreign: Option<&SiteId> = match selection {
            Selection::Site(owner) => Some(owner).filter(|owner| *owner != site),
            Selection::Keys(keys) => keys.iter().map(ConditionKey::owner).find(|owner| *owner != site),
        };
        match foreign {
            None => Ok(site.name()),
            Some(owner) => Err(Refusal::forbidden(format!("site `{site}` may not withdraw conditions of `{owner}`"))),
        }
    }

    /// The first conditions of a reference belong to its publisher, and no site has the publisher's name, so that
    /// keys of different owners cannot meet.
    fn require_own_namespace(&self, publisher: &Name, version: &Version) -> Result<(), Refusal> {
        if self.sites.contains_key(&SiteId::from(publisher.clone())) {
            let reason = format!("operator `{publisher}` has the name of a site; publish under another name");
            return Err(Refusal::conflict(reason));
        }
        match version.columns.keys().find(|key| key.owner().name() != publisher) {
            None => Ok(()),
            Some(key) => Err(Refusal::forbidden(format!(
                "condition `{key}` is not in the namespace of its publisher `{publisher}`; train with `--owner {publisher}`"
            ))),
        }
    }
}

/// The version that new tasks map onto.
pub(crate) fn current(record: &ReferenceRecord) -> &Version {
    &record.versions[&record.current]
}

/// Whether accepted submissions of a task may still wait for its close.
fn is_waiting_task(task: &TaskRecord) -> bool {
    task.state == TaskState::Open && task.task.publish == PublishMode::AtClose
}

/// The keys that a selection means, all of them merged or waiting.
fn select(
    current: &Version,
    waiting: &BTreeSet<ConditionKey>,
    selection: &Selection,
) -> Result<BTreeSet<ConditionKey>, Refusal> {
    match selection {
        Selection::Site(owner) => {
            let all = current.columns.keys().chain(waiting);
            let keys: BTreeSet<_> = all.filter(|key| key.owner() == owner).cloned().collect();
            if keys.is_empty() {
                return Err(Refusal::not_found(format!("condition of `{owner}` in the reference")));
            }
            Ok(keys)
        }
        Selection::Keys(keys) if keys.is_empty() => {
            Err(Refusal::invalid("the withdrawal names no condition, expected at least 1"))
        }
        Selection::Keys(keys) => {
            match keys.iter().find(|key| !current.columns.contains_key(key) && !waiting.contains(key)) {
                None => Ok(keys.iter().cloned().collect()),
                Some(key) => Err(Refusal::not_found(format!("condition `{key}` in the reference"))),
            }
        }
    }
}

/// Refuses a key of an axis or a part that the reference does not have.
pub(crate) fn require_known<'a>(
    layout: &Layout,
    keys: impl IntoIterator<Item = &'a ConditionKey>,
) -> Result<(), Refusal> {
    match keys.into_iter().find(|key| !layout.knows(key.section())) {
        None => Ok(()),
        Some(key) => Err(Refusal::invalid(format!("`{key}` belongs to {}, which the reference lacks", key.section()))),
    }
}

/// Bytes that the file of a key may have.
pub(crate) fn size_limit(key: &ConditionKey) -> u64 {
    if key.is_part() { limits::PART_BYTES } else { limits::COLUMNS_BYTES }
}

fn require_sizes(version: &Version, summary: &BaseSummary) -> Result<(), Refusal> {
    let within = |what: &str, found: u64, limit: u64| {
        if found <= limit {
            Ok(())
        } else {
            Err(Refusal::invalid(format!("the reference has {found} {what}, more than the limit of {limit}")))
        }
    };
    within("bytes in its base", version.base.size, limits::BLOB_BYTES)?;
    within("conditions", version.columns.len() as u64, limits::CONDITIONS as u64)?;
    within("genes", summary.n_genes, limits::GENES as u64)?;
    within("tensors per condition", summary.columns.len() as u64, limits::TENSORS as u64)?;
    within("characters in its model's name", summary.model.len() as u64, limits::NAME_LENGTH as u64)?;
    let mut files = version.columns.iter();
    files.try_for_each(|(key, blob)| within("bytes in the columns of a condition", blob.size, size_limit(key)))
}
