//! The main job of a consortium on one machine, as real processes with real TLS: train a reference, publish it to three
//! coordinators, let each site map its own batch, kill the leader half way, merge, and prove what was promised.
//!
//! Simulated is only that the sites are on one machine; the demonstration looks over every site's shoulder to judge the
//! mapping, which nobody can do in a real consortium. Start at [`story`].

pub mod args;
pub mod cells;
pub mod comparison;
pub mod consortium;
mod correlation;
mod modalities;
pub mod page;
pub mod pictures;
pub mod printer;
pub mod proofs;
pub mod quality;
mod quality_multigrate;
mod quality_paired;
pub mod quality_runs;
mod quality_scgen;
pub mod quality_scpoli;
mod quality_space;
mod quality_tcells;
mod quality_trees;
pub mod space_story;
pub mod space_summary;
pub mod story;
pub mod summary;
mod tcells;
mod told;
pub mod tree_story;
pub mod tree_summary;
mod verdict;
