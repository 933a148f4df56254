//! What a site says of a condition's training, and what a task may ask of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    figure::{Better, Figure},
};

pub(crate) mod layouts;

/// Aggregate figures of one condition's training. Nothing in here belongs to a single cell.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ConditionMetrics {
    /// Cells trained and evaluated on.
    pub n_cells: u64,
    /// Epochs that ran.
    pub epochs: u32,
    /// Share of the panel's genes that the data has.
    pub gene_coverage: f64,
    /// The figures that the model's card lists, by name.
    #[serde(flatten)]
    pub figures: BTreeMap<String, f64>,
    /// Time spent training.
    pub training_ms: u64,
    /// Whether a repetition gives the same bits: true on a CPU.
    pub deterministic: bool,
}

impl ConditionMetrics {
    /// These figures as they leave a site: to three digits, and no more cells than there are. `least` is what a task asks for, which
    /// rounding does not miss.
    #[must_use]
    pub fn rounded(mut self, least: u64) -> Self {
        let unit = 10_u64.pow(self.n_cells.max(1).ilog10().saturating_sub(FURTHER_DIGITS));
        self.n_cells = (self.n_cells / unit * unit).max(least.min(self.n_cells));
        self.gene_coverage = to_three_digits(self.gene_coverage);
        self.figures.values_mut().for_each(|figure| *figure = to_three_digits(*figure));
        self.training_ms = to_three_digits(self.training_ms as f64) as u64;
        self
    }
}

/// Digits behind the first one.
const FURTHER_DIGITS: u32 = 2;

fn to_three_digits(number: f64) -> f64 {
    format!("{number:.2e}").parse().unwrap_or(number)
}

/// What a task may ask of the quality of every condition, beside its minimum of cells and its bound on norms. Each
/// figure is the site's own word (a [`ConditionMetrics`]); a condition that comes without them meets no gate.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields, default)]
pub struct QualityGates {
    /// Least share of the panel's genes that the data has, 0 to 1.
    pub min_gene_coverage: f64,
    /// What figures must reach, by their names.
    pub bounds: BTreeMap<String, Bound>,
}

/// What a figure must reach.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// No less than this.
    AtLeast(f64),
    /// No more than this.
    AtMost(f64),
}

impl Bound {
    /// The bound that a figure has to be as good as this to meet.
    pub fn as_good_as(value: f64, better: Better) -> Self {
        match better {
            Better::Higher => Self::AtLeast(value),
            Better::Lower => Self::AtMost(value),
        }
    }

    fn value(self) -> f64 {
        match self {
            Self::AtLeast(value) | Self::AtMost(value) => value,
        }
    }

    fn is_met_by(self, found: f64) -> bool {
        match self {
            Self::AtLeast(least) => found >= least,
            Self::AtMost(most) => found <= most,
        }
    }
}

impl QualityGates {
    /// Whether anything is asked at all.
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }

    /// Checks that the values make sense for a model with these figures.
    ///
    /// # Errors  [`Error::InvalidValue`] naming the field, what was found and what is expected
    pub fn check(&self, figures: &[Figure]) -> Result<()> {
        let refuse = |what, found: String, expected| Err(Error::InvalidValue { what, found, expected });
        if !(0.0..=1.0).contains(&self.min_gene_coverage) {
            return refuse("least gene coverage", self.min_gene_coverage.to_string(), "a share from 0 to 1");
        }
        for (name, bound) in &self.bounds {
            if !figures.iter().any(|figure| figure.name == *name) {
                return refuse("figure to ask for", name.clone(), "one that the reference's model reports");
            }
            if !bound.value().is_finite() {
                return refuse("bound on a figure", bound.value().to_string(), "a finite number");
            }
        }
        Ok(())
    }

    /// Why a condition of a model with these figures does not meet the gates, if it does not.
    pub fn breach(&self, metrics: Option<&ConditionMetrics>, figures: &[Figure]) -> Option<String> {
        if self.is_open() {
            return None;
        }
        let Some(metrics) = metrics else {
            return Some("it comes without metrics, which the task's quality gates need".to_owned());
        };
        let (found, least) = (metrics.gene_coverage, self.min_gene_coverage);
        if found < least {
            return Some(format!("its gene coverage is {found:.3}, expected at least {least}"));
        }
        let breach =
            |figure: &Figure| self.breach_of(figure, metrics).or_else(|| contradiction(figure, figures, metrics));
        figures.iter().find_map(breach)
    }

    fn breach_of(&self, Figure { name, title, unit, .. }: &Figure, metrics: &ConditionMetrics) -> Option<String> {
        let bound = self.bounds.get(name.as_ref())?;
        let Some(found) = metrics.figures.get(name.as_ref()) else {
            return Some(format!("it comes without its {title}, which the task's quality gates need"));
        };
        let expected = match bound {
            Bound::AtLeast(least) => format!("at least {least}"),
            Bound::AtMost(most) => format!("at most {most}"),
        };
        (!bound.is_met_by(*found)).then(|| format!("its {title} is {found:.2} {unit}, expected {expected}"))
    }
}

