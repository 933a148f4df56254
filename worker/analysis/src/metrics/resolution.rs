//! The Leiden clustering that agrees best with given labels.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::graph::Edge;
use crate::leiden::Communities;
use crate::progress::{Progress, silent};
use crate::{AnalysisError, Labels, Result};

use super::{NmiAverage, ari, nmi};

/// A clustering and how well it agrees with the labels.
#[derive(Debug, Clone, PartialEq)]
pub struct BestResolution {
    /// Resolution of the clustering.
    pub resolution: f64,
    /// Cluster of each cell.
    pub clusters: Vec<u32>,
    /// Normalised mutual information with the labels, arithmetic.
    pub nmi: f64,
    /// Adjusted Rand index with the labels.
    pub ari: f64,
}

/// Clusters at each resolution and keeps the one with the highest NMI, the first of equals.
///
/// # Errors   no resolution, one that is not positive, edges beyond the labelled cells
pub fn best_resolution(edges: &[Edge], labels: &Labels, resolutions: &[f64], seed: u64) -> Result<BestResolution> {
    best_of(&clusterings(edges, labels.len(), resolutions, seed, &silent)?, labels, resolutions)
}

/// The clusters at each resolution.
///
/// # Errors   one that is not positive, edges beyond the cells
pub(super) fn clusterings(
    edges: &[Edge],
    n_cells: usize,
    resolutions: &[f64],
    seed: u64,
    progress: Progress<'_>,
) -> Result<Vec<Vec<u32>>> {
    let graph = Communities::new(edges, n_cells)?;
    let n_done = AtomicUsize::new(0);
    let found = resolutions.par_iter().map(|&resolution| {
        let clusters = graph.leiden(resolution, seed, &silent);
        progress((1 + n_done.fetch_add(1, Ordering::Relaxed)) as f64 / resolutions.len() as f64);
        clusters
    });
    found.collect()
}

/// The clustering with the highest NMI, the first of equals.
///
/// # Errors   no clustering, one of other cells
pub(super) fn best_of(clusterings: &[Vec<u32>], labels: &Labels, resolutions: &[f64]) -> Result<BestResolution> {
    let mut best: Option<(f64, usize)> = None;
    for (at, clusters) in clusterings.iter().enumerate() {
        let agreement = nmi(labels.codes(), clusters, NmiAverage::Arithmetic)?;
        if best.is_none_or(|(best, _)| agreement > best) {
            best = Some((agreement, at));
        }
    }
    let Some((nmi, at)) = best else {
        let step = "the search for a resolution";
        return Err(AnalysisError::TooFew { step, unit: "resolutions", needed: 1, found: 0 });
    };
    let (clusters, resolution) = (clusterings[at].clone(), resolutions[at]);
    Ok(BestResolution { resolution, ari: ari(labels.codes(), &clusters)?, clusters, nmi })
}
