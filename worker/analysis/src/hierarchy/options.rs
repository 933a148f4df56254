//! How a tree is trained and how data sets join it.

use archipelago_hierarchy::JoinOptions;
use serde::{Deserialize, Serialize};

use crate::{AnalysisError, Result};

/// What decides at a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Classifier {
    /// The nearest training cells.
    Knn,
    /// A linear support vector machine per node, against its sisters.
    Svm,
    /// A one-class support vector machine per node.
    SvmOcc,
}

/// Whose rules the nearest cells vote by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// Euclidean distances, votes weighted by their inverse.
    Exact,
    /// Squared distances, a vote each: what upstream does where it finds its index library.
    Index,
}

/// How a tree is trained.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainOptions {
    /// What decides at a node.
    pub classifier: Classifier,
    /// Whose rules the nearest cells vote by.
    pub backend: Backend,
    /// Nearest cells that vote.
    pub n_neighbors: usize,
    /// Whether a node has no more of them than its smallest class has cells.
    pub dynamic_neighbors: bool,
    /// Percentile of the training cells' mean distances beyond which a cell is rejected.
    pub dist_knn: f64,
    /// Whether everything happens on principal components.
    pub dimred: bool,
    /// Whether cells that the components reconstruct badly are rejected.
    pub use_re: bool,
    /// Percentage of training cells that this may reject.
    pub fn_percent: f64,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            classifier: Classifier::Knn,
            backend: Backend::Exact,
            n_neighbors: 50,
            dynamic_neighbors: true,
            dist_knn: 99.0,
            dimred: false,
            use_re: true,
            fn_percent: 0.5,
        }
    }
}

impl TrainOptions {
    pub(super) fn check(&self) -> Result<()> {
        if self.n_neighbors == 0 {
            return Err(AnalysisError::Option { option: "n_neighbors", expected: "at least 1", found: "0".into() });
        }
        for (option, percent) in [("dist_knn", self.dist_knn), ("fn_percent", self.fn_percent)] {
            if !(0.0..=100.0).contains(&percent) {
                let found = percent.to_string();
                return Err(AnalysisError::Option { option, expected: "a percentage from 0 to 100", found });
            }
        }
        Ok(())
    }
}

/// How data sets join a tree.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearnOptions {
    /// How either side is trained.
    pub train: TrainOptions,
    /// A node's decision of this probability or less is none.
    pub rej_threshold: f64,
    /// How names are matched.
    pub join: JoinOptions,
}

impl Default for LearnOptions {
    fn default() -> Self {
        Self { train: TrainOptions::default(), rej_threshold: 0.5, join: JoinOptions::default() }
    }
}
