//! Nearest neighbours by Euclidean distance: exact ones, and [approximate](approximate_self_knn) ones.
//!
//! Both sides are divided into tiles of nearby cells; a cell looks at reference tiles from near to far and stops when the
//! rest lie beyond its `k` nearest. Distances are computed and compared in double precision and ties go to the lower row,
//! so the result depends on neither tiles nor threads, and sites that search their own cells can merge exactly.
//!
//! Latent spaces need no approximation: tiles tell near from far in ten dimensions. In the 50 dimensions of a PCA they hardly
//! do, and the time of the exact search grows with the square of the cells, yet an index that one thread builds catches up
//! late. Seconds for 14 neighbours on two busy cores (`examples/neighbours.rs` measures them again):
//!
//! | cells | dimensions | exact | approximate | recall |
//! |---|---|---|---|---|
//! | 10,000 | 10 | 0.1 | 5.4 | 1.0000 |
//! | 10,000 | 50 | 0.7 | 9.3 | 1.0000 |
//! | 50,000 | 10 | 0.8 | 40.0 | 1.0000 |
//! | 50,000 | 50 | 18.6 | 105.1 | 0.9998 |
//!
//! By these the two meet near 300,000 cells, where [`nearest_others`] switches.

mod approximate;

use std::sync::atomic::{AtomicUsize, Ordering};

use ndarray::{ArrayView1, ArrayView2};
use rayon::prelude::*;

pub use approximate::{approximate_self_knn, recall};

use crate::distance::{TILE_ROWS, Tile, check_finite};
use crate::progress::{Progress, silent};
use crate::{AnalysisError, Result};

/// The `k` nearest reference rows of each cell, nearest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbours {
    k: usize,
    indices: Vec<u32>,
    distances: Vec<f64>,
}

impl Neighbours {
    /// From flat lists, cell after cell: how an approximate index or another site hands in its result.
    ///
    /// # Shapes   `indices`, `distances`: `[n_cells * k]`, nearest first within a cell
    /// # Errors   [`AnalysisError::Length`] when the lists do not fit each other or `k`
    pub fn from_parts(k: usize, indices: Vec<u32>, distances: Vec<f64>) -> Result<Self> {
        if indices.len() != distances.len() {
            let (found, expected) = (indices.len(), distances.len());
            return Err(AnalysisError::Length { what: "the list of neighbours", found, expected });
        }
        if k == 0 || !indices.len().is_multiple_of(k) {
            let (found, expected) = (indices.len(), k.max(1));
            return Err(AnalysisError::Length { what: "the last cell's list of neighbours", found, expected });
        }
        Ok(Self { k, indices, distances })
    }

    /// The `k` nearest over several sets of reference rows, each searched on its own for the same cells: what sites
    /// that keep their cells can answer together. `offsets` are the row numbers at which each set starts globally.
    ///
    /// # Errors   [`AnalysisError::Length`] when the parts differ in cells or `k`
    pub fn merge(parts: &[Self], offsets: &[u32]) -> Result<Self> {
        let Some(first) = parts.first() else {
            return Err(AnalysisError::Length { what: "the list of searched sets", found: 0, expected: 1 });
        };
        if offsets.len() != parts.len() {
            let (found, expected) = (offsets.len(), parts.len());
            return Err(AnalysisError::Length { what: "the list of row offsets", found, expected });
        }
        if let Some(part) = parts.iter().find(|part| part.k != first.k || part.n_cells() != first.n_cells()) {
            let (found, expected) = (part.indices.len(), first.indices.len());
            return Err(AnalysisError::Length { what: "a searched set", found, expected });
        }
        let mut merged = Self { k: first.k, indices: Vec::new(), distances: Vec::new() };
        for cell in 0..first.n_cells() {
            let mut nearest = Nearest::new(first.k);
            for (part, offset) in parts.iter().zip(offsets) {
                let (indices, distances) = part.of(cell);
                indices.iter().zip(distances).for_each(|(&row, &distance)| nearest.offer(distance, row + offset));
            }
            merged.indices.extend(nearest.kept.iter().map(|&(_, row)| row));
            merged.distances.extend(nearest.kept.iter().map(|&(distance, _)| distance));
        }
        Ok(merged)
    }

