//! A surgery task: which version to map onto, how to train, what to send back.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    id::{Name, SiteId, VersionId, shorten},
    limits,
    policy::EmbeddingRelease,
};

pub use crate::train_spec::{ColumnInit, EarlyStopping, Stopping, TrainSpec, Warmup};

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

/// What a task may ask of the quality of every condition, beside its minimum of cells and its bound on norms. Each
/// figure is the site's own word (a [`ConditionMetrics`]); a condition that comes without them meets no gate.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QualityGates {
    /// Least share of the panel's genes that the data has, 0 to 1.
    pub min_gene_coverage: f64,
    /// Least mean evidence lower bound per cell, in nats.
    pub min_elbo: Option<f64>,
    /// Largest mean reconstruction loss per cell, in nats.
    pub max_reconstruction: Option<f64>,
}

impl QualityGates {
    /// Whether anything is asked at all.
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }

    /// Checks that the values make sense.
    ///
    /// # Errors  [`Error::InvalidValue`] naming the field, what was found and what is expected
    pub fn check(&self) -> Result<()> {
        let refuse = |what, found: f64, expected| Err(Error::InvalidValue { what, found: found.to_string(), expected });
        if !(0.0..=1.0).contains(&self.min_gene_coverage) {
            return refuse("least gene coverage", self.min_gene_coverage, "a share from 0 to 1");
        }
        for (what, bound) in [("least ELBO", self.min_elbo), ("largest reconstruction loss", self.max_reconstruction)] {
            if let Some(bound) = bound.filter(|bound| !bound.is_finite()) {
                return refuse(what, bound, "a finite number");
            }
        }
        Ok(())
    }

    /// Why a condition does not meet the gates, if it does not.
    pub fn breach(&self, metrics: Option<&ConditionMetrics>) -> Option<String> {
        if self.is_open() {
            return None;
        }
        let Some(metrics) = metrics else {
            return Some("it comes without metrics, which the task's quality gates need".to_owned());
        };
        let ConditionMetrics { gene_coverage, elbo, reconstruction, .. } = *metrics;
        if gene_coverage < self.min_gene_coverage {
            let least = self.min_gene_coverage;
            return Some(format!("its gene coverage is {gene_coverage:.3}, expected at least {least}"));
        }
        if let Some(least) = self.min_elbo.filter(|least| elbo < *least) {
            return Some(format!("its ELBO is {elbo:.2} nats per cell, expected at least {least}"));
        }
        if let Some(most) = self.max_reconstruction.filter(|most| reconstruction > *most) {
            return Some(format!(
                "its reconstruction loss is {reconstruction:.2} nats per cell, expected at most {most}"
            ));
        }
        // The ELBO is the reconstruction less a divergence, which is never negative; rounding and sampling allowed for.
        let tolerance = 1e-3 * reconstruction.abs().max(1.0);
        (elbo + reconstruction > tolerance).then(|| {
            format!("its ELBO of {elbo:.2} is better than its reconstruction loss of {reconstruction:.2} allows")
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> ConditionMetrics {
        ConditionMetrics {
            n_cells: 100,
            epochs: 10,
            gene_coverage: 0.9,
            elbo: -500.0,
            reconstruction: 480.0,
            training_ms: 1,
            deterministic: true,
        }
    }

    #[test]
    fn each_gate_refuses_what_does_not_meet_it_and_lets_the_rest_pass() {
        let gates = QualityGates { min_gene_coverage: 0.9, min_elbo: Some(-500.0), max_reconstruction: Some(480.0) };
        assert_eq!(gates.breach(Some(&metrics())), None);
        for (bad, expected) in [
            (ConditionMetrics { gene_coverage: 0.89, ..metrics() }, "gene coverage is 0.890"),
            (ConditionMetrics { elbo: -500.1, ..metrics() }, "ELBO is -500.10"),
            (ConditionMetrics { reconstruction: 480.5, ..metrics() }, "reconstruction loss is 480.50"),
            (ConditionMetrics { elbo: -400.0, ..metrics() }, "better than its reconstruction"),
        ] {
            let breach = gates.breach(Some(&bad)).unwrap();
            assert!(breach.contains(expected), "{breach}");
        }
        assert!(gates.breach(None).unwrap().contains("without metrics"));
    }

    #[test]
    fn a_bad_number_is_reported_as_a_value_and_not_as_a_name() {
        let senseless = [
            TrainSpec { epochs: Some(0), ..TrainSpec::default() }.check(),
            TrainSpec { learning_rate: Some(f64::NAN), ..TrainSpec::default() }.check(),
            TrainSpec { train_size: Some(1.5), ..TrainSpec::default() }.check(),
            QualityGates { min_gene_coverage: -1.0, ..QualityGates::default() }.check(),
            "always".parse::<PublishMode>().map(drop),
        ];
        for refused in senseless {
            assert!(matches!(refused, Err(Error::InvalidValue { .. })), "{refused:?}");
        }
    }

    #[test]
    fn open_gates_ask_for_nothing_and_senseless_ones_are_refused() {
        let open = QualityGates::default();
        assert!(open.is_open() && open.breach(None).is_none());
        for bad in [
            QualityGates { min_gene_coverage: 1.5, ..open },
            QualityGates { min_elbo: Some(f64::NAN), ..open },
            QualityGates { max_reconstruction: Some(f64::INFINITY), ..open },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
