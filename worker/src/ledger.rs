//! How much left of which cells, over all tasks and references: a hash chain ([`crate::chain`]) beside the audit log, and a budget.
//!
//! A task sees what it asks for; whoever publishes many sees the sum. So numbers are counted by set of cells, whatever task,
//! reference or data set they left under, and a site's policy bounds how many may leave for each cell. The same bytes of the same
//! cells say nothing new, and count once.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use archipelago_common::{condition::ConditionKey, hash::Digest, id::TaskId, policy::Budget};
use serde::{Deserialize, Serialize};

use crate::{
    audit::Kind,
    chain::{Log, Record, Trail},
    error::Result,
};

/// A set of cells: who they are, by a digest that only this site can make, and how many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CellSet {
    /// A keyed hash of their names.
    pub digest: Digest,
    /// Number of cells.
    pub n_cells: u64,
}

/// Numbers about a set of cells that left.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spending {
    /// What they are.
    pub kind: Kind,
    /// The task they left for.
    pub task: TaskId,
    /// The key they left under.
    pub condition: ConditionKey,
    /// The cells.
    pub cells: Digest,
    /// How many cells.
    pub n_cells: u64,
    /// How many numbers.
    pub numbers: u64,
    /// Digest of the bytes.
    pub digest: Digest,
}

impl Record for Spending {
    const LOG: &'static str = "ledger";
}

/// The ledger, open for appending.
#[derive(Debug)]
pub struct Ledger {
    log: Log<Spending>,
    spent: Spent,
}

/// What a ledger holds.
#[derive(Debug)]
pub struct Spent(Vec<Spending>);

/// What left of a kind of one set of cells, under one key, and what may still.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Account {
    /// The key.
    pub condition: ConditionKey,
    /// The cells, as a digest that only this site can make.
    pub cells: Digest,
    /// How many cells.
    pub n_cells: u64,
    /// What is counted together: `columns`, `embeddings` or `parts`.
    pub kind: &'static str,
    /// Numbers that left: of the same cells under whatever key, or under this key of whatever cells.
    pub numbers: u64,
    /// Numbers that the budget allows; none where it does not bound them.
    pub allowed: Option<u64>,
    /// Numbers that may still leave.
    pub left: Option<u64>,
    /// For which tasks they left.
    pub tasks: BTreeSet<TaskId>,
}

impl Ledger {
    /// Opens the ledger, or starts one, after verifying its chain.
    ///
    /// # Errors  [`crate::Error::AuditBroken`], [`crate::Error::File`]
    pub fn open(path: &Path) -> Result<Self> {
        let log = Log::open(path)?;
        Ok(Self { log, spent: Spent::read(path)? })
    }

    /// Notes numbers before they leave. What is there already is not noted again.
    ///
    /// # Errors  [`crate::Error::File`]: then nothing may be sent
    pub fn note(&mut self, spending: Spending) -> Result<()> {
        if !self.spent.holds(&spending) {
            self.log.append(spending.clone())?;
            self.spent.0.push(spending);
        }
        Ok(())
    }

    /// What it holds.
    pub fn spent(&self) -> &Spent {
        &self.spent
    }
}

impl Spent {
    /// Reads a ledger after verifying its chain, and leaves it as it is.
    ///
    /// # Errors  [`crate::Error::AuditBroken`], [`crate::Error::Common`] if it cannot be read
    pub fn read(path: &Path) -> Result<Self> {
        let entries = Trail::<Spending>::read(path)?.entries;
        Ok(Self(entries.into_iter().map(|entry| entry.release).collect()))
    }

