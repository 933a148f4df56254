//! Flags that say how a reference is trained.

use archipelago_common::task::{EarlyStopping, Stopping, TrainSpec, Warmup};
use archipelago_models::train::{Decay, FurtherOptions, Kept, Monitor, Plateau, Sampling, Slowing};
use clap::{Args, ValueEnum};

use crate::{checkpoint::EPOCHS_PER_CHECKPOINT, commands::defaults};

/// The training run.
#[derive(Args, Debug)]
#[command(next_help_heading = "Training")]
pub(super) struct PlanArgs {
    #[arg(long, help = defaults::help("Passes over the cells; 2 to 10 with `--from-reference`", defaults::epochs))]
    epochs: Option<u32>,
    #[arg(long, help = defaults::help("Cells per minibatch", |training| training.minibatch.to_string()))]
    batch_size: Option<u32>,
    /// The optimiser.
    #[arg(long, value_enum, default_value_t = Optimizer::Adam)]
    optimizer: Optimizer,
    #[arg(long, help = defaults::help("The optimiser's step size", |training| training.adam.rate.to_string()))]
    learning_rate: Option<f64>,
    #[arg(long, help = defaults::help(
        "Added to the optimiser's denominator; the field's value matters", |training| training.adam.eps.to_string()
    ))]
    eps: Option<f64>,
    #[arg(long, help = defaults::help(
        "Penalty on the weights of the reference; surgery has none", defaults::weight_decay
    ))]
    weight_decay: Option<f64>,
    #[arg(long, help = defaults::help(
        "Epochs over which the weight of the KL term rises; 0 starts at its end", defaults::kl_warmup
    ))]
    n_epochs_kl_warmup: Option<u32>,
    /// Optimiser steps over which the weight of the KL term rises.
    #[arg(long, conflicts_with = "n_epochs_kl_warmup")]
    n_steps_kl_warmup: Option<u64>,
    /// Weight of the KL term at the beginning [default: 0]
    #[arg(long)]
    min_kl_weight: Option<f64>,
    #[arg(long, help = defaults::help("Weight of the KL term at the end", |training| training.max_kl_weight.to_string()))]
    max_kl_weight: Option<f64>,
    /// Times that the weight of the KL term rises anew in a run, at even distances [default: 1]
    #[arg(long, value_name = "N", conflicts_with = "n_steps_kl_warmup")]
    kl_cycles: Option<u32>,
    /// Share of the cells to train on [default: 0.9]
    #[arg(long)]
    train_size: Option<f64>,
    /// Share of the cells to validate on [default: all that are not trained on]
    #[arg(long)]
    validation_size: Option<f64>,
    /// Epochs between validations that neither early stopping nor a plateau asks for [default: never]
    #[arg(long, value_name = "EPOCHS")]
    check_val_every_n_epoch: Option<u32>,
    #[arg(long, value_name = "EPOCHS", help = defaults::help(
        "End when the negative ELBO has not fallen for this many epochs; 0 never does", defaults::patience
    ))]
    early_stopping_patience: Option<u32>,
    /// Smallest fall that counts for early stopping [default: 0]
    #[arg(long)]
    early_stopping_min_delta: Option<f64>,
    /// Which cells early stopping watches.
    #[arg(long, value_enum, default_value_t = Watched::Validation)]
    early_stopping_monitor: Watched,
    /// Epochs at the beginning that early stopping does not look at.
    #[arg(long, value_name = "EPOCHS", default_value_t = 0)]
    early_stopping_warmup_epochs: u32,
    /// Lower the learning rate where what is watched stalls [default: as the model's authors do]
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    reduce_lr_on_plateau: Option<bool>,
    /// What the learning rate is multiplied by on a plateau.
    #[arg(long, default_value_t = 0.6, requires = "reduce_lr_on_plateau")]
    lr_factor: f64,
    /// Epochs of a plateau that are tolerated.
    #[arg(long, default_value_t = 30, requires = "reduce_lr_on_plateau")]
    lr_patience: u32,
    /// Smallest fall that ends a plateau.
    #[arg(long, default_value_t = 0.0, requires = "reduce_lr_on_plateau")]
    lr_threshold: f64,
    /// The learning rate never falls below this.
    #[arg(long, default_value_t = 0.0, requires = "reduce_lr_on_plateau")]
    lr_min: f64,
    /// Times that the learning rate falls along a cosine and starts anew in a run, at even distances [default: it stays]
    #[arg(long, value_name = "N", conflicts_with = "reduce_lr_on_plateau")]
    lr_cycles: Option<u32>,
    /// Cut gradients to this size, element by element [default: never]
    #[arg(long, value_name = "SIZE")]
    clip_value: Option<f64>,
    /// End with the last state, not with the best one, where a model looks for the best: what scArches 0.6.1 does.
    #[arg(long)]
    keep_last_state: bool,
    /// Cells drawn in an epoch, with replacement, by a model that balances conditions [default: as many as train]
    #[arg(long, value_name = "CELLS", conflicts_with = "plain_sampling")]
    n_samples: Option<usize>,
    /// Every cell once in each epoch, also for a model that balances conditions.
    #[arg(long)]
    plain_sampling: bool,
    /// Conditions alike in each epoch, drawn with replacement, also for a model that takes every cell once and can do so.
    #[arg(long, conflicts_with = "plain_sampling")]
    stratified_sampling: bool,
    /// Epochs from one checkpoint to the next; a run that was killed goes on from the last.
    #[arg(long, value_name = "EPOCHS", default_value_t = EPOCHS_PER_CHECKPOINT)]
    pub(super) checkpoint_every: u32,
    /// Seed of weights, minibatch order and noise.
    #[arg(long, default_value_t = 0)]
    pub(super) seed: u64,
}

