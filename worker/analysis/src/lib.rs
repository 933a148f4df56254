//! Numbers and pictures about cells: what a notebook would do after the model is done.
//!
//! Plain values in, plain values out: embeddings are `ndarray` views (`[n_cells, n_dims]`), labels are [`Labels`], counts
//! are a [`CsrView`]. Nothing here knows a tensor library, a file format, a socket or a runtime. Everything is
//! deterministic: what draws random numbers takes a seed, and threads never change a result.
//!
//! Start at [`metrics::mapping_quality`] for the figures of a mapping, at [`transfer`] for labels with uncertainty, at
//! [`hierarchy`] for a tree of cell types, and at [`plot`] for pictures.

mod csr;
mod distance;
mod error;
mod labels;
mod quantile;

pub mod graph;
pub mod hierarchy;
pub mod kmeans;
pub mod leiden;
pub mod metrics;
pub mod neighbours;
pub mod page;
pub mod pca;
pub mod plot;
pub mod preprocess;
pub mod progress;
pub mod space;
pub mod transfer;
pub mod tsne;
pub mod umap;

pub use csr::CsrView;
pub use error::AnalysisError;
pub use labels::{Labels, reading_order};

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, AnalysisError>;
