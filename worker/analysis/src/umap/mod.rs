//! UMAP: a two-dimensional picture that keeps neighbours together.
//!
//! Our own, since the crates at hand draw from an unseeded generator and update points from racing threads: two runs give
//! two pictures. Here one seed gives one picture. The steps and constants are those of McInnes et al. 2018 and umap-learn,
//! the defaults scanpy's. `curve` fits the target similarity, `layout` moves the
//! points.

mod curve;
mod layout;

use ndarray::{Array2, ArrayView2, Axis};
use rand::SeedableRng;
use rand::distr::{Distribution, Uniform};
use rand_chacha::ChaCha8Rng;

use crate::graph::{Edge, connectivities};
use crate::neighbours::self_knn;
use crate::pca::Pca;
use crate::progress::{Progress, silent};
use crate::{AnalysisError, Result};

/// How the picture is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Umap {
    /// Size of a neighbourhood, the cell itself included.
    pub n_neighbors: usize,
    /// How close points may lie.
    pub min_dist: f64,
    /// Scale of the picture.
    pub spread: f64,
    /// Passes over the edges; by default 500, or 200 beyond 10,000 cells.
    pub n_epochs: Option<usize>,
    /// Seed of the layout.
    pub seed: u64,
}

impl Default for Umap {
    fn default() -> Self {
        Self { n_neighbors: 15, min_dist: 0.5, spread: 1.0, n_epochs: None, seed: 0 }
    }
}

impl Umap {
    fn epochs(&self, n_cells: usize) -> usize {
        self.n_epochs.unwrap_or(if n_cells <= 10_000 { 500 } else { 200 }).max(1)
    }

    fn check(&self) -> Result<()> {
        let option = match *self {
            Umap { n_neighbors: 0..=1, .. } => Some(("n_neighbors", "at least 2", self.n_neighbors.to_string())),
            Umap { spread, .. } if spread <= 0.0 || !spread.is_finite() => {
                Some(("spread", "above 0", spread.to_string()))
            }
            Umap { min_dist, spread, .. } if !(0.0..=3.0 * spread).contains(&min_dist) => {
                Some(("min_dist", "between 0 and three times the spread", min_dist.to_string()))
            }
            _ => None,
        };
        if let Some((option, expected, found)) = option {
            return Err(AnalysisError::Option { option, expected, found });
        }
        Ok(())
    }
}

/// Places cells in the plane.
///
/// # Shapes   `x`: `[n_cells, n_dims]`, at least two dimensions; returns `[n_cells, 2]`
/// # Errors   too few cells for the neighbourhood, values not finite, options out of range
/// # Source   McInnes, Healy & Melville 2018
pub fn umap(x: ArrayView2<'_, f32>, options: Umap) -> Result<Array2<f32>> {
    options.check()?;
    let edges = connectivities(&self_knn(x, options.n_neighbors - 1)?);
    umap_of_graph(x, &edges, options, &silent)
}

/// Places cells by a graph that was made before, such as one of an approximate search or one that a file holds; `x` gives
/// the start.
///
/// # Shapes   `x`: `[n_cells, n_dims]`, at least two dimensions; returns `[n_cells, 2]`
/// # Errors   an edge beyond the cells, values not finite, options out of range
pub fn umap_of_graph(
    x: ArrayView2<'_, f32>,
    edges: &[Edge],
    options: Umap,
    progress: Progress<'_>,
) -> Result<Array2<f32>> {
    options.check()?;
    let last = edges.iter().map(|edge| edge.head.max(edge.tail) as usize).max();
    if let Some(last) = last.filter(|&last| last >= x.nrows()) {
        return Err(AnalysisError::Length { what: "the graph's cells", found: x.nrows(), expected: last + 1 });
    }
    let start = principal_plane(x, options.seed)?;
    let curve = curve::Curve::fit(options.min_dist, options.spread);
    Ok(layout::optimise(start, edges, curve, options.epochs(x.nrows()), options.seed, progress))
}

/// The first two principal components, each stretched to 0..10, with a little noise that parts duplicates.
pub(crate) fn principal_plane(x: ArrayView2<'_, f32>, seed: u64) -> Result<Array2<f32>> {
    let mut plane = Pca::fit(x, 2)?.project(x)?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let noise = Uniform::new(-NOISE, NOISE).expect("the range is not empty");
    for mut column in plane.axis_iter_mut(Axis(1)) {
        let (low, high) = column.iter().fold((f32::MAX, f32::MIN), |(low, high), &v| (low.min(v), high.max(v)));
        let stretch = if high > low { EXTENT / (high - low) } else { 0.0 };
        column.mapv_inplace(|value| (value - low) * stretch + noise.sample(&mut rng));
    }
    Ok(plane)
}

const EXTENT: f32 = 10.0;
const NOISE: f32 = 1e-3;

#[cfg(test)]
mod tests {
    use super::*;

    fn three_groups(n_cells: usize) -> Array2<f32> {
        Array2::from_shape_fn((n_cells, 4), |(i, j)| {
            let centre = if i % 3 == j { 8.0 } else { 0.0 };
            centre + ((i * 7919 + j * 104_729) % 997) as f32 / 997.0
        })
    }

    #[test]
    fn one_seed_gives_one_picture() {
        let x = three_groups(90);
        let options = Umap { n_epochs: Some(40), ..Umap::default() };
        assert_eq!(umap(x.view(), options).unwrap(), umap(x.view(), options).unwrap());
    }

    #[test]
    fn groups_stay_apart_and_neighbours_together() {
        let x = three_groups(240);
        let picture = umap(x.view(), Umap::default()).unwrap();
        assert!(picture.iter().all(|value| value.is_finite()));
        let kept = self_knn(picture.view(), 10).unwrap();
        let own_group = kept.iter().enumerate().flat_map(|(cell, (rows, _))| rows.iter().map(move |&r| (cell, r)));
        assert!(own_group.into_iter().all(|(cell, row)| cell % 3 == row as usize % 3));
    }

    #[test]
    fn duplicates_are_placed() {
        let picture = umap(Array2::ones((30, 3)).view(), Umap { n_epochs: Some(20), ..Umap::default() }).unwrap();
        assert!(picture.iter().all(|value| value.is_finite()));
    }

    #[test]
    fn options_out_of_range_are_refused() {
        let x = three_groups(30);
        let check = |options| umap(x.view(), options).unwrap_err();
        assert!(matches!(check(Umap { n_neighbors: 1, ..Umap::default() }), AnalysisError::Option { .. }));
        assert!(matches!(check(Umap { min_dist: -1.0, ..Umap::default() }), AnalysisError::Option { .. }));
        assert!(matches!(check(Umap { spread: f64::NAN, ..Umap::default() }), AnalysisError::Option { .. }));
        assert!(matches!(check(Umap { n_neighbors: 31, ..Umap::default() }), AnalysisError::TooFew { .. }));
    }
}