    /// Everything that a budget may bound, with what is left of it: one for each kind, key and set of cells.
    pub fn accounts(&self, budget: &Budget) -> Vec<Account> {
        let mut accounts = BTreeMap::new();
        for spending in self.0.iter().filter(|spending| group(spending.kind) != Group::Unbounded) {
            let Spending { kind, condition, cells, n_cells, .. } = spending;
            let place = (condition.clone(), *cells, group(*kind).name());
            accounts.entry(place).or_insert_with(|| {
                let all: Vec<_> = self.of(*kind, condition, *cells).collect();
                let numbers = all.iter().map(|spent| spent.numbers).fold(0, u64::saturating_add);
                let allowed = allowed(budget, *kind).map(|most| (most * *n_cells as f64) as u64);
                Account {
                    condition: condition.clone(),
                    cells: *cells,
                    n_cells: *n_cells,
                    kind: group(*kind).name(),
                    numbers,
                    allowed,
                    left: allowed.map(|most| most.saturating_sub(numbers)),
                    tasks: all.iter().map(|spent| spent.task).collect(),
                }
            });
        }
        accounts.into_values().collect()
    }

    /// How many numbers of this kind would have left of these cells with this one.
    pub fn with(&self, spending: &Spending) -> u64 {
        let before = self.of(spending.kind, &spending.condition, spending.cells).map(|spent| spent.numbers);
        let new = if self.holds(spending) { 0 } else { spending.numbers };
        before.fold(new, u64::saturating_add)
    }

    /// Whether something of this kind has left under this key for this task: then it may be about to leave again.
    pub fn has(&self, kind: Kind, task: TaskId, key: &ConditionKey) -> bool {
        self.0.iter().any(|spent| (spent.kind, spent.task, &spent.condition) == (kind, task, key))
    }

    /// Everything that left of a kind of these cells: as the same set under whatever key, or as whatever set under the same key.
    fn of<'a>(
        &'a self,
        kind: Kind,
        key: &'a ConditionKey,
        cells: Digest,
    ) -> impl Iterator<Item = &'a Spending> + use<'a> {
        let group = group(kind);
        let is_of = move |spent: &&Spending| self::group(spent.kind) == group;
        self.0.iter().filter(is_of).filter(move |spent| spent.cells == cells || spent.condition == *key)
    }

    fn holds(&self, spending: &Spending) -> bool {
        let same = |spent: &Spending| (spent.cells, spent.digest) == (spending.cells, spending.digest);
        self.0.iter().any(same)
    }
}

/// What a budget bounds together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Group {
    Columns,
    Embeddings,
    Parts,
    Unbounded,
}

impl Group {
    /// As the policy's `[budget]` calls it.
    const fn name(self) -> &'static str {
        match self {
            Self::Columns => "columns",
            Self::Embeddings => "embeddings",
            Self::Parts => "parts",
            Self::Unbounded => "unbounded",
        }
    }
}

fn group(kind: Kind) -> Group {
    match kind {
        Kind::Columns => Group::Columns,
        Kind::Embeddings | Kind::LabelMeans => Group::Embeddings,
        Kind::Parts => Group::Parts,
        Kind::Metrics | Kind::Progress | Kind::Decision => Group::Unbounded,
    }
}

