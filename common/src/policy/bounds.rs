//! What a task may be at a site, and how much of a site's cells may leave over all tasks.
//!
//! Who writes a task and its reference writes the program that a site runs on its cells. These bounds hold whoever wrote it.

use serde::{Deserialize, Serialize};

use super::is_usual;

/// Whether a person at the site is asked before a task is taken. The stricter is the greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Approval {
    /// Nobody is: what trusted operators publish is taken, within the bounds.
    #[default]
    Trusted,
    /// Somebody is, for every task.
    Ask,
}

/// Which references and tasks without a signature are taken: those that programs before signatures published. The stricter is the greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unsigned {
    /// All.
    Accept,
    /// Those of a publisher of whom this site has seen nothing signed yet: an upgrade breaks nothing, and who signs once always does.
    #[default]
    UntilSigned,
    /// None.
    Refuse,
}

/// The section `[tasks]` of a site's policy file. A task beyond one of these bounds is declined, with the bound's name and nothing
/// else. `docs/policy.md` says what each of them is for, and what is left.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TaskBounds {
    /// Whether a person is asked first.
    #[serde(skip_serializing_if = "is_usual")]
    pub approve: Approval,
    /// What is done with what nobody signed.
    #[serde(skip_serializing_if = "is_usual")]
    pub unsigned: Unsigned,
    /// Models of the zoo that may be run; all that this worker has where none is named.
    pub models: Vec<String>,
    /// Most units of any layer. The published atlases have 128 to 1,024.
    pub max_hidden: u64,
    /// Most latent dimensions, as a share of the genes in the panel.
    pub max_latent_share: f64,
    /// Most numbers that one key releases in one task, for each of its cells.
    pub max_numbers_per_cell: f64,
    /// Fewest optimiser steps that are certain to be taken.
    pub min_steps: u64,
    /// Fewest cells in a minibatch.
    pub min_minibatch: u64,
    /// Largest share of the training cells in a minibatch that is larger than the model's own.
    pub max_minibatch_share: f64,
    /// Smallest share of the cells that is trained on: of fewer, few would make the columns.
    pub min_train_share: f64,
    /// Least and largest learning rate.
    pub learning_rate: [f64; 2],
    /// Least and largest number in the optimiser's denominator.
    pub adam_eps: [f64; 2],
    /// How far columns may move, at the learning rate in every step, for each training cell: what a task could make of one cell.
    pub max_travel_per_cell: f64,
    /// Columns begin so far from where the task has them begin, as a standard deviation, at a place that only the site knows: what moves
    /// them less cannot be read off them. With it, columns are no longer those that `map` gives.
    pub start_std: f64,
    /// Largest Euclidean norm of a key's columns.
    pub max_column_norm: f64,
    /// Most dimensions of an embedding of single cells.
    pub max_embedding_dims: u64,
    /// Whether a reference's recipe may leave cells out. Two tasks whose recipes differ by one cell subtract to it.
    pub cell_filters: bool,
}

impl Default for TaskBounds {
    fn default() -> Self {
        Self {
            approve: Approval::default(),
            unsigned: Unsigned::default(),
            models: Vec::new(),
            max_hidden: 1_024,
            max_latent_share: 0.5,
            max_numbers_per_cell: 2.5,
            min_steps: 2,
            min_minibatch: 8,
            max_minibatch_share: 0.5,
            min_train_share: 0.5,
            learning_rate: [1e-5, 0.05],
            adam_eps: [1e-9, 0.1],
            max_travel_per_cell: 0.02,
            start_std: 0.0,
            max_column_norm: 1_000.0,
            max_embedding_dims: 128,
            cell_filters: false,
        }
    }
}

