//! A surgery task: which version to map onto, how to train, what to send back.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    id::{Name, SiteId, VersionId, shorten},
    limits,
    policy::EmbeddingRelease,
};

mod asks;
mod layouts;

pub use asks::Asks;

pub use crate::quality::{Bound, ConditionMetrics, QualityGates};
pub use crate::train_spec::{ColumnInit, EarlyStopping, MissingGenes, Stopping, TrainSpec, Warmup};

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
            _ => Err(Error::InvalidValue {
                what: "publish mode",
                found: shorten(text),
                expected: "`each` or `at-close`",
            }),
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
#[serde(remote = "Self")]
pub struct SurgeryTask {
    /// The reference's name.
    pub reference: Name,
    /// The version to train against.
    pub version: VersionId,
    /// How to train.
    pub train: TrainSpec,
    /// Which contributions it asks for.
    #[serde(default, skip_serializing_if = "Asks::is_usual")]
    pub asks: Asks,
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
            asks: Asks::default(),
            embeddings: EmbeddingRelease::None,
            publish: PublishMode::Each,
            allow: None,
            deadline_ms: None,
            lease_ms: limits::LEASE_MS,
            min_cells: 1,
            max_column_norm: limits::COLUMN_NORM,
        }
    }

    /// Whether a site is on the allow-list, or there is none.
    pub fn allows(&self, site: &SiteId) -> bool {
        self.allow.as_ref().is_none_or(|allowed| allowed.contains(site))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_number_is_reported_as_a_value_and_not_as_a_name() {
        let senseless = [
            TrainSpec { epochs: Some(0), ..TrainSpec::default() }.check(),
            TrainSpec { train_size: Some(1.5), ..TrainSpec::default() }.check(),
            QualityGates { min_gene_coverage: -1.0, ..QualityGates::default() }.check(&[]),
            "always".parse::<PublishMode>().map(drop),
        ];
        for refused in senseless {
            assert!(matches!(refused, Err(Error::InvalidValue { .. })), "{refused:?}");
        }
    }
}
