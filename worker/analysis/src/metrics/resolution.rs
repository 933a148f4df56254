//! The Leiden clustering that agrees best with given labels.

use crate::graph::Edge;
use crate::leiden::leiden;
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
    let mut best: Option<BestResolution> = None;
    for &resolution in resolutions {
        let clusters = leiden(edges, labels.len(), resolution, seed)?;
        let agreement = nmi(labels.codes(), &clusters, NmiAverage::Arithmetic)?;
        if best.as_ref().is_none_or(|best| agreement > best.nmi) {
            let ari = ari(labels.codes(), &clusters)?;
            best = Some(BestResolution { resolution, clusters, nmi: agreement, ari });
        }
    }
    best.ok_or(AnalysisError::TooFew { step: "the search for a resolution", unit: "resolutions", needed: 1, found: 0 })
}