/// Why a figure cannot be what it is said to be, if it cannot.
fn contradiction(figure: &Figure, figures: &[Figure], metrics: &ConditionMetrics) -> Option<String> {
    let value = |name: &str| metrics.figures.get(name).copied();
    let opposed = figure.opposed_to.as_deref()?;
    let (own, other) = (value(&figure.name)?, value(opposed)?);
    let title = figures.iter().find(|figure| figure.name == opposed).map_or(opposed, |figure| figure.title.as_ref());
    // Rounding and sampling allowed for.
    let tolerance = 1e-3 * other.abs().max(1.0);
    (own + other > tolerance)
        .then(|| format!("its {} of {own:.2} is better than its {title} of {other:.2} allows", figure.title))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(elbo: f64, reconstruction: f64) -> ConditionMetrics {
        let figures = [("elbo", elbo), ("reconstruction", reconstruction)];
        ConditionMetrics {
            n_cells: 100,
            epochs: 10,
            gene_coverage: 0.9,
            figures: figures.map(|(name, value)| (name.to_owned(), value)).into(),
            training_ms: 1,
            deterministic: true,
        }
    }

    fn gates() -> QualityGates {
        let bounds = [("elbo", Bound::AtLeast(-500.0)), ("reconstruction", Bound::AtMost(480.0))];
        QualityGates { min_gene_coverage: 0.9, bounds: bounds.map(|(name, bound)| (name.to_owned(), bound)).into() }
    }

    #[test]
    fn each_gate_refuses_what_does_not_meet_it_and_lets_the_rest_pass() {
        let breach = |metrics: &ConditionMetrics| gates().breach(Some(metrics), &Figure::USUAL);
        assert_eq!(breach(&metrics(-500.0, 480.0)), None);
        for (bad, expected) in [
            (ConditionMetrics { gene_coverage: 0.89, ..metrics(-500.0, 480.0) }, "gene coverage is 0.890"),
            (metrics(-500.1, 480.0), "ELBO is -500.10 nats per cell, expected at least -500"),
            (metrics(-500.0, 480.5), "reconstruction loss is 480.50 nats per cell, expected at most 480"),
            (metrics(-400.0, 480.0), "ELBO of -400.00 is better than its reconstruction loss of 480.00 allows"),
            (metrics(f64::NAN, 480.0), "ELBO is NaN"),
            (ConditionMetrics { figures: BTreeMap::new(), ..metrics(0.0, 0.0) }, "without its ELBO"),
        ] {
            let breach = breach(&bad).unwrap();
            assert!(breach.contains(expected), "{breach}");
        }
        assert!(gates().breach(None, &Figure::USUAL).unwrap().contains("without metrics"));
    }

    #[test]
    fn a_model_has_its_own_figures_and_relations_between_them() {
        let accuracy = Figure {
            name: "accuracy".into(),
            title: "accuracy".into(),
            unit: "share of cells".into(),
            better: Better::Higher,
            opposed_to: None,
        };
        let gates =
            QualityGates { bounds: [("accuracy".to_owned(), Bound::AtLeast(0.5))].into(), ..Default::default() };
        assert!(gates.check(&Figure::USUAL).unwrap_err().to_string().contains("accuracy"));
        gates.check(std::slice::from_ref(&accuracy)).unwrap();
        let found = |value| ConditionMetrics {
            figures: [("accuracy".to_owned(), value), ("elbo".to_owned(), 9.0)].into(),
            ..metrics(0.0, 0.0)
        };
        let breach = |value| gates.breach(Some(&found(value)), std::slice::from_ref(&accuracy));
        // What it does not list is nobody's business.
        assert_eq!((breach(0.5), breach(0.4).is_some()), (None, true));
        assert_eq!(Bound::as_good_as(0.5, accuracy.better), Bound::AtLeast(0.5));
    }

    #[test]
    fn open_gates_ask_for_nothing_and_senseless_ones_are_refused() {
        let open = QualityGates::default();
        assert!(open.is_open() && open.breach(None, &Figure::USUAL).is_none());
        let bounded = |bound| QualityGates { bounds: [("elbo".to_owned(), bound)].into(), ..open.clone() };
        for bad in [
            QualityGates { min_gene_coverage: 1.5, ..open.clone() },
            bounded(Bound::AtLeast(f64::NAN)),
            bounded(Bound::AtMost(f64::INFINITY)),
        ] {
            assert!(bad.check(&Figure::USUAL).is_err(), "{bad:?}");
        }
    }
}
