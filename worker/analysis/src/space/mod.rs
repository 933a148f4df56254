//! Cells in space, as graph networks over genes take them: which genes go together, which cells lie together, and how sure and how far apart
//! cells are that a network placed in partitions of a section.
//!
//! The networks themselves are not here; what they give is a probability per cell and partition.
//!
//! # Source   Heidari, Lohoff, Tyser, Lotfollahi et al. 2022; checked against scArches 0.6.1

mod graphical_lasso;
mod mapping;
mod partitions;

pub use graphical_lasso::{Alphas, GeneNetwork, gene_network};
pub use mapping::{DistanceMap, confidence, entropies};
pub use partitions::{directed_modularity, spatial_graph, spatial_partitions};
