//! References and how one version follows another: publish, merge, withdraw.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use archipelago_common::{
    BlobRef, ConditionKey, Layout, Name, Principal, Role, Section, SiteId, TaskId, Version, VersionId, limits,
    record::{AssignmentRecord, AssignmentState, BaseSummary, TaskRecord},
    task::PublishMode,
};

use crate::{
    Cluster, Edition, Outcome, Reference, Refusal, Selection, growth,
    mutation::{self, Rule},
    site,
};

impl Cluster {
    /// What versions of a reference hold.
    pub fn layout(&self, name: &Name) -> Option<Cow<'_, Layout>> {
        let plain = || Some(Cow::Owned(self.references.get(name)?.summary().layout()));
        self.layouts.get(name).map(Cow::Borrowed).or_else(plain)
    }

    pub(crate) fn require_layout(&self, name: &Name) -> Result<Cow<'_, Layout>, Refusal> {
        self.layout(name).ok_or_else(|| Refusal::not_found(format!("reference `{name}`")))
    }

    pub(crate) fn publish_unsigned_reference(
        &mut self,
        principal: &Principal,
        (name, version): (&Name, &Version),
        (summary, layout): (&BaseSummary, &Layout),
    ) -> Result<Outcome, Refusal> {
        self.require_signed("reference", false)?;
        self.publish_reference(principal, name, version, summary, layout)
    }

    pub(crate) fn publish_reference(
        &mut self,
        principal: &Principal,
        name: &Name,
        version: &Version,
        summary: &BaseSummary,
        layout: &Layout,
    ) -> Result<Outcome, Refusal> {
        let (publisher, n_bytes) = self.require_publishable(principal, name, version, summary, layout)?;
        let reference = Reference::new(name.clone(), publisher.clone(), summary.clone(), version, self.now_ms);
        let current = reference.current();
        self.index.published(&reference);
        self.references.insert(name.clone(), reference);
        if !layout.is_plain() {
            self.layouts.insert(name.clone(), layout.clone());
        }
        self.grew(n_bytes);
        Ok(Outcome::Reference { name: name.clone(), version: current })
    }

    /// Who publishes a reference, and the bytes that it takes, if it can be published.
    pub(crate) fn require_publishable<'a>(
        &self,
        principal: &'a Principal,
        name: &Name,
        version: &Version,
        summary: &BaseSummary,
        layout: &Layout,
    ) -> Result<(&'a Name, u64), Refusal> {
        let publisher = site::require_role(principal, Role::Publisher)?;
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
        let n_bytes = growth::bytes_of(version) + growth::bytes_of(summary) + growth::bytes_of(layout);
        self.require_growth(n_bytes)?;
        Ok((publisher, n_bytes))
    }

    pub(crate) fn withdraw(
        &mut self,
        principal: &Principal,
        reference: &Name,
        selection: &Selection,
    ) -> Result<Outcome, Refusal> {
        let (by, keys) = self.require_withdrawable(principal, reference, selection)?;
        let by = by.clone();
        let record = self.require_reference(reference)?;
        let merged: BTreeMap<_, _> =
            keys.iter().filter_map(|key| Some((key.clone(), *record.columns().get(key)?))).collect();
        if !merged.is_empty() {
            self.grew(growth::bytes_of(&merged));
            let now_ms = self.now_ms;
            self.reference_mut(reference).withdraw(by, merged, now_ms);
        }
        self.drop_waiting(reference, &keys);
        Ok(Outcome::Reference { name: reference.clone(), version: self.require_reference(reference)?.current() })
    }

    /// Under which name conditions are withdrawn, and which, if they can be.
    pub(crate) fn require_withdrawable<'a>(
        &self,
        principal: &'a Principal,
        reference: &Name,
        selection: &Selection,
    ) -> Result<(&'a Name, BTreeSet<ConditionKey>), Refusal> {
        let by = self.require_withdrawer(principal, selection)?;
        Ok((by, select(self.require_reference(reference)?, selection)?))
    }

    /// Adds the conditions of a task to the current version. Conditions that are there already make no new version: a
    /// merge is idempotent.
    ///
    /// # Errors  [`Refusal::Conflict`] where a key is present with other columns; the state is then as before
    pub(crate) fn merge(
        &mut self,
        reference: &Name,
        task: TaskId,
        columns: &BTreeMap<ConditionKey, BlobRef>,
    ) -> Result<VersionId, Refusal> {
        let record = self.require_reference(reference)?;
        let present = |key: &ConditionKey| record.columns().get(key);
        let overwrites = mutation::is_broken(Rule::NoCollision);
        if let Some(key) = columns.iter().find_map(|(key, c)| (present(key)? != c && !overwrites).then_some(key)) {
            return Err(Refusal::conflict(format!("condition `{key}` is present with other columns")));
        }
        let is_new = |(key, c): &(&ConditionKey, &BlobRef)| present(key).is_none_or(|there| overwrites && there != *c);
        let mut new: BTreeMap<_, _> = columns.iter().filter(is_new).map(|(key, c)| (key.clone(), *c)).collect();
        if mutation::is_broken(Rule::PartOnce) {
            let again = columns.iter().filter(|(key, _)| key.is_part() && present(key).is_some());
            new.extend(again.filter_map(|(key, c)| Some((format!("{key}'").parse().ok()?, *c))));
        }
        if new.is_empty() {
            return Ok(record.current());
        }
        self.index.merged(new.values());
        let now_ms = self.now_ms;
        Ok(self.reference_mut(reference).merge(task, new, now_ms))
    }

    /// Refuses work on a version that the reference never had. In the first edition also on one of which something was
    /// withdrawn since: columns were thought to depend on it. They depend on the base alone, and a withdrawal is no
    /// reason to throw others' work away.
    pub(crate) fn require_live(&self, reference: &Name, version: VersionId) -> Result<&Reference, Refusal> {
        match self.edition {
            Edition::First => self.require_unspoilt(reference, version),
            _ => {
                let record = self.require_reference(reference)?;
                match record.has(version) && !mutation::is_broken(Rule::WorkOutlivesWithdrawal) {
                    true => Ok(record),
                    false => self.require_unspoilt(reference, version),
                }
            }
        }
    }

    /// Refuses a version that holds conditions which were withdrawn since: no new task begins there.
    pub(crate) fn require_unspoilt(&self, reference: &Name, version: VersionId) -> Result<&Reference, Refusal> {
        let record = self.require_reference(reference)?;
        if !record.has(version) {
            return Err(Refusal::not_found(format!("version `{version}` of reference `{reference}`")));
        }
        match record.withdrawn_since(version) {
            None => Ok(record),
            Some(key) => Err(Refusal::stale(format!(
                "version `{}` is superseded: condition `{key}` was withdrawn from reference `{reference}`",
                version.0.short()
            ))),
        }
    }

    pub(crate) fn require_reference(&self, name: &Name) -> Result<&Reference, Refusal> {
        self.references.get(name).ok_or_else(|| Refusal::not_found(format!("reference `{name}`")))
    }

    /// A reference that the caller has looked up.
    pub(crate) fn reference_mut(&mut self, name: &Name) -> &mut Reference {
        self.references.get_mut(name).expect("the caller has looked the reference up")
    }

    /// Takes keys out of accepted submissions that wait for their task to close.
    fn drop_waiting(&mut self, reference: &Name, keys: &BTreeSet<ConditionKey>) {
        let ids: Vec<TaskId> = self.waiting_tasks(reference).map(|task| task.id).collect();
        for id in ids {
            let waits = |(_, assignment): &(&SiteId, &AssignmentRecord)| match &assignment.state {
                AssignmentState::Accepted { submission, version: None, .. } => {
                    keys.iter().any(|key| submission.conditions.contains_key(key))
                }
                _ => false,
            };
            let concerned = self.tasks[&id].assignments.iter().filter(waits);
            let concerned: Vec<_> = concerned.map(|(site, assignment)| (site.clone(), assignment.clone())).collect();
            for (site, mut assignment) in concerned {
                let AssignmentState::Accepted { submission, .. } = &mut assignment.state else { continue };
                submission.conditions.retain(|key, _| !keys.contains(key));
                if submission.conditions.is_empty() {
                    assignment.state =
                        AssignmentState::GivenUp { reason: "withdrawn before the task closed".to_owned() };
                }
                self.assign(id, &site, assignment);
            }
        }
    }

    /// Open tasks of a reference whose accepted submissions wait for their close.
    fn waiting_tasks(&self, reference: &Name) -> impl Iterator<Item = &TaskRecord> {
        let waits =
            move |task: &&TaskRecord| task.task.publish == PublishMode::AtClose && task.task.reference == *reference;
        self.open_tasks().filter(waits)
    }

    /// The name under which a withdrawal is recorded. A site may select its own conditions, a publisher any.
    pub(crate) fn require_withdrawer<'a>(
        &self,
        principal: &'a Principal,
        selection: &Selection,
    ) -> Result<&'a Name, Refusal> {
        if !matches!(principal, Principal::Site(_)) {
            return site::require_role(principal, Role::Publisher);
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

/// The keys that a selection means, all of them merged or waiting.
fn select(reference: &Reference, selection: &Selection) -> Result<BTreeSet<ConditionKey>, Refusal> {
    let is_there = |key: &ConditionKey| reference.columns().contains_key(key) || reference.waits(key).is_some();
    match selection {
        Selection::Site(owner) => {
            let all = reference.columns().keys().chain(reference.waiting().map(|(key, _)| key));
            let keys: BTreeSet<_> = all.filter(|key| key.owner() == owner).cloned().collect();
            if keys.is_empty() {
                return Err(Refusal::not_found(format!("condition of `{owner}` in the reference")));
            }
            Ok(keys)
        }
        Selection::Keys(keys) if keys.is_empty() => {
            Err(Refusal::invalid("the withdrawal names no condition, expected at least 1"))
        }
        Selection::Keys(keys) => match keys.iter().find(|key| !is_there(key)) {
            None => Ok(with_parts(reference, keys)),
            Some(key) => Err(Refusal::not_found(format!("condition `{key}` in the reference"))),
        },
    }
}

/// Keys, and for those of conditions what the same cells contributed to parts: it goes where they go.
fn with_parts(reference: &Reference, keys: &[ConditionKey]) -> BTreeSet<ConditionKey> {
    let conditions: BTreeSet<_> = keys.iter().filter(|key| *key.section() == Section::Condition).collect();
    let is_of_them =
        |key: &&ConditionKey| key.is_part() && conditions.contains(&(*key).clone().in_section(Section::Condition));
    let there = reference.columns().keys().chain(reference.waiting().map(|(key, _)| key));
    there.filter(is_of_them).chain(keys).cloned().collect()
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
