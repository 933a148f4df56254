//! One trainer for all models: a plan says how long and how fast, a module's recipe what is done beside plain steps.
//!
//! Start at [`Trainer`]. [`TrainPlan`] is where a model's defaults and what was asked meet; [`Recipe`] is what a module brings:
//! which cells come when ([`Sampler`]), what moves how ([`GroupSpec`]), what happens around a step ([`Hook`]), and what ends a
//! run ([`Rule`]).

mod adam;
mod ahead;
mod checkpoint;
mod defaults;
mod early_stopping;
mod evaluation;
mod hook;
mod optimiser;
mod order;
mod plan;
mod plateau;
mod pull;
mod recipe;
mod resume;
mod rule;
mod schedule;
mod seeds;
#[cfg(test)]
mod tests;
mod trainer;

pub use adam::{Adam, AdamOptions, Decay, GradientUse, Slot};
pub use checkpoint::{CheckpointStore, NoCheckpoints};
pub use defaults::{Epochs, TrainDefaults, WarmupDefault};
pub use early_stopping::{EarlyStopping, Monitor, Verdict};
pub(crate) use evaluation::EVALUATION_MINIBATCH;
pub use evaluation::{ELBO, Evaluation, RECONSTRUCTION, evaluate};
pub use hook::{Epoch, Hook, Step};
pub use optimiser::{GroupSpec, Method, Optimiser, SgdOptions};
pub use order::{Balanced, InOrder, Order, Sampler, Shuffled};
pub use plan::{Aim, FurtherOptions, Kept, Sampling, Slowing, TrainPlan};
pub use plateau::Plateau;
pub use recipe::{Means, Recipe, Run};
pub use resume::{restore_state, state_of};
pub use rule::{Decision, PlanRules, Rule, Seen, Watched};
pub use schedule::{KlWarmup, default_epochs, pretrained_epochs};
pub use seeds::Seeds;
pub use trainer::Trainer;