/// Optimisers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Optimizer {
    /// Weight decay is part of the gradient.
    Adam,
    /// Weight decay acts apart from the gradient.
    Adamw,
}

/// Cells whose ELBO is watched.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Watched {
    /// Those that are held out.
    Validation,
    /// Those that are trained on.
    Train,
}

impl PlanArgs {
    /// What a task could carry as well; the model knows what is not given.
    pub(super) fn spec(&self) -> TrainSpec {
        let rule = |patience| EarlyStopping { patience, min_delta: self.early_stopping_min_delta.unwrap_or_default() };
        let stopping = |patience| if patience == 0 { Stopping::Never } else { Stopping::After(rule(patience)) };
        let warmup_epochs = self.n_epochs_kl_warmup.map(Warmup::over_epochs);
        TrainSpec {
            epochs: self.epochs,
            minibatch: self.batch_size,
            learning_rate: self.learning_rate,
            adam_eps: self.eps,
            weight_decay: self.weight_decay,
            kl_warmup: warmup_epochs.or(self.n_steps_kl_warmup.map(Warmup::over_steps)),
            train_size: self.train_size,
            early_stopping: self.early_stopping_patience.map(stopping),
            seed: self.seed,
            ..TrainSpec::default()
        }
    }

    /// What only a reference's training has.
    pub(super) fn further(&self) -> FurtherOptions {
        let slowing = |falls: bool| match falls {
            true => Slowing::On(Plateau::new(self.lr_factor, self.lr_patience, self.lr_threshold, self.lr_min)),
            false => Slowing::Never,
        };
        FurtherOptions {
            validation_size: self.validation_size,
            min_kl_weight: self.min_kl_weight,
            max_kl_weight: self.max_kl_weight,
            kl_cycles: self.kl_cycles,
            rate_cycles: self.lr_cycles,
            decay: (self.optimizer == Optimizer::Adamw).then_some(Decay::Decoupled),
            monitor: (self.early_stopping_monitor == Watched::Train).then_some(Monitor::Train),
            stopping_min_delta: self.early_stopping_min_delta,
            stopping_warmup: self.early_stopping_warmup_epochs,
            slowing: self.reduce_lr_on_plateau.map(slowing),
            validate_every: self.check_val_every_n_epoch,
            clip: self.clip_value,
            kept: if self.keep_last_state { Kept::Last } else { Kept::Best },
            sampling: Sampling { balances: self.balances(), n_draws: self.n_samples },
        }
    }

    /// Whether conditions are balanced, where that is said.
    fn balances(&self) -> Option<bool> {
        (self.plain_sampling || self.stratified_sampling).then_some(self.stratified_sampling)
    }
}
