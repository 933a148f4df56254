//! Layers that the models are built of, and the named tensors they own.
//!
//! A layer that takes covariates holds its expression block and its condition block (one row per condition) as
//! separate tensors: what surgery trains is a tensor of its own, never a masked slice. [`Builder`] hands out tensors, fresh or
//! stored; [`Weights`] keeps them by name.

mod builder;
mod decoder;
mod dispersion;
mod encoder;
mod levels;
mod library;
mod linear;
mod noise;
mod norm;
mod stack;
mod torch_random;
mod weights;

pub use builder::{Builder, ConditionSource, Init, LayerRules, Source, Trainable, mean_name, shared_name};
pub use decoder::{Decoder, DecoderOutput, Heads};
pub use dispersion::{DispersionBy, LogDispersion};
pub(crate) use encoder::VARIANCE_FLOOR;
pub use encoder::{Encoder, Posterior};
pub use levels::Levels;
pub use library::LibraryPrior;
pub use linear::{CovariateSizes, Linear, rows_of};
pub use noise::{Noise, SeededNoise};
pub(crate) use norm::layer_norm;
pub use norm::{BatchNorm, BatchNormOptions};
pub use stack::{Activation, Stack, StackOptions};
pub(crate) use stack::{Dropout, LEAKY_SLOPE};
pub use torch_random::TorchGenerator;
pub use weights::{Role, Weight, Weights, from_tch, of_rows, to_tch};

/// How a pass treats dropout and batch statistics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// No dropout; batch norm uses the reference's running statistics. Exact surgery trains in this mode.
    Evaluation,
    /// Dropout; batch norm uses the minibatch and moves the running statistics.
    Training,
}

/// One pass through a module: its mode and its source of random numbers.
pub struct Pass<'a> {
    /// Treatment of dropout and batch statistics.
    pub mode: Mode,
    /// Where noise and dropout masks come from.
    pub noise: &'a mut dyn Noise,
}
