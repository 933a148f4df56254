//! A surgery task: which version to map onto, how to train, what to send back.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    id::{Name, SiteId, VersionId, shorten},
    limits,
    policy::EmbeddingRelease,
};

/// How columns (or a whole reference) are trained. With the base, a condition's cells and its key, this determines
/// the columns bit for bit on a CPU.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainSpec {
    /// Passes over the cells; `None` is the field's heuristic `min(round(20000 / n_cells * 400), 400)`, at least 1.
    pub epochs: Option<u32>,
    /// Cells per minibatch.
    pub minibatch: u32,
    /// Adam's step size.
    pub learning_rate: f64,
    /// Adam's epsilon. The field's 0.01 matters a lot: with 1e-8 nothing matches.
    pub adam_eps: f64,
    /// L2 penalty added to the gradient; surgery in exact mode takes 0 only.
    pub weight_decay: f64,
    /// Epochs over which the weight of the KL term rises from 0 to 1; `None` starts at 1.
    pub n_epochs_kl_warmup: Option<u32>,
    /// Share of the cells that is trained on; the rest is for validation.
    pub train_size: f64,
    /// Ends training when the validation ELBO no longer improves.
    pub early_stopping: Option<EarlyStopping>,
    /// How new columns start.
    pub init: ColumnInit,
    /// Seed of minibatch order, noise and initial values, together with the condition key.
    pub seed: u64,
}

impl Default for TrainSpec {
    fn default() -> Self {
        Self {
            epochs: None,
            minibatch: 128,
            learning_rate: 1e-3,
            adam_eps: 0.01,
            weight_decay: 0.0,
            n_epochs_kl_warmup: Some(400),
            train_size: 0.9,
            early_stopping: None,
            init: ColumnInit::default(),
            seed: 0,
        }
    }
}

impl TrainSpec {
    /// Checks that the values make sense together.
    ///
    /// # Errors  [`Error::InvalidName`] naming the field, what was found and what is expected
    pub fn check(&self) -> Result<()> {
        let refuse = |what, found: String, expected| Err(Error::InvalidName { what, found, expected });
        if self.epochs == Some(0) {
            return refuse("number of epochs", "0".to_owned(), "at least 1");
        }
        if self.minibatch == 0 {
            return refuse("minibatch size", "0".to_owned(), "at least 1");
        }
        if !(self.learning_rate.is_finite() && self.learning_rate > 0.0) {
            return refuse("learning rate", self.learning_rate.to_string(), "a number above 0");
        }
        if !(self.adam_eps.is_finite() && self.adam_eps > 0.0) {
            return refuse("Adam epsilon", self.adam_eps.to_string(), "a number above 0");
        }
        if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            return refuse("weight decay", self.weight_decay.to_string(), "0 or a number above it");
        }
        if !(self.train_size > 0.0 && self.train_size <= 1.0) {
            return refuse("train size", self.train_size.to_string(), "a share above 0 and up to 1");
        }
        Ok(())
    }
}

/// When to end training early, on the validation ELBO.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyStopping {
    /// Evaluations without improvement before training stops.
    pub patience: u32,
    /// Smallest change that counts as improvement.
    pub min_delta: f64,
}

/// How the columns of a new condition start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ColumnInit {
    /// Uniform random numbers, as upstream.
    Random,
    /// The mean of the version's columns; random where it has none.
    #[default]
    Mean,
}

impl FromStr for ColumnInit {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "random" => Ok(Self::Random),
            "mean" => Ok(Self::Mean),
            _ => Err(Error::InvalidName { what: "column start", found: shorten(text), expected: "`random` or `mean`" }),
        }
    }
}

/// When accepted submissions become a version. Both end at the same version for the same columns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PublishMode {
    /// A child version per accepted submission.
    #[default]
    Each,
    /// One child version when the task closes.
    AtClose,
}

impl FromStr for PublishMode {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "each" => Ok(Self::Each),
            "at-close" => Ok(Self::AtClose),
            _ => {
                Err(Error::InvalidName { what: "publish mode", found: shorten(text), expected: "`each` or `at-close`" })
            }
        }
    }
}

impl fmt::Display for PublishMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Each => "each",
            Self::AtClose => "at-close",
        })
    }
}

/// A published request to map query data onto one version.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct SurgeryTask {
    /// The reference's name.
    pub reference: Name,
    /// The version to train against.
    pub version: VersionId,
    /// How to train.
    pub train: TrainSpec,
    /// The embeddings the task would like; what it gets is decided at the site.
    pub embeddings: EmbeddingRelease,
    /// When submissions become versions.
    pub publish: PublishMode,
    /// Sites that may take the task; `None` is every enrolled site.
    pub allow: Option<BTreeSet<SiteId>>,
    /// Stamp of the leader's clock after which nothing is accepted, in Unix milliseconds.
    pub deadline_ms: Option<u64>,
    /// How long an assignment lives without a renewal.
    pub lease_ms: u64,
    /// Conditions with fewer cells are refused.
    pub min_cells: u64,
    /// Largest Euclidean norm of one condition's columns.
    pub max_column_norm: f64,
}

impl SurgeryTask {
    /// A task with the usual bounds, open to every site.
    pub fn new(reference: Name, version: VersionId, train: TrainSpec) -> Self {
        Self {
            reference,
            version,
            train,
            embeddings: EmbeddingRelease::None,
            publish: PublishMode::Each,
            allow: None,
            deadline_ms: None,
            lease_ms: 60_000,
            min_cells: 1,
            max_column_norm: limits::COLUMN_NORM,
        }
    }

    /// Whether a site is on the allow-list, or there is none.
    pub fn allows(&self, site: &SiteId) -> bool {
        self.allow.as_ref().is_none_or(|allowed| allowed.contains(site))
    }
}

/// Aggregate figures of one condition's training. Nothing in here belongs to a single cell.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ConditionMetrics {
    /// Cells trained and evaluated on.
    pub n_cells: u64,
    /// Epochs that ran.
    pub epochs: u32,
    /// Share of the panel's genes that the data has.
    pub gene_coverage: f64,
    /// Mean evidence lower bound per cell, in nats; higher is better.
    pub elbo: f64,
    /// Mean negative log-likelihood per cell, in nats.
    pub reconstruction: f64,
    /// Time spent training.
    pub training_ms: u64,
    /// Whether a repetition gives the same bits: true on a CPU.
    pub deterministic: bool,
}
