//! Erasure: conditions are withdrawn, and what they hold is named no more, so that every coordinator deletes it. Digests, lineage and
//! a receipt stay. What something else names is not deleted: the same bytes under another key, or handed in again since.
//!
//! What was derived from versions that held the condition is a sum over many, and stays.

use std::collections::{BTreeMap, BTreeSet};

use archipelago_common::{
    BlobRef, ConditionKey, Name, Principal, Section, TaskId,
    act::Erasure,
    record::{AssignmentState, Change, Page, SubmittedCondition, TaskRecord},
};
use serde::{Deserialize, Serialize};

use crate::{
    Cluster, Outcome, Refusal, Room, Selection, growth,
    index::Index,
    mutation::{self, Rule},
    view::page,
};

/// What was erased, and how often that was said.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Erasures {
    n_erased: u64,
    of: BTreeMap<(Name, ConditionKey), Erasure>,
}

impl Cluster {
    /// The receipts after this one, as far as somebody may see them: a site its own.
    pub fn erasure_page(&self, room: Room, who: &Principal, after: Option<&(Name, ConditionKey)>) -> Page<Erasure> {
        let own = match who {
            Principal::Site(site) => Some(site),
            _ => None,
        };
        let rest = self.erasures.of.iter().filter(|(place, _)| after.is_none_or(|after| *place > after));
        let seen = rest.filter(|((_, key), _)| own.is_none_or(|own| key.owner() == own));
        page(room, seen.map(|(_, erasure)| erasure.clone()))
    }

    /// What is to be on no disk since this erasure, and which was the last. Nothing that something else names is among it.
    pub fn erased_since(&self, seq: u64) -> (u64, BTreeSet<BlobRef>) {
        let since = self.erasures.of.values().filter(|erasure| erasure.seq > seq);
        let blobs =
            if self.erasures.n_erased > seq { since.flat_map(|e| e.blobs.iter()).collect() } else { Vec::new() };
        let is_free = |blob: &&BlobRef| !self.index.names(blob) || mutation::is_broken(Rule::NamedStays);
        (self.erasures.n_erased, blobs.into_iter().filter(is_free).copied().collect())
    }

    pub(crate) fn erase(
        &mut self,
        principal: &Principal,
        reference: &Name,
        selection: &Selection,
    ) -> Result<Outcome, Refusal> {
        let keys = self.require_erasable(principal, reference, selection)?;
        let record = self.require_reference(reference)?;
        let there = |key: &&ConditionKey| record.columns().contains_key(*key) || record.waits(key).is_some();
        let there: Vec<_> = keys.iter().filter(there).cloned().collect();
        // Before they are withdrawn: what waits for the close of a task is in no submission any more afterwards.
        let mut erased: Vec<Erasure> = keys.iter().map(|key| self.receipt(principal, reference, key)).collect();
        if !there.is_empty() {
            self.withdraw(principal, reference, &Selection::Keys(there))?;
        }
        self.erasures.n_erased += 1;
        let n_changes = self.require_reference(reference)?.changes().len() as u64;
        for erasure in &mut erased {
            (erasure.seq, erasure.n_changes) = (self.erasures.n_erased, n_changes);
            // Of what waited nothing is handed in any more, and the site may hand in again.
            let still =
                |task: &TaskId| self.tasks.get(task).is_some_and(|task| handed_in(task, &erasure.key).is_some());
            let tasks: Vec<_> = erasure.tasks.iter().copied().filter(still).collect();
            erasure.tasks = tasks;
            let place = (reference.clone(), erasure.key.clone());
            let before = self.erasures.of.get(&place).cloned();
            let of_before = before.as_ref().map_or((0, &[][..]), |before| (before.n_changes, &before.tasks[..]));
            let mut index = std::mem::take(&mut self.index);
            self.unname(&mut index, erasure, of_before);
            self.index = index;
            if let Some(before) = before {
                erasure.blobs =
                    before.blobs.iter().chain(&erasure.blobs).copied().collect::<BTreeSet<_>>().into_iter().collect();
                erasure.tasks =
                    before.tasks.iter().chain(&erasure.tasks).copied().collect::<BTreeSet<_>>().into_iter().collect();
            }
            self.grew(growth::bytes_of(&*erasure));
            self.erasures.of.insert(place, erasure.clone());
        }
        Ok(Outcome::Reference { name: reference.clone(), version: self.require_reference(reference)?.current() })
    }

    /// The keys that are meant, of somebody who may erase them.
    pub(crate) fn require_erasable(
        &self,
        principal: &Principal,
        reference: &Name,
        selection: &Selection,
    ) -> Result<BTreeSet<ConditionKey>, Refusal> {
        self.require_withdrawer(principal, selection)?;
        self.require_reference(reference)?;
        self.ever(reference, selection)
    }

