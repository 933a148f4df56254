//! Distance-weighted label transfer with an uncertainty per cell, as in scArches.
//!
//! The kernel is upstream's to the letter: with `sd` the population standard deviation of a cell's `k` distances, a
//! neighbour at distance `d` (not squared) weighs `exp(-d * sd² / 4)`, so that a wider spread makes it narrower.

use super::check_rows;
use crate::neighbours::Neighbours;
use crate::{Labels, Result};

/// The name given to cells whose label is not trusted.
pub const UNKNOWN: &str = "Unknown";

/// When a transferred label is replaced by [`UNKNOWN`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Unknown {
    /// Every label is kept.
    Never,
    /// Kept if the label's share of the weight reaches this: what the upstream code does with its `threshold`.
    MinProbability(f64),
    /// Kept if the uncertainty does not exceed this: what upstream documents; 0.2 is the lung atlas's practice.
    MaxUncertainty(f64),
}

/// What was transferred to each query cell.
#[derive(Debug, Clone, PartialEq)]
pub struct Transfer {
    /// The best label of each cell, over the reference's names, before any is replaced.
    pub labels: Labels,
    /// One minus the weight of that label, at least 0.
    pub uncertainty: Vec<f64>,
}

impl Transfer {
    /// The labels under a rule for the untrusted.
    pub fn labels_with(&self, rule: Unknown) -> Vec<&str> {
        let kept = |uncertainty: f64| match rule {
            Unknown::Never => true,
            Unknown::MinProbability(least) => 1.0 - uncertainty >= least - ROUNDING,
            Unknown::MaxUncertainty(most) => uncertainty <= most,
        };
        let cells = self.labels.iter().zip(&self.uncertainty);
        cells.map(|(name, &uncertainty)| if kept(uncertainty) { name } else { UNKNOWN }).collect()
    }
}

/// The label with the largest summed weight among each cell's neighbours; ties go to the first in sort order.
///
/// # Errors   a neighbour row beyond the reference's labels
/// # Source   `weighted_knn_transfer` of scArches 0.6.1, mode `package`
pub fn weighted(neighbours: &Neighbours, reference: &Labels) -> Result<Transfer> {
    check_rows(neighbours, reference.len())?;
    let mut codes = Vec::with_capacity(neighbours.n_cells());
    let mut uncertainty = Vec::with_capacity(neighbours.n_cells());
    for (rows, distances) in neighbours.iter() {
        let shares = label_shares(rows, distances, reference);
        let mut best = 0;
        for (code, &share) in shares.iter().enumerate() {
            if share > shares[best] {
                best = code;
            }
        }
        codes.push(best as u32);
        uncertainty.push((1.0 - shares[best]).max(0.0));
    }
    Ok(Transfer { labels: Labels::from_codes(&codes, reference.names())?, uncertainty })
}

/// One minus the weight of each query cell's own label, for queries that carry it; 1 where the reference lacks the label.
///
/// # Errors   a neighbour row beyond the reference's labels, or another number of query labels than cells
/// # Source   mode `paper` of `weighted_knn_transfer` as documented
pub fn true_label_uncertainty(neighbours: &Neighbours, reference: &Labels, truth: &Labels) -> Result<Vec<f64>> {
    check_rows(neighbours, reference.len())?;
    truth.check_len("the query's label column", neighbours.n_cells())?;
    let of_truth: Vec<Option<u32>> = truth.names().iter().map(|name| reference.code(name)).collect();
    let cells = neighbours.iter().zip(truth.codes()).map(|((rows, distances), &code)| match of_truth[code as usize] {
        Some(code) => (1.0 - label_shares(rows, distances, reference)[code as usize]).max(0.0),
        None => 1.0,
    });
    Ok(cells.collect())
}

/// Weights of one cell's neighbours, summing to 1.
///
/// The exponents are shifted so that the nearest neighbour weighs 1 before normalising: distances whose weights would
/// all underflow still give a label.
///
/// # Units   `distances`: Euclidean, not squared
pub fn neighbour_weights(distances: &[f64]) -> Vec<f64> {
    let n = distances.len() as f64;
    let mean = distances.iter().sum::<f64>() / n;
    let variance = distances.iter().map(|d| (d - mean) * (d - mean)).sum::<f64>() / n;
    let nearest = distances.iter().copied().fold(f64::INFINITY, f64::min);
    let unscaled: Vec<f64> = distances.iter().map(|d| (-(d - nearest) * variance / 4.0).exp()).collect();
    let total: f64 = unscaled.iter().sum();
    unscaled.into_iter().map(|weight| weight / total).collect()
}

fn label_shares(rows: &[u32], distances: &[f64], reference: &Labels) -> Vec<f64> {
    let mut shares = vec![0.0; reference.names().len()];
    for (&row, weight) in rows.iter().zip(neighbour_weights(distances)) {
        shares[reference.codes()[row as usize] as usize] += weight;
    }
    shares
}

/// Unanimous neighbours sum to one only up to rounding; without this slack a threshold of 1 would depend on it.
const ROUNDING: f64 = 1e-9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_distances_weigh_the_same() {
        assert_eq!(neighbour_weights(&[2.0; 4]), [0.25; 4]);
    }

    #[test]
    fn distances_whose_weights_underflow_still_give_a_label() {
        let weights = neighbour_weights(&[1.0e6, 2.0e6, 3.0e6]);
        assert_eq!(weights, [1.0, 0.0, 0.0]);
    }

    #[test]
    fn the_two_thresholds_mean_what_they_say() {
        let labels = Labels::from_names(&["B", "T", "T"]);
        let transfer = Transfer { labels, uncertainty: vec![0.0, 0.3, 0.1] };
        assert_eq!(transfer.labels_with(Unknown::Never), ["B", "T", "T"]);
        assert_eq!(transfer.labels_with(Unknown::MinProbability(1.0)), ["B", UNKNOWN, UNKNOWN]);
        assert_eq!(transfer.labels_with(Unknown::MinProbability(0.9)), ["B", UNKNOWN, "T"]);
        assert_eq!(transfer.labels_with(Unknown::MaxUncertainty(0.2)), ["B", UNKNOWN, "T"]);
        assert_eq!(transfer.labels_with(Unknown::MaxUncertainty(1.0)), ["B", "T", "T"]);
    }

    #[test]
    fn a_true_label_absent_from_the_reference_is_fully_uncertain() {
        let neighbours = Neighbours::from_parts(2, vec![0, 1, 0, 1], vec![1.0; 4]).unwrap();
        let (reference, truth) = (Labels::from_names(&["B", "T"]), Labels::from_names(&["DC", "T"]));
        assert_eq!(true_label_uncertainty(&neighbours, &reference, &truth).unwrap(), [1.0, 0.5]);
    }
}
