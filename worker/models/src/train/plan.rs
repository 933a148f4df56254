//! Everything that determines a training run beside data and module.

use archipelago_common::task::TrainSpec;

use super::{AdamOptions, Decay, EarlyStopping, KlWarmup, Monitor, Plateau, default_epochs};
use crate::{data::TrainSize, error::Result};

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

    /// Whether validation runs after an epoch, counted from 0.
    pub fn validates_after(&self, epoch: u32) -> bool {
        self.early_stopping.is_some()
            || self.plateau.is_some()
            || self.validate_every.is_some_and(|every| (epoch + 1).is_multiple_of(every.max(1)))
    }
}
