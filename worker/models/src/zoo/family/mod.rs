//! What several models share.
//!
//! The models of scvi-tools: the way of their saved files (`scvi_tools`), what their surgery trains ([`masks`]). scArches' native models: they are one autoencoder with
//! other parts.
//!
//! An encoder of `log(1 + x)` whose first layer hears of a cell's condition, a normal latent state whose variance has a floor, and
//! a decoder that hears of it too. A layer's part for conditions is a tensor of its own ([`ConditionalLinear`]): a column per condition, or
//! a map from a vector that stands for it. Losses are sums over genes ([`ReconLoss`]); the dispersion is a column per
//! condition. Names of tensors are upstream's, so that saved models read as they are.

pub mod adaptor;
mod block;
mod cells;
mod choices;
mod decoder;
mod encoder;
mod freeze;
pub mod keys;
mod linear;
pub mod masks;
pub mod recipe;
mod reconstruction;
mod results;
pub mod saved;
pub(in crate::zoo) mod scvi_tools;
pub(in crate::zoo) mod start;
pub mod stopping;

pub use block::{BlockOptions, Norm};
pub(in crate::zoo) use cells::{library, totals};
pub use choices::{LatentDistribution, MAX_UNITS, Norms, check_layers};
pub use decoder::{Decoded, Decoder};
pub use encoder::Encoder;
pub use freeze::{Freeze, Frozen, OfConditions};
pub use linear::{Bias, Condition, ConditionalLinear, Hears};
pub use reconstruction::{Output, ReconLoss};
pub(in crate::zoo) use results::Native;
