//! Everything that determines a training run beside data and module.

use archipelago_common::task::TrainSpec;

use super::{AdamOptions, Decay, EarlyStopping, KlWarmup, Monitor, Plateau, default_epochs};
use crate::{
    data::TrainSize,
    error::{Error, Result},
};

/// How a module is trained.
#[derive(Clone, PartialEq, Debug)]
pub struct TrainPlan {
    /// Passes over the training cells.
    pub n_epochs: u32,
    /// Cells per minibatch; the last one may be smaller.
    pub minibatch: usize,
    /// The optimiser's options.
    pub adam: AdamOptions,
    /// The weight of the KL term.
    pub kl: KlWarmup,
    /// Share of training cells.
    pub train_size: TrainSize,
    /// Share of validation cells; `None` is all that are not trained on.
    pub validation_size: Option<f64>,
    /// When to stop early.
    pub early_stopping: Option<EarlyStopping>,
    /// When to lower the learning rate.
    pub plateau: Option<Plateau>,
    /// Epochs between validations that nothing else asks for.
    pub validate_every: Option<u32>,
}

/// What a reference's training can be told beyond a [`TrainSpec`]. Tasks carry none of it, so surgery has none of it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct FurtherOptions {
    /// Share of the cells to validate on; `None` is all that are not trained on.
    pub validation_size: Option<f64>,
    /// Optimiser steps until the KL term has its full weight, where the spec sets no epochs.
    pub n_steps_kl_warmup: Option<u64>,
    /// Weight of the KL term at the beginning of its warm-up, 0 if unset.
    pub min_kl_weight: Option<f64>,
    /// Weight of the KL term after its warm-up, 1 if unset.
    pub max_kl_weight: Option<f64>,
    /// How weight decay acts.
    pub decay: Option<Decay>,
    /// What early stopping watches, the validation cells if unset.
    pub monitor: Option<Monitor>,
    /// Epochs at the beginning that early stopping does not look at.
    pub stopping_warmup: u32,
    /// When to lower the learning rate.
    pub plateau: Option<Plateau>,
    /// Epochs between validations that nothing else asks for.
    pub validate_every: Option<u32>,
}

impl FurtherOptions {
    fn check(&self) -> Result<()> {
        let refuse = |what, found: String, expected| {
            Err(Error::Common(archipelago_common::Error::InvalidValue { what, found, expected }))
        };
        if let Some(share) = self.validation_size.filter(|share| !(0.0..1.0).contains(share)) {
            return refuse("validation size", share.to_string(), "a share of at least 0 and below 1");
        }
        let weights = [("smallest KL weight", self.min_kl_weight), ("largest KL weight", self.max_kl_weight)];
        for (what, weight) in weights {
            if let Some(weight) = weight.filter(|weight| !(weight.is_finite() && *weight >= 0.0)) {
                return refuse(what, weight.to_string(), "0 or a number above it");
            }
        }
        let Some(Plateau { factor, min_rate, threshold, .. }) = self.plateau else { return Ok(()) };
        if !(factor > 0.0 && factor < 1.0) {
            return refuse("plateau factor", factor.to_string(), "a number between 0 and 1");
        }
        if !(min_rate.is_finite() && min_rate >= 0.0 && threshold.is_finite()) {
            return refuse("smallest learning rate", min_rate.to_string(), "0 or a number above it");
        }
        Ok(())
    }
}

impl TrainPlan {
    /// The plan that a spec asks for on so many cells.
    ///
    /// # Errors  those of [`TrainSpec::check`]
    pub fn of_spec(spec: &TrainSpec, n_cells: usize) -> Result<Self> {
        spec.check()?;
        let (weight_decay, eps) = (spec.weight_decay, spec.adam_eps);
        let stop = spec.early_stopping.map(|s| EarlyStopping::new(Monitor::Validation, s.patience, s.min_delta, 0));
        Ok(Self {
            n_epochs: spec.epochs.unwrap_or_else(|| default_epochs(n_cells)),
            minibatch: spec.minibatch as usize,
            adam: AdamOptions { rate: spec.learning_rate, eps, weight_decay, decay: Decay::L2 },
            kl: KlWarmup::over_epochs(spec.n_epochs_kl_warmup),
            train_size: if spec.train_size == TrainSpec::default().train_size {
                TrainSize::Default
            } else {
                TrainSize::Share(spec.train_size)
            },
            validation_size: None,
            early_stopping: stop,
            plateau: None,
            validate_every: None,
        })
    }