    /// Has an index that names everything forget what was erased.
    pub(crate) fn unname_erased(&self, index: &mut Index) {
        if !mutation::is_broken(Rule::ErasedIsUnnamed) {
            self.erasures.of.values().for_each(|erasure| self.unname(index, erasure, (0, &[])));
        }
    }

    /// Forgets what an erasure covers and an earlier one, up to so many changes and for these tasks, does not.
    fn unname(&self, index: &mut Index, erasure: &Erasure, (from, tasks): (u64, &[TaskId])) {
        let Erasure { reference, key, n_changes, .. } = erasure;
        let Some(record) = self.references.get(reference) else { return };
        let covered = record.changes().iter().take(*n_changes as usize).skip(from as usize);
        covered
            .filter(|change| change.adds())
            .filter_map(|change| change.columns.get(key))
            .for_each(|b| index.unname(b));
        for task in erasure.tasks.iter().filter(|task| !tasks.contains(task)) {
            if let Some(handed_in) = self.tasks.get(task).and_then(|task| handed_in(task, key)) {
                index.erased(key.owner(), &blobs_of(handed_in));
            }
        }
    }

    /// What is known of a condition: all that it ever held.
    fn receipt(&self, principal: &Principal, reference: &Name, key: &ConditionKey) -> Erasure {
        let changes = self.references[reference].changes().iter().filter(|change| change.adds());
        let mut blobs: BTreeSet<BlobRef> = changes.filter_map(|change| change.columns.get(key)).copied().collect();
        let of_reference = self.tasks.values().filter(|task| task.task.reference == *reference);
        let held: Vec<_> = of_reference.filter_map(|task| Some((task.id, handed_in(task, key)?))).collect();
        blobs.extend(held.iter().flat_map(|(_, condition)| blobs_of(condition)));
        Erasure {
            seq: 0,
            reference: reference.clone(),
            key: key.clone(),
            blobs: blobs.into_iter().collect(),
            tasks: held.into_iter().map(|(task, _)| task).collect(),
            n_changes: 0,
            by: principal.to_string(),
            at_ms: self.now_ms,
        }
    }

    /// The keys that a selection means, whether they are there or were; with a condition what its cells contributed to parts.
    fn ever(&self, reference: &Name, selection: &Selection) -> Result<BTreeSet<ConditionKey>, Refusal> {
        let record = &self.references[reference];
        let changed =
            record.changes().iter().filter(|change| change.adds()).flat_map(|change: &Change| change.columns.keys());
        let waiting = record.waiting().map(|(key, _)| key);
        let mut all: BTreeSet<&ConditionKey> = changed.chain(waiting).collect();
        // Handed in for a task that was cancelled, or withdrawn before its close.
        let of_reference = self.tasks.values().filter(|task| task.task.reference == *reference);
        all.extend(of_reference.flat_map(|task| task.assignments.values()).flat_map(
            |assignment| match &assignment.state {
                AssignmentState::Accepted { submission, .. } => submission.conditions.keys().collect(),
                _ => Vec::new(),
            },
        ));
        let found: BTreeSet<ConditionKey> = match selection {
            Selection::Site(owner) => all.iter().filter(|key| key.owner() == owner).map(|key| (*key).clone()).collect(),
            Selection::Keys(keys) => {
                if let Some(key) = keys.iter().find(|key| !all.contains(key)) {
                    return Err(Refusal::not_found(format!("condition `{key}` in the reference, now or earlier")));
                }
                let of_one = |key: &&&ConditionKey| {
                    key.is_part() && keys.contains(&(**key).clone().in_section(Section::Condition))
                };
                all.iter().filter(of_one).map(|key| (*key).clone()).chain(keys.iter().cloned()).collect()
            }
        };
        match (found.is_empty(), selection) {
            (false, _) => Ok(found),
            (true, Selection::Site(owner)) => {
                Err(Refusal::not_found(format!("condition of `{owner}` in the reference, now or earlier")))
            }
            (true, Selection::Keys(_)) => Err(Refusal::invalid("the erasure names no condition, expected at least 1")),
        }
    }
}

/// What was accepted of a condition for a task.
fn handed_in<'a>(task: &'a TaskRecord, key: &ConditionKey) -> Option<&'a SubmittedCondition> {
    match &task.assignments.get(key.owner())?.state {
        AssignmentState::Accepted { submission, .. } => submission.conditions.get(key),
        _ => None,
    }
}

fn blobs_of(condition: &SubmittedCondition) -> Vec<BlobRef> {
    std::iter::once(condition.columns).chain(condition.embeddings).collect()
}