    /// The nearest `k` of each cell's neighbours; all, if there are fewer.
    #[must_use]
    pub fn nearest(&self, k: usize) -> Self {
        let k = k.clamp(1, self.k);
        let (mut indices, mut distances) = (Vec::new(), Vec::new());
        for (rows, of_rows) in self.iter() {
            indices.extend_from_slice(&rows[..k]);
            distances.extend_from_slice(&of_rows[..k]);
        }
        Self { k, indices, distances }
    }

    /// Neighbours per cell.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Cells that were asked about.
    pub fn n_cells(&self) -> usize {
        self.indices.len() / self.k
    }

    /// Reference rows and distances of one cell, nearest first.
    pub fn of(&self, cell: usize) -> (&[u32], &[f64]) {
        let range = cell * self.k..(cell + 1) * self.k;
        (&self.indices[range.clone()], &self.distances[range])
    }

    /// Reference rows and distances of each cell in turn.
    pub fn iter(&self) -> impl Iterator<Item = (&[u32], &[f64])> {
        self.indices.chunks_exact(self.k).zip(self.distances.chunks_exact(self.k))
    }
}

/// The `k` nearest rows of `reference` for each row of `query`.
///
/// # Shapes   `query`: `[n_query, n_dims]`; `reference`: `[n_reference, n_dims]`
/// # Errors   fewer than `k` reference rows, different dimensions, values that are not finite
pub fn knn(query: ArrayView2<'_, f32>, reference: ArrayView2<'_, f32>, k: usize) -> Result<Neighbours> {
    search(query, reference, k, |_| None, &silent)
}

/// [`knn`] that tells how far it has come.
///
/// # Errors   as [`knn`]
pub fn knn_telling(
    query: ArrayView2<'_, f32>,
    reference: ArrayView2<'_, f32>,
    k: usize,
    progress: Progress<'_>,
) -> Result<Neighbours> {
    search(query, reference, k, |_| None, progress)
}

/// How neighbours are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// All of them.
    Exact,
    /// Nearly all of them, by a graph that the seed decides.
    Approximate {
        /// Seed of the graph.
        seed: u64,
    },
}

impl Method {
    /// Exact, but for more cells in more dimensions than an approximate search is slower for.
    pub fn for_size(n_cells: usize, n_dims: usize, seed: u64) -> Self {
        if n_cells > MANY_CELLS && n_dims > MANY_DIMS { Self::Approximate { seed } } else { Self::Exact }
    }
}

/// The `k` nearest other rows for each row of `x` by a method.
///
/// # Errors   as [`self_knn`]
pub fn nearest_others(x: ArrayView2<'_, f32>, k: usize, method: Method, progress: Progress<'_>) -> Result<Neighbours> {
    match method {
        Method::Exact => self_knn_telling(x, k, progress),
        Method::Approximate { seed } => approximate_self_knn(x, k, seed, progress),
    }
}

/// The `k` nearest other rows for each row of `x`: a cell is never its own neighbour, not even beside a duplicate.
///
/// # Shapes   `x`: `[n_cells, n_dims]`
/// # Errors   `k` or fewer rows, values that are not finite
pub fn self_knn(x: ArrayView2<'_, f32>, k: usize) -> Result<Neighbours> {
    self_knn_telling(x, k, &silent)
}

fn self_knn_telling(x: ArrayView2<'_, f32>, k: usize, progress: Progress<'_>) -> Result<Neighbours> {
    if x.nrows() <= k {
        return Err(AnalysisError::TooFew { step: STEP, unit: "cells", needed: k + 1, found: x.nrows() });
    }
    search(x, x, k, Some, progress)
}

fn search(
    query: ArrayView2<'_, f32>,
    reference: ArrayView2<'_, f32>,
    k: usize,
    skipped_row: impl Fn(u32) -> Option<u32> + Sync,
    progress: Progress<'_>,
) -> Result<Neighbours> {
    let by_cell = search_each(query, reference, k, skipped_row, |nearest| nearest.kept, progress)?;
    Ok(Neighbours {
        k,
        indices: by_cell.iter().flatten().map(|&(_, row)| row).collect(),
        distances: by_cell.iter().flatten().map(|&(squared, _)| squared.sqrt()).collect(),
    })
}

