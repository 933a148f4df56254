//! Local inverse Simpson's index: how many batches, or labels, a neighbourhood effectively holds.

use crate::neighbours::Neighbours;
use crate::{Labels, Result};

/// Index of each cell, from 1 for a pure neighbourhood up to the number of groups for an even one. Neighbours are weighed
/// by a Gaussian-like kernel of effective size `perplexity`; the field takes a third of the neighbours.
///
/// # Errors   groups of another number of cells than neighbours
/// # Source   Korsunsky et al. 2019; `compute_lisi` of harmonypy
pub fn lisi(neighbours: &Neighbours, groups: &Labels, perplexity: f64) -> Result<Vec<f64>> {
    groups.check_len("the group column", neighbours.n_cells())?;
    let mut shares = vec![0.0; groups.names().len()];
    let cells = neighbours.iter().map(|(rows, distances)| {
        shares.fill(0.0);
        for (&row, weight) in rows.iter().zip(kernel(distances, perplexity)) {
            shares[groups.codes()[row as usize] as usize] += weight;
        }
        1.0 / shares.iter().map(|share| share * share).sum::<f64>()
    });
    Ok(cells.collect())
}

/// Median [`lisi`] over batches, scaled so that 0 is no mixing and 1 is full mixing; `None` with fewer than two batches.
///
/// # Errors   as [`lisi`]
/// # Source   Luecken et al. 2022, iLISI
pub fn ilisi(neighbours: &Neighbours, batches: &Labels) -> Result<Option<f64>> {
    Ok(scaled(neighbours, batches)?.map(|(index, n_groups)| (index - 1.0) / (n_groups - 1.0)))
}

/// Median [`lisi`] over labels, scaled so that 1 is full separation; `None` with fewer than two labels.
///
/// # Errors   as [`lisi`]
/// # Source   Luecken et al. 2022, cLISI
pub fn clisi(neighbours: &Neighbours, labels: &Labels) -> Result<Option<f64>> {
    Ok(scaled(neighbours, labels)?.map(|(index, n_groups)| (n_groups - index) / (n_groups - 1.0)))
}

fn scaled(neighbours: &Neighbours, groups: &Labels) -> Result<Option<(f64, f64)>> {
    let n_groups = groups.counts().into_iter().filter(|&count| count > 0).count();
    let mut index = lisi(neighbours, groups, (neighbours.k() / 3).max(1) as f64)?;
    index.sort_by(f64::total_cmp);
    Ok(match index.len() {
        0 => None,
        _ if n_groups < 2 => None,
        n => Some(((index[(n - 1) / 2] + index[n / 2]) / 2.0, n_groups as f64)),
    })
}

/// Weights that sum to 1 and whose entropy is that of `perplexity` equal neighbours, by bisection of the kernel's rate.
fn kernel(distances: &[f64], perplexity: f64) -> Vec<f64> {
    let nearest = distances.iter().copied().fold(f64::INFINITY, f64::min);
    let (mut rate, mut low, mut high) = (1.0f64, 0.0f64, f64::INFINITY);
    let mut weights = Vec::new();
    for _ in 0..=MAX_STEPS {
        // Measured from the nearest neighbour: the weights are the same and cannot all underflow.
        weights = distances.iter().map(|d| (-(d - nearest) * rate).exp()).collect::<Vec<_>>();
        let total: f64 = weights.iter().sum();
        let mean_distance = distances.iter().zip(&weights).map(|(d, w)| (d - nearest) * w).sum::<f64>() / total;
        weights.iter_mut().for_each(|weight| *weight /= total);
        let excess = total.ln() + rate * mean_distance - perplexity.ln();
        if excess.abs() <= TOLERANCE {
            break;
        }
        if excess > 0.0 {
            low = rate;
            rate = if high.is_infinite() { rate * 2.0 } else { (low + high) / 2.0 };
        } else {
            high = rate;
            rate = (low + high) / 2.0;
        }
    }
    weights
}

const TOLERANCE: f64 = 1e-5;
const MAX_STEPS: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_even_neighbourhood_counts_its_groups_and_a_pure_one_counts_one() {
        let rows: Vec<u32> = (0..6).flat_map(|_| 0..6).collect();
        let neighbours = Neighbours::from_parts(6, rows, vec![1.0; 36]).unwrap();
        let check = |names: [&str; 6]| lisi(&neighbours, &Labels::from_names(&names), 2.0).unwrap()[0];
        assert!((check(["a", "b", "a", "b", "a", "b"]) - 2.0).abs() < 1e-9);
        assert!((check(["a"; 6]) - 1.0).abs() < 1e-9);
        assert!((check(["a", "b", "c", "a", "b", "c"]) - 3.0).abs() < 1e-9);
    }

    #[test]
    fn one_group_has_no_mixing_to_speak_of() {
        let neighbours = Neighbours::from_parts(1, vec![1, 0], vec![1.0; 2]).unwrap();
        assert_eq!(ilisi(&neighbours, &Labels::from_names(&["a", "a"])).unwrap(), None);
    }
}
