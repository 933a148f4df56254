//! k-means: Lloyd's iterations from greedy k-means++ starts, the best of several kept.
//!
//! Our own, since the integration figures need scikit-learn's procedure (greedy starts, its stopping rule, relocation of
//! empty clusters) and the clustering crate at hand pins other versions of the matrix crates.

use ndarray::{Array2, ArrayView2, Axis};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::distance::check_finite;
use crate::{AnalysisError, Result};

/// How often and how long to try.
#[derive(Debug, Clone, Copy)]
pub struct KMeans {
    /// Number of clusters.
    pub n_clusters: usize,
    /// Independent starts; the one with the smallest inertia is kept.
    pub n_init: usize,
    /// Iterations per start at most.
    pub max_iter: usize,
    /// Seed of the starts.
    pub seed: u64,
}

impl KMeans {
    /// Ten starts of at most 300 iterations.
    pub fn new(n_clusters: usize, seed: u64) -> Self {
        Self { n_clusters, n_init: 10, max_iter: 300, seed }
    }
}

/// A partition of cells around centres.
#[derive(Debug, Clone, PartialEq)]
pub struct Clustering {
    /// Cluster of each cell.
    pub assignment: Vec<u32>,
    /// Cluster centres, `[n_clusters, n_dims]`.
    pub centres: Array2<f64>,
    /// Sum of squared distances to the own centre.
    pub inertia: f64,
}

/// Partitions cells into `n_clusters`.
///
/// # Shapes   `x`: `[n_cells, n_dims]`
/// # Errors   no cluster or no start, fewer cells than clusters, values that are not finite
/// # Source   Arthur & Vassilvitskii 2007; stopping and relocation as `KMeans` of scikit-learn
pub fn kmeans(x: ArrayView2<'_, f32>, options: KMeans) -> Result<Clustering> {
    for (option, value) in [("n_clusters", options.n_clusters), ("n_init", options.n_init)] {
        if value == 0 {
            return Err(AnalysisError::Option { option, expected: "at least 1", found: value.to_string() });
        }
    }
    if x.nrows() < options.n_clusters {
        let (needed, found) = (options.n_clusters, x.nrows());
        return Err(AnalysisError::TooFew { step: "k-means", unit: "cells", needed, found });
    }
    check_finite("the embedding", x)?;
    let x = x.mapv(f64::from);
    let variances = x.var_axis(Axis(0), 0.0);
    let tolerance = TOLERANCE * variances.mean().unwrap_or(0.0);
    let mut starts: Vec<Clustering> = (0..options.n_init as u64)
        .into_par_iter()
        .map(|start| {
            // A stream per start keeps each start's draws independent of the others' order.
            let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
            rng.set_stream(start);
            let centres = spread_centres(&x, options.n_clusters, &mut rng);
            lloyd(&x, centres, options.max_iter, tolerance)
        })
        .collect();
    let mut best = starts.swap_remove(0);
    for other in starts {
        if other.inertia < best.inertia {
            best = other;
        }
    }
    Ok(best)
}

/// Greedy k-means++: each centre is the best of a few cells drawn in proportion to their squared distance.
fn spread_centres(x: &Array2<f64>, n_clusters: usize, rng: &mut ChaCha8Rng) -> Array2<f64> {
    let n_trials = 2 + (n_clusters as f64).ln() as usize;
    let mut chosen = vec![rng.random_range(0..x.nrows())];
    let mut nearest = squared_distances(x, chosen[0]);
    while chosen.len() < n_clusters {
        let total: f64 = nearest.iter().sum();
        let trials = (0..n_trials).map(|_| {
            let cell = draw(&nearest, rng.random::<f64>() * total);
            let mut with_it = squared_distances(x, cell);
            with_it.iter_mut().zip(&nearest).for_each(|(new, &old)| *new = new.min(old));
            (cell, with_it)
        });
        let potential = |candidate: &(usize, Vec<f64>)| candidate.1.iter().sum::<f64>();
        let best = trials.min_by(|a, b| potential(a).total_cmp(&potential(b)));
        let (cell, with_it) = best.expect("there are at least two trials");
        chosen.push(cell);
        nearest = with_it;
    }
    x.select(Axis(0), &chosen)
}

fn draw(weights: &[f64], mut at: f64) -> usize {
    for (cell, &weight) in weights.iter().enumerate() {
        at -= weight;
        if at < 0.0 {
            return cell;
        }
    }
    weights.len() - 1
}

fn squared_distances(x: &Array2<f64>, cell: usize) -> Vec<f64> {
    let centre = x.row(cell).to_vec();
    x.rows().into_iter().map(|row| squared_distance(row.iter(), &centre)).collect()
}

