//! From named columns of cells to tensors.
//!
//! [`Cells`] is what a caller hands in: counts aligned to the gene panel and named covariates. A [`Registry`] remembers how the
//! reference encoded its covariates, so that query data map the same way. A [`Dataset`] is the encoded result, still
//! sparse, from which [`Minibatch`]es are drawn.

mod cells;
mod dataset;
mod minibatches;
mod numpy;
mod proteins;
mod registry;
mod split;

pub use cells::{Categorical, CellConditions, Cells, Minified};
pub use dataset::{Covariates, Dataset, Minibatch, MinifiedBatch};
pub use minibatches::Minibatches;
pub use numpy::RandomState;
pub use proteins::{ProteinAlignment, Proteins};
pub use registry::{LabelUse, Registry};
pub use split::{Split, TrainSize};
