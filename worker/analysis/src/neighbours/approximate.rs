//! Approximate neighbours by a navigable small-world graph, for many cells of many dimensions.
//!
//! The graph is built on one thread, so that one seed gives one result; searches run on all. Distances of what is found are
//! computed anew in double precision. What is missed is measured, not promised: see `recall` and the tests.

use instant_distance::{Builder, Hnsw, Point, Search};
use ndarray::{ArrayView1, ArrayView2};
use rayon::prelude::*;

use super::{Nearest, Neighbours, STEP};
use crate::distance::check_finite;
use crate::progress::Progress;
use crate::{AnalysisError, Result};

/// The approximately `k` nearest other rows for each row of `x`, nearest first, ties by row.
///
/// # Shapes   `x`: `[n_cells, n_dims]`
/// # Errors   `k` or fewer rows, values that are not finite, threads that the system does not give
/// # Source   Malkov & Yashunin 2018
pub fn approximate_self_knn(x: ArrayView2<'_, f32>, k: usize, seed: u64, progress: Progress<'_>) -> Result<Neighbours> {
    if k == 0 {
        return Err(AnalysisError::Option { option: "n_neighbors", expected: "at least 1", found: k.to_string() });
    }
    if x.nrows() <= k {
        return Err(AnalysisError::TooFew { step: STEP, unit: "cells", needed: k + 1, found: x.nrows() });
    }
    check_finite("the embedding", x)?;
    let rows: Vec<Row> = x.rows().into_iter().map(|row| Row(row.iter().copied().collect())).collect();
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let one_thread = one_thread.map_err(|error| AnalysisError::Threads { reason: error.to_string() })?;
    let builder = Builder::default().seed(seed).ef_construction(EF_CONSTRUCTION).ef_search(EF_SEARCH.max(2 * k));
    let (graph, ids) = one_thread.install(|| builder.build_hnsw(rows));
    progress(BUILDING);
    let mut row_of = vec![0u32; ids.len()];
    for (row, id) in (0u32..).zip(&ids) {
        row_of[id.into_inner() as usize] = row;
    }
    let n_done = std::sync::atomic::AtomicUsize::new(0);
    let found: Vec<Nearest> = (0..x.nrows())
        .into_par_iter()
        .map_init(Search::default, |search, cell| {
            let nearest = nearest_of(x, cell, k, &graph, &row_of, search);
            let n = 1 + n_done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if n.is_multiple_of(1024) {
                progress(BUILDING + (1.0 - BUILDING) * n as f64 / x.nrows() as f64);
            }
            nearest
        })
        .collect();
    let kept = || found.iter().flat_map(|nearest| &nearest.kept);
    Ok(Neighbours {
        k,
        indices: kept().map(|&(_, row)| row).collect(),
        distances: kept().map(|&(squared, _)| squared.sqrt()).collect(),
    })
}

/// Share of the exact neighbours that are among the found ones, over all cells of both.
///
/// # Errors   [`AnalysisError::Length`] when the two are of different cells or `k`
pub fn recall(found: &Neighbours, exact: &Neighbours) -> Result<f64> {
    if found.k() != exact.k() || found.n_cells() != exact.n_cells() {
        let (found, expected) = (found.indices.len(), exact.indices.len());
        return Err(AnalysisError::Length { what: "the list of neighbours", found, expected });
    }
    let hits: usize =
        found.iter().zip(exact.iter()).map(|((a, _), (b, _))| b.iter().filter(|row| a.contains(row)).count()).sum();
    Ok(hits as f64 / exact.indices.len().max(1) as f64)
}

fn nearest_of(
    x: ArrayView2<'_, f32>,
    cell: usize,
    k: usize,
    graph: &Hnsw<Row>,
    row_of: &[u32],
    search: &mut Search,
) -> Nearest {
    let own = x.row(cell);
    let mut nearest = Nearest::new(k);
    let query = Row(own.iter().copied().collect());
    for item in graph.search(&query, search) {
        let row = row_of[item.pid.into_inner() as usize];
        if row as usize != cell {
            nearest.offer(squared_distance(own, x.row(row as usize)), row);
        }
    }
    if nearest.kept.len() < k {
        // The graph fell apart around this cell: look at all others.
        nearest = Nearest::new(k);
        for (row, other) in (0u32..).zip(x.rows()).filter(|(row, _)| *row as usize != cell) {
            nearest.offer(squared_distance(own, other), row);
        }
    }
    nearest
}

#[derive(Clone)]
struct Row(Box<[f32]>);

impl Point for Row {
    fn distance(&self, other: &Self) -> f32 {
        self.0.iter().zip(&other.0).map(|(a, b)| (a - b) * (a - b)).sum()
    }
}

fn squared_distance(a: ArrayView1<'_, f32>, b: ArrayView1<'_, f32>) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum()
}

const EF_CONSTRUCTION: usize = 100;
const EF_SEARCH: usize = 100;
/// Share of the time that building takes, about.
const BUILDING: f64 = 0.8;

#[cfg(test)]
mod tests {
    use ndarray::Array2;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::neighbours::self_knn;
    use crate::progress::silent;

    /// Ten clouds in thirty dimensions.
    fn cells(n_cells: usize) -> Array2<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let centres = Array2::from_shape_simple_fn((10, 30), || rng.random_range(-2.0f32..2.0));
        Array2::from_shape_fn((n_cells, 30), |(i, j)| centres[[i % 10, j]] + rng.random_range(-1.5f32..1.5))
    }

    #[test]
    fn almost_all_neighbours_are_found_and_one_seed_gives_one_result() {
        let x = cells(2000);
        let found = approximate_self_knn(x.view(), 14, 1, &silent).unwrap();
        let exact = self_knn(x.view(), 14).unwrap();
        let recall = recall(&found, &exact).unwrap();
        assert!(recall > 0.95, "recall {recall}");
        assert_eq!(found, approximate_self_knn(x.view(), 14, 1, &silent).unwrap());
    }

    #[test]
    fn every_cell_has_all_its_neighbours_even_among_duplicates() {
        let found = approximate_self_knn(Array2::zeros((40, 3)).view(), 39, 0, &silent).unwrap();
        assert!(found.iter().enumerate().all(|(cell, (rows, _))| rows.len() == 39 && !rows.contains(&(cell as u32))));
        let few = approximate_self_knn(Array2::zeros((3, 2)).view(), 3, 0, &silent);
        assert!(matches!(few, Err(AnalysisError::TooFew { needed: 4, .. })));
    }
}