fn squared_distance<'a>(row: impl Iterator<Item = &'a f64>, centre: &[f64]) -> f64 {
    row.zip(centre).map(|(a, b)| (a - b) * (a - b)).sum()
}

fn lloyd(x: &Array2<f64>, mut centres: Array2<f64>, max_iter: usize, tolerance: f64) -> Clustering {
    let (mut assignment, mut to_centre) = assign(x, &centres);
    for _ in 0..max_iter {
        let moved_centres = mean_of_members(x, &assignment, &to_centre, centres.nrows());
        let shift = (&moved_centres - &centres).mapv(|d| d * d).sum();
        centres = moved_centres;
        let (next, distances) = assign(x, &centres);
        let settled = next == assignment;
        (assignment, to_centre) = (next, distances);
        if settled || shift <= tolerance {
            break;
        }
    }
    Clustering { assignment, centres, inertia: to_centre.iter().sum() }
}

fn assign(x: &Array2<f64>, centres: &Array2<f64>) -> (Vec<u32>, Vec<f64>) {
    let centres: Vec<Vec<f64>> = centres.rows().into_iter().map(|row| row.to_vec()).collect();
    let nearest = x.rows().into_iter().map(|row| {
        let mut best = (0, f64::INFINITY);
        for (cluster, centre) in (0u32..).zip(&centres) {
            let distance = squared_distance(row.iter(), centre);
            if distance < best.1 {
                best = (cluster, distance);
            }
        }
        best
    });
    nearest.unzip()
}

/// Centres of the clusters; an empty cluster is given the cell that lies farthest from its centre.
fn mean_of_members(x: &Array2<f64>, assignment: &[u32], to_centre: &[f64], n_clusters: usize) -> Array2<f64> {
    let mut sums = Array2::zeros((n_clusters, x.ncols()));
    let mut sizes = vec![0usize; n_clusters];
    for (row, &cluster) in x.rows().into_iter().zip(assignment) {
        sums.row_mut(cluster as usize).zip_mut_with(&row, |sum, value| *sum += value);
        sizes[cluster as usize] += 1;
    }
    let empty: Vec<usize> = (0..n_clusters).filter(|&cluster| sizes[cluster] == 0).collect();
    let mut farthest: Vec<usize> = if empty.is_empty() { Vec::new() } else { (0..x.nrows()).collect() };
    farthest.sort_by(|&a, &b| to_centre[b].total_cmp(&to_centre[a]).then(a.cmp(&b)));
    let mut farthest = farthest.into_iter();
    for cluster in empty {
        // A cluster's only cell stays: moving it would leave another cluster empty.
        let Some(cell) = farthest.by_ref().find(|&cell| sizes[assignment[cell] as usize] > 1) else { break };
        let donor = assignment[cell] as usize;
        sums.row_mut(donor).zip_mut_with(&x.row(cell), |sum, value| *sum -= value);
        sizes[donor] -= 1;
        sums.row_mut(cluster).assign(&x.row(cell));
        sizes[cluster] = 1;
    }
    for (mut sum, &size) in sums.rows_mut().into_iter().zip(&sizes) {
        sum /= size.max(1) as f64;
    }
    sums
}

/// Of the mean variance of the dimensions: a total shift of the centres below it ends a start.
const TOLERANCE: f64 = 1e-4;

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn separate_groups_are_found() {
        let x = Array2::from_shape_fn((60, 2), |(i, j)| (i % 3 * 10) as f32 + ((i * 7 + j * 3) % 5) as f32 / 10.0);
        let found = kmeans(x.view(), KMeans::new(3, 0)).unwrap();
        for cell in 3..60 {
            assert_eq!(found.assignment[cell], found.assignment[cell % 3]);
        }
        assert!(found.inertia < 3.0, "inertia is {}", found.inertia);
    }

    #[test]
    fn one_seed_gives_one_result() {
        let x = Array2::from_shape_fn((200, 3), |(i, j)| ((i * 7919 + j * 31) % 101) as f32);
        let run = |seed| kmeans(x.view(), KMeans::new(7, seed)).unwrap();
        assert_eq!(run(5), run(5));
    }

    #[test]
    fn duplicates_fewer_than_clusters_do_not_fail() {
        let x = array![[1.0f32], [1.0], [1.0], [2.0]];
        let found = kmeans(x.view(), KMeans::new(3, 0)).unwrap();
        assert_eq!(found.inertia, 0.0);
    }

    #[test]
    fn fewer_cells_than_clusters_is_refused() {
        let error = kmeans(array![[1.0f32]].view(), KMeans::new(2, 0)).unwrap_err();
        assert!(matches!(error, AnalysisError::TooFew { needed: 2, found: 1, .. }));
    }
}
