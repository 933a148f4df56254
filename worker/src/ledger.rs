//! How much left of which cells, over all tasks and references: a hash chain ([`crate::chain`]) beside the audit log, and a budget.
//!
//! A task sees what it asks for; whoever publishes many sees the sum. So numbers are counted by set of cells, whatever task,
//! reference or data set they left under, and a site's policy bounds how many may leave for each cell. The same bytes of the same
//! cells say nothing new, and count once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
};

use archipelago_common::{
    condition::ConditionKey,
    hash::Digest,
    id::{Name, TaskId},
    policy::Budget,
};
use serde::{Deserialize, Serialize};

use crate::{
    audit::Kind,
    chain::{Log, Record, Trail},
    error::Result,
    privacy::{Composed, Loss},
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
    /// How well they tell cells from others, of columns with noise, in millionths of `μ`; without noise there is no bound.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "mu_millionths")]
    pub loss: Option<Loss>,
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
#[derive(Debug, Default)]
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
    /// The `ε` of columns, for the budget's `δ`: for whoever has cells in this condition alone. None where some had no noise.
    pub epsilon: Option<f64>,
}

/// What all columns of a data set come to in differential privacy: for whoever has cells in it, in however many conditions.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct InEpsilon {
    /// The data set.
    pub dataset: Name,
    /// The `ε` of all that left. None where something had no noise.
    pub epsilon: Option<f64>,
    /// For this `δ`.
    pub delta: f64,
    /// What the budget allows; none where it bounds nothing.
    pub allowed: Option<f64>,
}

impl InEpsilon {
    /// What releases of a data set come to under a budget.
    pub fn new(dataset: Name, composed: Composed, budget: &Budget) -> Self {
        let allowed = Some(budget.epsilon).filter(|epsilon| epsilon.is_finite());
        Self { dataset, epsilon: composed.epsilon(budget.delta), delta: budget.delta, allowed }
    }
}

impl fmt::Display for InEpsilon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dataset, epsilon, delta, allowed } = self;
        match (epsilon, allowed) {
            (None, _) => write!(f, "{dataset}: columns left without noise, so that no epsilon holds for who is in it"),
            (Some(epsilon), None) => {
                write!(f, "{dataset}: columns left with an epsilon of {epsilon:.3} (delta {delta})")
            }
            (Some(epsilon), Some(most)) => {
                write!(f, "{dataset}: columns left with an epsilon of {epsilon:.3} (delta {delta}), of {most}")
            }
        }
    }
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

    /// The same while a worker may be writing its next line.
    ///
    /// # Errors  as [`Self::read`]
    pub fn begun(path: &Path) -> Result<Self> {
        let entries = Trail::<Spending>::read_prefix(path)?.0.entries;
        Ok(Self(entries.into_iter().map(|entry| entry.release).collect()))
    }

    /// Everything that a budget may bound, with what is left of it: one for each kind, key and set of cells.
    pub fn accounts<'a>(&self, budget_of: impl Fn(&Name) -> &'a Budget) -> Vec<Account> {
        let mut accounts = BTreeMap::new();
        for spending in self.0.iter().filter(|spending| group(spending.kind) != Group::Unbounded) {
            let Spending { kind, condition, cells, n_cells, .. } = spending;
            let budget = budget_of(condition.dataset());
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
                    epsilon: match group(*kind) {
                        Group::Columns => Composed::of(all.iter().map(|spent| spent.loss)).epsilon(budget.delta),
                        _ => None,
                    },
                }
            });
        }
        accounts.into_values().collect()
    }

    /// What the columns of each data set come to.
    pub fn in_epsilon<'a>(&self, budget_of: impl Fn(&Name) -> &'a Budget) -> Vec<InEpsilon> {
        let columns = self.0.iter().filter(|spent| spent.kind == Kind::Columns);
        let datasets: BTreeSet<&Name> = columns.map(|spent| spent.condition.dataset()).collect();
        let of = |dataset: &Name| InEpsilon::new(dataset.clone(), self.composed(dataset, &[]), budget_of(dataset));
        datasets.into_iter().map(of).collect()
    }

    /// What the columns of a data set, and those of its cells under other names, would have told with these.
    pub fn composed(&self, dataset: &Name, next: &[Spending]) -> Composed {
        let is_of = |spent: &&Spending| {
            let same_cells = || next.iter().any(|next| next.cells == spent.cells);
            spent.kind == Kind::Columns && (spent.condition.dataset() == dataset || same_cells())
        };
        let new = next.iter().filter(|next| !self.holds(next));
        Composed::of(self.0.iter().filter(is_of).chain(new).map(|spent| spent.loss))
    }

    /// Columns of a data set that left without noise, if some did.
    pub fn without_noise(&self, dataset: &Name) -> Option<&Spending> {
        let is_of = |spent: &&Spending| spent.kind == Kind::Columns && spent.condition.dataset() == dataset;
        self.0.iter().filter(is_of).find(|spent| spent.loss.is_none())
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
            loss: None,
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
        let budget = Budget::default();
        let told = ledger.spent().accounts(|_| &budget);
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
    fn privacy_composes_over_the_tasks_and_conditions_of_a_data_set_and_over_restarts() {
        let (_dir, path, mut ledger) = ledger();
        let noised = |task, key, cells, bytes| {
            let mut spending = serde_json::to_value(spending(task, key, cells, bytes)).unwrap();
            spending["mu_millionths"] = 500_000.into();
            serde_json::from_value::<Spending>(spending).unwrap()
        };
        ledger.note(noised(1, "north/a/b1", "cells", "one")).unwrap();
        ledger.note(noised(1, "north/a/b2", "others", "two")).unwrap();
        ledger.note(noised(1, "north/b/b1", "elsewhere", "three")).unwrap();
        drop(ledger);
        let mut spent = Spent::read(&path).unwrap();
        let dataset = "a".parse().unwrap();
        let composed = |spent: &Spent, next: &[Spending]| spent.composed(&dataset, next).epsilon(1e-6).unwrap();
        let (so_far, next) = (composed(&spent, &[]), noised(2, "north/a/b1", "cells", "four"));
        assert_eq!(so_far, Composed::of([next.loss; 2].into_iter()).epsilon(1e-6).unwrap());
        let with_next = composed(&spent, std::slice::from_ref(&next));
        assert_eq!(with_next, Composed::of([next.loss; 3].into_iter()).epsilon(1e-6).unwrap());
        let again = noised(1, "north/a/b1", "cells", "one");
        assert_eq!(composed(&spent, &[again]), so_far, "the same bytes tell nothing new");
        let renamed = noised(2, "north/a/b1", "elsewhere", "five");
        assert_eq!(composed(&spent, &[renamed]), Composed::of([next.loss; 4].into_iter()).epsilon(1e-6).unwrap());
        let (budget, bounded) = (Budget::default(), Budget { epsilon: 9.0, ..Budget::default() });
        let told = spent.in_epsilon(|_| &bounded);
        assert_eq!((told.len(), told[0].epsilon, told[0].allowed), (2, Some(so_far), Some(9.0)));
        let of_b1 = spent.accounts(|_| &budget)[0].epsilon;
        assert_eq!(of_b1, Composed::of([next.loss].into_iter()).epsilon(1e-6));
        assert_eq!(spent.without_noise(&dataset), None);
        spent.0.push(spending(2, "north/a/b2", "others", "six"));
        assert_eq!(spent.composed(&dataset, &[]).epsilon(1e-6), None, "what left without noise is without a bound");
        assert_eq!(spent.without_noise(&dataset).unwrap().task, TaskId(2));
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