/// What `each` makes of the squared distances and rows of the `k` nearest, nearest first, for each row of `query`: for
/// many cells of which only a result is kept.
///
/// # Errors   as [`knn`]
pub(crate) fn nearest_into<T: Send>(
    query: ArrayView2<'_, f32>,
    reference: ArrayView2<'_, f32>,
    k: usize,
    each: impl Fn(&[(f64, u32)]) -> T + Sync,
) -> Result<Vec<T>> {
    search_each(query, reference, k, |_| None, |nearest| each(&nearest.kept), &silent)
}

fn search_each<T: Send>(
    query: ArrayView2<'_, f32>,
    reference: ArrayView2<'_, f32>,
    k: usize,
    skipped_row: impl Fn(u32) -> Option<u32> + Sync,
    each: impl Fn(Nearest) -> T + Sync,
    progress: Progress<'_>,
) -> Result<Vec<T>> {
    if k == 0 {
        return Err(AnalysisError::Option { option: "n_neighbors", expected: "at least 1", found: k.to_string() });
    }
    if reference.nrows() < k {
        return Err(AnalysisError::TooFew { step: STEP, unit: "cells", needed: k, found: reference.nrows() });
    }
    if query.ncols() != reference.ncols() {
        let (found, expected) = (query.ncols(), reference.ncols());
        return Err(AnalysisError::Length { what: "a row of the query embedding", found, expected });
    }
    check_finite("the query embedding", query)?;
    check_finite("the reference embedding", reference)?;

    let tiles = Tile::divide(reference);
    let n_done = AtomicUsize::new(0);
    let found: Vec<Vec<(u32, T)>> = Tile::divide(query)
        .into_par_iter()
        .map(|block| {
            let order = by_distance(&tiles, &block);
            let near = |cell: u32| nearest_of(query.row(cell as usize), &tiles, &order, k, skipped_row(cell));
            let found = block.rows.iter().map(|&cell| (cell, each(near(cell)))).collect();
            let n = block.rows.len() + n_done.fetch_add(block.rows.len(), Ordering::Relaxed);
            progress(n as f64 / query.nrows() as f64);
            found
        })
        .collect();
    let mut by_cell: Vec<Option<T>> = (0..query.nrows()).map(|_| None).collect();
    for (cell, result) in found.into_iter().flatten() {
        by_cell[cell as usize] = Some(result);
    }
    Ok(by_cell.into_iter().map(|result| result.expect("tiles hold every cell")).collect())
}

/// Tiles in order of their least squared distance to any cell of the block, with that distance.
fn by_distance(tiles: &[Tile], block: &Tile) -> Vec<(f64, usize)> {
    let distances = tiles.iter().map(|tile| tile.squared_distance_between_boxes(block));
    let mut order: Vec<(f64, usize)> = distances.zip(0..).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    order
}

/// Searches tiles until all that remain lie beyond the worst of `k` kept rows; equal distances are still looked at, as a
/// lower row may win.
fn nearest_of(
    cell: ArrayView1<'_, f32>,
    tiles: &[Tile],
    order: &[(f64, usize)],
    k: usize,
    skipped_row: Option<u32>,
) -> Nearest {
    let mut nearest = Nearest::new(k);
    let mut squared = [0.0; TILE_ROWS];
    for &(least, tile) in order {
        if least > nearest.bound {
            break;
        }
        let tile = &tiles[tile];
        if tile.squared_distance_to_box(cell) > nearest.bound {
            continue;
        }
        tile.squared_distances(cell, &mut squared);
        for (&row, &distance) in tile.rows.iter().zip(&squared) {
            if distance <= nearest.bound && Some(row) != skipped_row {
                nearest.offer(distance, row);
            }
        }
    }
    nearest
}

/// The best candidates so far, nearest first, ties by row.
#[derive(Clone)]
struct Nearest {
    k: usize,
    kept: Vec<(f64, u32)>,
    /// Distance of the worst kept candidate once there are `k`: nothing beyond it is better.
    bound: f64,
}

