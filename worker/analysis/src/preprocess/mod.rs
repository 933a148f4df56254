//! From raw counts to values that distances and components make sense of: one file per step.

mod clr;
mod filter;
mod gene_sets;
pub(crate) mod highly_variable;
pub(crate) mod loess;
mod moments;
mod normalize;
mod quality;
mod tf_idf;

pub use clr::{Centre, clr};
pub use filter::{CellBounds, GeneBounds, filter_cells, filter_genes};
pub use gene_sets::{Annotations, SetOptions, gene_sets};
pub use highly_variable::{Flavor, Keep, VariableGenes, highly_variable_genes};
pub use normalize::{CP10K, log1p, median_total, normalize_total};
pub use quality::{CellQuality, GeneQuality, cell_quality, gene_quality, genes_with_prefix};
pub use tf_idf::{inverse_frequencies, tf_idf};
