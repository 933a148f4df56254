//! One trainer for all models: optimiser, schedules, early stopping, checkpoints.

mod adam;
mod adversary;
mod ahead;
mod checkpoint;
mod defaults;
mod early_stopping;
mod labelled;
mod plan;
mod plateau;
mod schedule;
mod seeds;
mod trainer;

pub use adam::{Adam, AdamOptions, Decay, GradientUse};
pub use adversary::Adversary;
pub use checkpoint::{CheckpointStore, NoCheckpoints};
pub use defaults::{Epochs, TrainDefaults, WarmupDefault};
pub use early_stopping::{EarlyStopping, Monitor, Verdict};
pub use plan::{Aim, FurtherOptions, TrainPlan};
pub use plateau::Plateau;
pub use schedule::{KlWarmup, default_epochs, pretrained_epochs};
pub use seeds::Seeds;
pub(crate) use trainer::EVALUATION_MINIBATCH;
pub use trainer::{Evaluation, Trainer, evaluate};
