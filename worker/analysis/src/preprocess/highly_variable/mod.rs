//! Genes that vary more than their mean expression explains.
//!
//! [`Flavor::Seurat`] and [`Flavor::CellRanger`] compare dispersions within bins of similar mean and take log-normalised
//! values; [`Flavor::SeuratV3`] compares variances with a fitted trend and takes raw counts. With batches, genes are judged
//! within each and the verdicts are combined, so that a gene which merely differs between batches is not chosen.

mod dispersion;
mod standardised;

use crate::{AnalysisError, CsrView, Labels, Result};

/// How variability is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavor {
    /// Log dispersion, standardised within 20 bins of the log mean. Input: log-normalised values.
    Seurat,
    /// Dispersion against median and median deviation within bins of mean percentiles. Input: log-normalised values.
    CellRanger,
    /// Variance after standardising by a trend over the mean, large values clipped. Input: counts.
    SeuratV3,
}

/// Which genes are kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Keep {
    /// The most variable ones; ties at the end may add some.
    Top(usize),
    /// All between bounds of mean and normalised dispersion, both exclusive; not for [`Flavor::SeuratV3`].
    Between {
        /// Bounds of the mean.
        mean: (f64, f64),
        /// Bounds of the normalised dispersion.
        dispersion: (f64, f64),
    },
}

impl Keep {
    /// The cutoffs of Seurat's tutorial.
    pub const SEURAT_CUTOFFS: Self = Self::Between { mean: (0.0125, 3.0), dispersion: (0.5, f64::INFINITY) };
}

/// One row per gene; the columns' names in scanpy's `var` are given with each.
#[derive(Debug, Clone, PartialEq)]
pub struct VariableGenes {
    /// The choice: `highly_variable`.
    pub is_chosen: Vec<bool>,
    /// Mean, of log-normalised values as the flavor bins it, or of counts: `means`.
    pub mean: Vec<f64>,
    /// `dispersions`, for [`Flavor::SeuratV3`] `variances`.
    pub spread: Vec<f64>,
    /// `dispersions_norm`, for [`Flavor::SeuratV3`] `variances_norm`. NaN where undefined.
    pub normalised_spread: Vec<f64>,
    /// Batches in which the gene is among the chosen: `highly_variable_nbatches`.
    pub n_batches: Vec<u32>,
    /// Median rank over the batches in which the gene is chosen, 0 is the most variable, NaN in none:
    /// `highly_variable_rank`. Empty but for [`Flavor::SeuratV3`].
    pub rank: Vec<f64>,
    /// Batches that had no say: of one cell, or of too few for a trend.
    pub left_out: Vec<String>,
}

/// Judges all genes, within each batch where batches are given.
///
/// Batches of one cell, and those whose genes vary too little for a trend, have no say as long as others have one.
///
/// # Errors   batches of another number of cells, no batch of two cells, bounds with [`Flavor::SeuratV3`], a trend without
///   enough genes
/// # Source   `highly_variable_genes` of scanpy 1.11, same defaults (20 bins, span 0.3)
pub fn highly_variable_genes(
    x: CsrView<'_>,
    batches: Option<&Labels>,
    flavor: Flavor,
    keep: Keep,
) -> Result<VariableGenes> {
    let (mut cells_by_batch, mut left_out) = (Vec::new(), Vec::new());
    match batches {
        Some(batches) => {
            batches.check_len("the batch column", x.n_cells())?;
            for (name, members) in batches.names().iter().zip(batches.members()) {
                match members.len() {
                    0 => {}
                    1 => left_out.push(name.clone()),
                    _ => cells_by_batch.push((name.as_str(), members)),
                }
            }
        }
        None => cells_by_batch.push(("", (0..x.n_cells()).collect::<Vec<_>>())),
    }
    if cells_by_batch.iter().all(|(_, cells)| cells.len() < 2) {
        let found = usize::from(x.n_cells() > 0);
        return Err(AnalysisError::TooFew { step: STEP, unit: "cells in a batch", needed: 2, found });
    }
    let found = match (flavor, keep) {
        (Flavor::SeuratV3, Keep::Top(n_top)) => standardised::choose(x, &cells_by_batch, n_top),
        (Flavor::SeuratV3, Keep::Between { .. }) => Err(AnalysisError::Option {
            option: "keep",
            expected: "a number of genes with the flavor seurat_v3",
            found: "cutoffs".into(),
        }),
        (Flavor::Seurat | Flavor::CellRanger, _) if batches.is_none() => {
            Ok(dispersion::within(x, &cells_by_batch[0].1, flavor, keep))
        }
        (Flavor::Seurat | Flavor::CellRanger, _) => {
            let batches: Vec<Vec<usize>> = cells_by_batch.into_iter().map(|(_, cells)| cells).collect();
            Ok(dispersion::combined(x, &batches, flavor, keep))
        }
    }?;
    left_out.extend(found.left_out);
    Ok(VariableGenes { left_out, ..found })
}

/// What needs the cells, in an error.
pub(crate) const STEP: &str = "the choice of variable genes";