/// Numbers for each cell that a budget allows of a kind; none where it does not bound it.
pub fn allowed(budget: &Budget, kind: Kind) -> Option<f64> {
    match group(kind) {
        Group::Columns => Some(budget.columns),
        Group::Embeddings => Some(budget.embeddings),
        Group::Parts => Some(budget.parts),
        Group::Unbounded => None,
    }
    .filter(|most| most.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spending(task: u64, key: &str, cells: &str, bytes: &str) -> Spending {
        Spending {
            kind: Kind::Columns,
            task: TaskId(task),
            condition: key.parse().unwrap(),
            cells: Digest::of(cells.as_bytes()),
            n_cells: 100,
            numbers: 40,
            digest: Digest::of(bytes.as_bytes()),
        }
    }

    fn ledger() -> (tempfile::TempDir, std::path::PathBuf, Ledger) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.jsonl");
        let ledger = Ledger::open(&path).unwrap();
        (dir, path, ledger)
    }

    #[test]
    fn what_left_of_the_same_cells_adds_up_over_tasks_and_restarts() {
        let (_dir, path, mut ledger) = ledger();
        ledger.note(spending(1, "north/a/b1", "cells", "one")).unwrap();
        ledger.note(spending(2, "north/a/b1", "cells", "two")).unwrap();
        let next = spending(3, "north/a/b1", "cells", "three");
        assert_eq!(ledger.spent.with(&next), 120);
        drop(ledger);
        assert_eq!(Spent::read(&path).unwrap().with(&next), 120);
    }

    #[test]
    fn neither_another_data_set_nor_one_cell_more_makes_other_cells_of_them() {
        let (_dir, _, mut ledger) = ledger();
        ledger.note(spending(1, "north/a/b1", "cells", "one")).unwrap();
        assert_eq!(ledger.spent.with(&spending(2, "north/renamed/b1", "cells", "two")), 80);
        assert_eq!(ledger.spent.with(&spending(2, "north/a/b1", "cells and one more", "two")), 80);
        assert_eq!(ledger.spent.with(&spending(2, "north/a/b2", "others", "two")), 40);
    }

    #[test]
    fn accounts_say_what_is_left_of_each_set_of_cells() {
        let (_dir, _, mut ledger) = ledger();
        ledger.note(spending(1, "north/a/b1", "cells", "one")).unwrap();
        ledger.note(spending(2, "north/a/b1", "cells", "two")).unwrap();
        ledger.note(Spending { kind: Kind::Parts, ..spending(2, "north/a/b1", "cells", "three") }).unwrap();
        ledger.note(Spending { numbers: 2_500, ..spending(2, "north/a/b2", "others", "four") }).unwrap();
        ledger.note(Spending { kind: Kind::Progress, ..spending(2, "north/a/b3", "others", "five") }).unwrap();
        let told = ledger.spent().accounts(&Budget::default());
        let told: Vec<_> =
            told.iter().map(|a| (a.condition.to_string(), a.kind, a.numbers, a.allowed, a.left)).collect();
        let of = |key: &str, kind, numbers, allowed: Option<u64>, left| (key.to_owned(), kind, numbers, allowed, left);
        assert_eq!(
            told,
            [
                of("north/a/b1", "columns", 80, Some(2_500), Some(2_420)),
                of("north/a/b1", "parts", 40, None, None),
                of("north/a/b2", "columns", 2_500, Some(2_500), Some(0)),
            ]
        );
        let spent = ledger.spent().with(&spending(3, "north/a/b1", "cells", "six"));
        assert_eq!(spent, 120, "what the next task is measured by");
    }

    #[test]
    fn the_same_bytes_count_once() {
        let (_dir, path, mut ledger) = ledger();
        let first = spending(1, "north/a/b1", "cells", "one");
        ledger.note(first.clone()).unwrap();
        ledger.note(first.clone()).unwrap();
        assert_eq!((ledger.spent.with(&first), Trail::<Spending>::read(&path).unwrap().entries.len()), (40, 1));
        assert!(ledger.spent.has(Kind::Columns, TaskId(1), &first.condition));
        assert!(!ledger.spent.has(Kind::Columns, TaskId(2), &first.condition));
    }

    #[test]
    fn kinds_have_budgets_of_their_own_and_a_changed_line_is_seen() {
        let (_dir, path, mut ledger) = ledger();
        ledger.note(spending(1, "north/a/b1", "cells", "one")).unwrap();
        let embedding = Spending { kind: Kind::Embeddings, ..spending(1, "north/a/b1", "cells", "two") };
        assert_eq!(ledger.spent.with(&embedding), 40);
        ledger.note(embedding.clone()).unwrap();
        let means = Spending { kind: Kind::LabelMeans, ..spending(1, "north/a/b1", "cells", "three") };
        assert_eq!(ledger.spent.with(&means), 80, "means and single cells are one budget");
        let usual = Budget::default();
        assert_eq!(allowed(&usual, Kind::Columns), Some(usual.columns));
        assert_eq!((allowed(&usual, Kind::Parts), allowed(&usual, Kind::Progress)), (None, None));
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replacen("\"numbers\":40", "\"numbers\":4", 1)).unwrap();
        assert!(matches!(Ledger::open(&path), Err(crate::Error::AuditBroken { line: 1, .. })));
    }
}