impl TaskBounds {
    /// What makes no sense, if something does: the name of the bound, what was found and what is expected.
    pub fn senseless(&self) -> Option<String> {
        let is_positive = |value: f64| value.is_finite() && value > 0.0;
        let positive = [
            ("max_latent_share", self.max_latent_share),
            ("max_numbers_per_cell", self.max_numbers_per_cell),
            ("max_minibatch_share", self.max_minibatch_share),
            ("max_travel_per_cell", self.max_travel_per_cell),
            ("max_column_norm", self.max_column_norm),
        ];
        let positive = positive.into_iter().find(|(_, value)| !is_positive(*value));
        let ranges = [("learning_rate", self.learning_rate), ("adam_eps", self.adam_eps)];
        let range = ranges.into_iter().find(|(_, [least, most])| !(is_positive(*least) && least <= most));
        match (positive, range) {
            (Some((name, found)), _) => Some(format!("`tasks.{name}` is {found}, expected a number above 0")),
            (_, Some((name, found))) => {
                Some(format!("`tasks.{name}` is {found:?}, expected the least and the largest number, both above 0"))
            }
            _ if !(0.0..=1.0).contains(&self.min_train_share) => {
                Some(format!("`tasks.min_train_share` is {}, expected a share up to 1", self.min_train_share))
            }
            _ if !(self.start_std.is_finite() && self.start_std >= 0.0) => {
                Some(format!("`tasks.start_std` is {}, expected 0 or a number above it", self.start_std))
            }
            _ => None,
        }
    }
}

/// The section `[budget]`: how many numbers about one set of cells may leave over all tasks and references, for each of the
/// cells. The same bytes handed in again count once. Nothing is unbounded unless `inf` is written.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// Of columns.
    pub columns: f64,
    /// Of embeddings, single or as means of labels.
    pub embeddings: f64,
    /// Of parts, which leave only where `parts` says so.
    pub parts: f64,
    /// The `ε` of differential privacy that all columns of one data set may come to; needs clipping and noise. `inf` is no bound.
    // Said only where it differs: a policy from before there was one keeps its digest in the audit log.
    #[serde(skip_serializing_if = "is_infinite")]
    pub epsilon: f64,
    /// The `δ` for which that is counted.
    #[serde(skip_serializing_if = "is_usual_delta")]
    pub delta: f64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_infinite(value: &f64) -> bool {
    value.is_infinite()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_usual_delta(value: &f64) -> bool {
    *value == USUAL_DELTA
}

/// Of a million people one may be unlucky.
const USUAL_DELTA: f64 = 1e-6;

impl Default for Budget {
    fn default() -> Self {
        // Ten tasks at the most that one may take; an embedding of 64 dimensions four times. A graph network is 10^5 numbers.
        Self { columns: 25.0, embeddings: 256.0, parts: f64::INFINITY, epsilon: f64::INFINITY, delta: USUAL_DELTA }
    }
}

impl Budget {
    /// What makes no sense, if something does.
    pub fn senseless(&self) -> Option<String> {
        let Self { columns, embeddings, parts, epsilon, delta } = *self;
        if !(delta > 0.0 && delta < 1.0) {
            return Some(format!("`budget.delta` is {delta}, expected a number above 0 and below 1, such as 1e-6"));
        }
        let all = [("columns", columns), ("embeddings", embeddings), ("parts", parts), ("epsilon", epsilon)];
        let (name, found) = all.into_iter().find(|(_, value)| value.is_nan() || *value < 0.0)?;
        Some(format!("`budget.{name}` is {found}, expected 0 or a number above it, or `inf`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_make_sense_and_what_does_not_is_named() {
        assert_eq!((TaskBounds::default().senseless(), Budget::default().senseless()), (None, None));
        let usual = TaskBounds::default;
        for (wrong, name) in [
            (TaskBounds { max_latent_share: 0.0, ..usual() }, "max_latent_share"),
            (TaskBounds { max_column_norm: f64::NAN, ..usual() }, "max_column_norm"),
            (TaskBounds { learning_rate: [0.1, 0.01], ..usual() }, "learning_rate"),
            (TaskBounds { adam_eps: [0.0, 0.01], ..usual() }, "adam_eps"),
            (TaskBounds { start_std: -0.1, ..usual() }, "start_std"),
            (TaskBounds { min_train_share: 1.5, ..usual() }, "min_train_share"),
        ] {
            assert!(wrong.senseless().unwrap().contains(&format!("`tasks.{name}` is")), "{wrong:?}");
        }
        assert!(Budget { columns: -1.0, ..Budget::default() }.senseless().unwrap().contains("`budget.columns` is -1"));
        assert!(Budget { delta: 1.0, ..Budget::default() }.senseless().unwrap().contains("`budget.delta` is 1"));
        assert!(Budget { epsilon: f64::NAN, ..Budget::default() }.senseless().unwrap().contains("`budget.epsilon`"));
    }
}
