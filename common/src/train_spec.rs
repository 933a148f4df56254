//! What is asked of a training: what is left unsaid is the model's own default.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    id::shorten,
};

pub(crate) mod layouts;

/// How columns (or a whole reference) are trained, as far as somebody said so. With the base, whose card says the rest, a
/// condition's cells and its key, this determines the columns bit for bit on a CPU.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields, default)]
pub struct TrainSpec {
    /// Passes over the cells.
    pub epochs: Option<u32>,
    /// Cells per minibatch.
    pub minibatch: Option<u32>,
    /// The optimiser's step size.
    pub learning_rate: Option<f64>,
    /// Added to the optimiser's denominator. The field's 0.01 matters a lot: with 1e-8 nothing matches.
    pub adam_eps: Option<f64>,
    /// Weight decay; surgery in exact mode has none and takes 0 only.
    pub weight_decay: Option<f64>,
    /// How the weight of the KL term rises.
    pub kl_warmup: Option<Warmup>,
    /// Share of the cells that is trained on; the rest is for validation.
    pub train_size: Option<f64>,
    /// When training ends early.
    pub early_stopping: Option<Stopping>,
    /// How new columns start.
    pub init: ColumnInit,
    /// Seed of minibatch order, noise and initial values, together with the condition key.
    pub seed: u64,
    /// Optimiser steps: training ends with the last of them, in the middle of an epoch if need be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,
    /// Weight of the KL term once it has risen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_kl_weight: Option<f64>,
    /// What genes of the panel are to surgery that the cells' file lacks.
    #[serde(skip_serializing_if = "MissingGenes::is_usual")]
    pub missing_genes: MissingGenes,
    /// How strongly exact surgery draws latent states of a query to where cells of the reference lie: the weight, in the loss, of their
    /// divergence from the mixture that the base keeps. 0 is not at all, as upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference_pull: Option<f64>,
}

impl TrainSpec {
    /// Checks that the values make sense.
    ///
    /// # Errors  [`Error::InvalidValue`] naming the field, what was found and what is expected
    pub fn check(&self) -> Result<()> {
        let positive = |what, value: Option<f64>| match value {
            Some(value) if !(value.is_finite() && value > 0.0) => refuse(what, value, "a number above 0"),
            _ => Ok(()),
        };
        if self.epochs == Some(0) {
            return refuse("number of epochs", 0, "at least 1");
        }
        if self.max_steps == Some(0) {
            return refuse("number of steps", 0, "at least 1");
        }
        if self.minibatch == Some(0) {
            return refuse("minibatch size", 0, "at least 1");
        }
        positive("learning rate", self.learning_rate)?;
        positive("Adam epsilon", self.adam_eps)?;
        if let Some(decay) = self.weight_decay.filter(|decay| !(decay.is_finite() && *decay >= 0.0)) {
            return refuse("weight decay", decay, "0 or a number above it");
        }
        if let Some(weight) = self.max_kl_weight.filter(|weight| !(weight.is_finite() && *weight >= 0.0)) {
            return refuse("largest KL weight", weight, "0 or a number above it");
        }
        if let Some(pull) = self.reference_pull.filter(|pull| !(0.0..=MOST_PULL).contains(pull)) {
            return refuse("reference pull", pull, "a number from 0 to 1000");
        }
        if let Some(share) = self.train_size.filter(|share| !(*share > 0.0 && *share <= 1.0)) {
            return refuse("train size", share, "a share above 0 and up to 1");
        }
        match self.early_stopping {
            Some(Stopping::After(EarlyStopping { min_delta, .. })) if !min_delta.is_finite() => {
                refuse("smallest change that counts for early stopping", min_delta, "a finite number")
            }
            _ => Ok(()),
        }
    }
}

/// The largest weight of the mixture.
const MOST_PULL: f64 = 1000.0;

fn refuse(what: &'static str, found: impl fmt::Display, expected: &'static str) -> Result<()> {
    Err(Error::InvalidValue { what, found: found.to_string(), expected })
}

/// How the weight of the KL term rises from its least to its full value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Warmup {
    /// It does not: it is full from the start.
    Off,
    /// Over so many epochs.
    Epochs(u32),
    /// Over so many optimiser steps.
    Steps(u64),
}

impl Warmup {
    /// Over so many epochs; none at all over 0 of them.
    pub fn over_epochs(n: u32) -> Self {
        if n == 0 { Self::Off } else { Self::Epochs(n) }
    }

    /// Over so many steps; none at all over 0 of them.
    pub fn over_steps(n: u64) -> Self {
        if n == 0 { Self::Off } else { Self::Steps(n) }
    }
}

/// Whether training may end before its last epoch.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stopping {
    /// It goes on to the end.
    Never,
    /// It ends when it no longer helps.
    After(EarlyStopping),
}

impl Stopping {
    /// After so many epochs without any improvement; never with 0 of them.
    pub fn with_patience(patience: u32) -> Self {
        if patience == 0 { Self::Never } else { Self::After(EarlyStopping { patience, min_delta: 0.0 }) }
    }
}

/// When to end training early, on the model's validation figure.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyStopping {
    /// Evaluations without improvement before training stops.
    pub patience: u32,
    /// Smallest change that counts as improvement.
    pub min_delta: f64,
}

/// What genes of the panel are to surgery that nobody measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MissingGenes {
    /// Nothing: the loss is over the others, and what columns have of them stays as it starts.
    #[default]
    LeftOut,
    /// Genes without a count, as upstream has it.
    Zeros,
}

impl MissingGenes {
    fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

impl FromStr for MissingGenes {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "left-out" => Ok(Self::LeftOut),
            "zeros" => Ok(Self::Zeros),
            _ => {
                let (what, expected) = ("meaning of missing genes", "`left-out` or `zeros`");
                Err(Error::InvalidValue { what, found: shorten(text), expected })
            }
        }
    }
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
            _ => {
                Err(Error::InvalidValue { what: "column start", found: shorten(text), expected: "`random` or `mean`" })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_asked_makes_sense_and_numbers_that_do_not_are_named() {
        let asked = TrainSpec::default();
        asked.check().unwrap();
        for (bad, what) in [
            (TrainSpec { epochs: Some(0), ..asked.clone() }, "epochs"),
            (TrainSpec { minibatch: Some(0), ..asked.clone() }, "minibatch"),
            (TrainSpec { learning_rate: Some(f64::NAN), ..asked.clone() }, "learning rate"),
            (TrainSpec { adam_eps: Some(0.0), ..asked.clone() }, "epsilon"),
            (TrainSpec { weight_decay: Some(-1.0), ..asked.clone() }, "weight decay"),
            (TrainSpec { train_size: Some(1.5), ..asked.clone() }, "train size"),
            (TrainSpec { max_steps: Some(0), ..asked.clone() }, "steps"),
            (TrainSpec { max_kl_weight: Some(f64::INFINITY), ..asked.clone() }, "KL weight"),
            (TrainSpec { reference_pull: Some(f64::NAN), ..asked.clone() }, "reference pull"),
            (TrainSpec { reference_pull: Some(1e4), ..asked.clone() }, "reference pull"),
        ] {
            let error = bad.check().unwrap_err();
            assert!(matches!(error, Error::InvalidValue { .. }) && error.to_string().contains(what), "{error}");
        }
    }

    #[test]
    fn a_warmup_over_nothing_is_none() {
        assert_eq!((Warmup::over_epochs(0), Warmup::over_steps(0)), (Warmup::Off, Warmup::Off));
        assert_eq!((Warmup::over_epochs(3), Warmup::over_steps(3)), (Warmup::Epochs(3), Warmup::Steps(3)));
    }
}