impl Nearest {
    fn new(k: usize) -> Self {
        Self { k, kept: Vec::with_capacity(k + 1), bound: f64::INFINITY }
    }

    fn offer(&mut self, distance: f64, row: u32) {
        let at = self.kept.partition_point(|&(kept, kept_row)| kept < distance || kept == distance && kept_row < row);
        if at == self.k {
            return;
        }
        self.kept.insert(at, (distance, row));
        self.kept.truncate(self.k);
        if self.kept.len() == self.k {
            self.bound = self.kept[self.k - 1].0;
        }
    }
}

pub(crate) const STEP: &str = "the neighbour search";
/// Beyond both the exact search takes longer than the approximate one.
const MANY_CELLS: usize = 300_000;
const MANY_DIMS: usize = 20;

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array, s};

    use super::*;

    #[test]
    fn ties_go_to_the_lower_row() {
        let reference = array![[1.0f32], [0.0], [1.0], [-1.0]];
        let found = knn(array![[0.0f32]].view(), reference.view(), 3).unwrap();
        assert_eq!(found.of(0), (&[1, 0, 2][..], &[0.0, 1.0, 1.0][..]));
    }

    #[test]
    fn a_cell_is_not_its_own_neighbour_beside_duplicates() {
        let x = array![[0.0f32, 0.0], [0.0, 0.0], [0.0, 0.0], [3.0, 4.0]];
        let found = self_knn(x.view(), 2).unwrap();
        assert_eq!(found.of(1), (&[0, 2][..], &[0.0, 0.0][..]));
        assert_eq!(found.of(3), (&[0, 1][..], &[5.0, 5.0][..]));
    }

    #[test]
    fn tiles_do_not_change_the_result() {
        let x = Array2::from_shape_fn((3000, 3), |(i, j)| ((i * 7919 + j * 104_729) % 1009) as f32 / 50.0);
        let found = self_knn(x.view(), 5).unwrap();
        for cell in [0, 31, 32, 1024, 2999] {
            let mut all: Vec<(f64, u32)> = (0..3000u32)
                .filter(|&row| row as usize != cell)
                .map(|row| {
                    let squares = (0..3).map(|j| f64::from(x[[cell, j]]) - f64::from(x[[row as usize, j]]));
                    (squares.map(|d| d * d).sum::<f64>().sqrt(), row)
                })
                .collect();
            all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            assert_eq!(found.of(cell).0, all[..5].iter().map(|&(_, row)| row).collect::<Vec<_>>());
        }
    }

    #[test]
    fn searching_parts_and_merging_equals_searching_all() {
        let x = Array2::from_shape_fn((90, 2), |(i, j)| ((i * 31 + j * 17) % 23) as f32);
        let query = x.slice(s![..10, ..]);
        let parts = [(0, 30), (30, 70), (70, 90)].map(|(from, to)| knn(query, x.slice(s![from..to, ..]), 7).unwrap());
        let merged = Neighbours::merge(&parts, &[0, 30, 70]).unwrap();
        assert_eq!(merged, knn(query, x.view(), 7).unwrap());
    }

    #[test]
    fn the_nearest_of_many_are_those_of_a_search_for_few() {
        let x = Array2::from_shape_fn((60, 2), |(i, j)| ((i * 31 + j * 17) % 23) as f32);
        let many = self_knn(x.view(), 20).unwrap();
        assert_eq!(many.nearest(6), self_knn(x.view(), 6).unwrap());
        assert_eq!(many.nearest(21), many);
    }

    #[test]
    fn bad_input_is_refused() {
        let x = array![[0.0f32], [f32::NAN]];
        assert!(matches!(knn(x.view(), x.view(), 1), Err(AnalysisError::NotFinite { row: 1, column: 0, .. })));
        assert!(matches!(self_knn(x.view(), 2), Err(AnalysisError::TooFew { needed: 3, found: 2, .. })));
        assert!(matches!(knn(array![[0.0f32, 1.0]].view(), x.view(), 1), Err(AnalysisError::Length { .. })));
        assert!(matches!(knn(x.view(), x.view(), 0), Err(AnalysisError::Option { .. })));
    }
}
