//! Local inverse Simpson's index: how many batches, or labels, a neighbourhood effectively holds.

use rayon::prelude::*;

use crate::graph::{Edge, Paths, Walk};
use crate::neighbours::Neighbours;
use crate::{Labels, Result};

/// Index of each cell, from 1 for a pure neighbourhood up to the number of groups for an even one. Neighbours are weighed
/// by a Gaussian-like kernel of effective size `perplexity`; the field takes a third of the neighbours.
///
/// # Errors   groups of another number of cells than neighbours
/// # Source   Korsunsky et al. 2019; `compute_lisi` of harmonypy
pub fn lisi(neighbours: &Neighbours, groups: &Labels, perplexity: f64) -> Result<Vec<f64>> {
    groups.check_len("the group column", neighbours.n_cells())?;
    let cells = neighbours.iter().map(|(rows, distances)| index(rows, &kernel(distances, perplexity), groups));
    Ok(cells.collect())
}

/// The same over each cell's `k` nearest by paths in the neighbour graph, the length of an edge being its weight, as scib
/// measures integration, for several groupings of the cells at once. A cell that reaches fewer than `k` others counts as
/// pure, 1.
///
/// # Errors   groupings of other numbers of cells, an edge beyond the grouped cells
/// # Source   `ilisi_graph` and `clisi_graph` of scib 1.1.7 (`k` 90), whose lengths are connectivities too
pub fn graph_lisi<const N: usize>(edges: &[Edge], groupings: [&Labels; N], k: usize) -> Result<[Vec<f64>; N]> {
    let n_cells = groupings.first().map_or(0, |groups| groups.len());
    groupings.iter().try_for_each(|groups| groups.check_len("a grouping", n_cells))?;
    let paths = Paths::new(edges, n_cells)?;
    let perplexity = (k / 3).max(1) as f64;
    let of_cell = |walk: &mut Walk, cell| {
        let (rows, distances) = paths.nearest(cell, k, walk);
        if rows.len() < k {
            return [1.0; N];
        }
        let weights = kernel(&distances, perplexity);
        groupings.map(|groups| index(&rows, &weights, groups))
    };
    let cells: Vec<[f64; N]> = (0..n_cells).into_par_iter().map_init(Walk::default, of_cell).collect();
    Ok(std::array::from_fn(|grouping| cells.iter().map(|indices| indices[grouping]).collect()))
}

/// Median index of batches, scaled so that 0 is no mixing and 1 is full mixing; `None` with fewer than two batches.
///
/// # Source   Luecken et al. 2022, iLISI
pub fn ilisi(index_by_cell: &[f64], batches: &Labels) -> Option<f64> {
    let n_batches = n_groups(batches)?;
    median(index_by_cell).map(|index| (index - 1.0) / (n_batches - 1.0))
}

/// Median index of labels, scaled so that 1 is full separation; `None` with fewer than two labels.
///
/// # Source   Luecken et al. 2022, cLISI
pub fn clisi(index_by_cell: &[f64], labels: &Labels) -> Option<f64> {
    let n_labels = n_groups(labels)?;
    median(index_by_cell).map(|index| (n_labels - index) / (n_labels - 1.0))
}

fn n_groups(groups: &Labels) -> Option<f64> {
    let n_groups = groups.counts().into_iter().filter(|&count| count > 0).count();
    (n_groups > 1).then_some(n_groups as f64)
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    (n > 0).then(|| (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0)
}

fn index(rows: &[u32], weights: &[f64], groups: &Labels) -> f64 {
    let mut shares = vec![0.0; groups.names().len()];
    for (&row, weight) in rows.iter().zip(weights) {
        shares[groups.codes()[row as usize] as usize] += weight;
    }
    1.0 / shares.iter().map(|share| share * share).sum::<f64>()
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
    fn the_scaled_figures_run_from_none_to_full() {
        let (two, one) = (Labels::from_names(&["a", "b"]), Labels::from_names(&["a", "a"]));
        assert_eq!((ilisi(&[1.0, 2.0], &two), clisi(&[1.0, 1.0], &two)), (Some(0.5), Some(1.0)));
        assert_eq!((ilisi(&[1.0, 1.0], &one), clisi(&[1.0, 1.0], &one)), (None, None));
    }

    #[test]
    fn a_cell_that_reaches_too_few_counts_as_pure() {
        let edges = [Edge { head: 0, tail: 1, weight: 0.5 }, Edge { head: 1, tail: 0, weight: 0.5 }];
        let groups = Labels::from_names(&["a", "b", "a"]);
        assert_eq!(graph_lisi(&edges, [&groups], 2).unwrap(), [[1.0, 1.0, 1.0]]);
    }
}