    /// This plan with what a spec cannot say.
    ///
    /// # Errors  [`Error::Common`] naming the option
    pub fn with(mut self, further: &FurtherOptions) -> Result<Self> {
        further.check()?;
        self.validation_size = further.validation_size.or(self.validation_size);
        if self.kl.n_epochs.is_none() {
            self.kl.n_steps = further.n_steps_kl_warmup.or(self.kl.n_steps);
        }
        self.kl.min = further.min_kl_weight.unwrap_or(self.kl.min);
        self.kl.max = further.max_kl_weight.unwrap_or(self.kl.max);
        self.adam.decay = further.decay.unwrap_or(self.adam.decay);
        self.early_stopping = self.early_stopping.map(|stop| {
            let monitor = further.monitor.unwrap_or(stop.monitor);
            EarlyStopping::new(monitor, stop.patience, stop.min_delta, further.stopping_warmup)
        });
        self.plateau = further.plateau.or(self.plateau);
        self.validate_every = further.validate_every.or(self.validate_every);
        Ok(self)
    }

    /// Whether validation runs after an epoch, counted from 0.
    pub fn validates_after(&self, epoch: u32) -> bool {
        self.early_stopping.is_some()
            || self.plateau.is_some()
            || self.validate_every.is_some_and(|every| (epoch + 1).is_multiple_of(every.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use archipelago_common::task;

    use super::*;

    fn plan(spec: TrainSpec, further: &FurtherOptions) -> Result<TrainPlan> {
        TrainPlan::of_spec(&spec, 1_000)?.with(further)
    }

    #[test]
    fn nothing_further_changes_nothing() {
        let spec = TrainSpec::default();
        assert_eq!(plan(spec.clone(), &FurtherOptions::default()).unwrap(), TrainPlan::of_spec(&spec, 1_000).unwrap());
    }

    #[test]
    fn steps_of_warmup_count_only_without_epochs_of_it() {
        let further = FurtherOptions { n_steps_kl_warmup: Some(10), ..FurtherOptions::default() };
        assert_eq!(plan(TrainSpec::default(), &further).unwrap().kl.n_steps, None);
        let by_steps = plan(TrainSpec { n_epochs_kl_warmup: None, ..TrainSpec::default() }, &further).unwrap();
        assert_eq!(by_steps.kl.weight(0, 5), 0.5);
    }

    #[test]
    fn early_stopping_watches_what_it_is_told_to() {
        let early_stopping = Some(task::EarlyStopping { patience: 3, min_delta: 0.5 });
        let further = FurtherOptions { monitor: Some(Monitor::Train), stopping_warmup: 2, ..FurtherOptions::default() };
        let plan = plan(TrainSpec { early_stopping, ..TrainSpec::default() }, &further).unwrap();
        assert_eq!(plan.early_stopping, Some(EarlyStopping::new(Monitor::Train, 3, 0.5, 2)));
    }

    #[test]
    fn values_that_make_no_sense_are_named() {
        let refused = |further| plan(TrainSpec::default(), &further).unwrap_err().to_string();
        let none = FurtherOptions::default;
        assert!(refused(FurtherOptions { validation_size: Some(1.0), ..none() }).contains("validation size"));
        assert!(refused(FurtherOptions { max_kl_weight: Some(-1.0), ..none() }).contains("largest KL weight"));
        let plateau = Some(Plateau::new(1.0, 3, 0.0, 0.0));
        assert!(refused(FurtherOptions { plateau, ..none() }).contains("plateau factor"));
    }
}
