//! t-SNE: cells in the plane, near ones together; distances between groups mean nothing.
//!
//! Barnes-Hut gradients of the `bhtsne` crate on our own neighbours. It starts from the principal plane and runs on one
//! thread, since sums that threads share would differ from run to run.

mod few;

use bhtsne::Neighbor;
use ndarray::{Array2, ArrayView2};

use self::few::Descent;
use crate::neighbours::{Method, nearest_others};
use crate::progress::Progress;
use crate::umap::principal_plane;
use crate::{AnalysisError, Result};

/// How the picture is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tsne {
    /// Effective number of neighbours.
    pub perplexity: f64,
    /// Steps of the descent.
    pub n_epochs: usize,
    /// Seed of an approximate search and of the start.
    pub seed: u64,
}

impl Tsne {
    /// The perplexity where none is asked for: 30 as in scikit-learn, and for as few cells as that a third of them.
    pub fn usual_perplexity(n_cells: usize) -> f64 {
        if n_cells > 30 { 30.0 } else { (n_cells.saturating_sub(1) / 3).max(1) as f64 }
    }
}

impl Default for Tsne {
    fn default() -> Self {
        Self { perplexity: 30.0, n_epochs: 1000, seed: 0 }
    }
}

/// Places cells in the plane, with three times the perplexity as neighbours, or all where there are fewer.
///
/// # Shapes   `x`: `[n_cells, n_dims]`, at least two dimensions; returns `[n_cells, 2]`
/// # Errors   too few cells for the perplexity, values not finite, options out of range
/// # Source   van der Maaten 2014; learning rate n / 12 and start as Kobak & Berens 2019
pub fn tsne(x: ArrayView2<'_, f32>, options: Tsne, progress: Progress<'_>) -> Result<Array2<f32>> {
    let Tsne { perplexity, n_epochs, seed } = options;
    let found = || perplexity.to_string();
    if !(1.0..=1000.0).contains(&perplexity) {
        return Err(AnalysisError::Option { option: "perplexity", expected: "between 1 and 1000", found: found() });
    }
    if perplexity >= x.nrows() as f64 {
        return Err(AnalysisError::Option {
            option: "perplexity",
            expected: "below the number of cells",
            found: found(),
        });
    }
    let k = ((3.0 * perplexity) as usize).min(x.nrows() - 1);
    let method = Method::for_size(x.nrows(), x.ncols(), seed);
    let neighbours = nearest_others(x, k, method, &|share| progress(SEARCH * share))?;
    let learning_rate = (x.nrows() as f32 / EXAGGERATION).max(SLOWEST);
    let start = start(x, seed)?;
    if x.nrows() - 1 < 3 * perplexity as usize {
        let (learning_rate, exaggeration) = (f64::from(learning_rate), f64::from(EXAGGERATION));
        let descent = Descent { perplexity, n_epochs, learning_rate, exaggeration };
        let placed = descent.run(&neighbours, &start, &|share| progress(SEARCH + (1.0 - SEARCH) * share));
        return Ok(Array2::from_shape_vec((x.nrows(), 2), placed).expect("two coordinates per cell"));
    }
    let table: Vec<Vec<Neighbor<f32>>> = neighbours
        .iter()
        .map(|(rows, distances)| {
            let near = rows.iter().zip(distances);
            near.map(|(&row, &d)| Neighbor { index: row as usize, distance: d as f32 }).collect()
        })
        .collect();
    let cells: Vec<usize> = (0..x.nrows()).collect();
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let one_thread = one_thread.map_err(|error| AnalysisError::Threads { reason: error.to_string() })?;
    let placed = one_thread.install(|| {
        let mut tsne = bhtsne::tSNE::<f32, usize, 2>::new(&cells);
        tsne.perplexity(perplexity as f32)
            .epochs(n_epochs)
            .learning_rate(learning_rate)
            .early_exaggeration(EXAGGERATION)
            .initial_embedding(start)
            .epoch_callback(|epoch, _| progress(SEARCH + (1.0 - SEARCH) * epoch as f64 / n_epochs as f64));
        tsne.barnes_hut_with_neighbors(THETA, &table);
        tsne.embedding()
    });
    Ok(Array2::from_shape_vec((x.nrows(), 2), placed).expect("two coordinates per cell"))
}

/// The principal plane, scaled down so that the first steps are free to move everything.
fn start(x: ArrayView2<'_, f32>, seed: u64) -> Result<Vec<f32>> {
    let plane = principal_plane(x, seed)?;
    let mean = plane.column(0).mean().unwrap_or(0.0);
    let deviation = plane.column(0).mapv(|v| (v - mean).powi(2)).mean().unwrap_or(1.0).sqrt();
    let scale = if deviation > 0.0 { START_DEVIATION / deviation } else { START_DEVIATION };
    Ok(plane.iter().map(|value| value * scale).collect())
}

/// Share of the work that the search for neighbours is.
const SEARCH: f64 = 0.1;
const THETA: f32 = 0.5;
const EXAGGERATION: f32 = 12.0;
const SLOWEST: f32 = 50.0;
const START_DEVIATION: f32 = 1e-4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::neighbours::self_knn;
    use crate::progress::silent;

    fn three_groups(n_cells: usize) -> Array2<f32> {
        Array2::from_shape_fn((n_cells, 4), |(i, j)| {
            let centre = if i % 3 == j { 8.0 } else { 0.0 };
            centre + ((i * 7919 + j * 104_729) % 997) as f32 / 997.0
        })
    }

    #[test]
    fn groups_stay_apart_and_one_seed_gives_one_picture() {
        let x = three_groups(150);
        let options = Tsne { perplexity: 10.0, n_epochs: 300, seed: 1 };
        let picture = tsne(x.view(), options, &silent).unwrap();
        let kept = self_knn(picture.view(), 5).unwrap();
        for (cell, (rows, _)) in kept.iter().enumerate() {
            assert!(rows.iter().all(|&row| row as usize % 3 == cell % 3), "cell {cell} lies among others");
        }
        assert_eq!(picture, tsne(x.view(), options, &silent).unwrap());
    }

    #[test]
    fn options_out_of_range_are_refused() {
        let x = three_groups(30);
        let check = |perplexity| tsne(x.view(), Tsne { perplexity, ..Tsne::default() }, &silent).unwrap_err();
        assert!(matches!(check(0.5), AnalysisError::Option { option: "perplexity", .. }));
        assert!(matches!(check(30.0), AnalysisError::Option { expected: "below the number of cells", .. }));
    }

    #[test]
    fn few_cells_are_placed_whatever_the_perplexity() {
        for (n_cells, perplexity) in [(80, 30.0), (30, Tsne::usual_perplexity(30)), (31, 30.0), (4, 1.0)] {
            let x = three_groups(n_cells);
            let options = Tsne { perplexity, n_epochs: 300, seed: 1 };
            let picture = tsne(x.view(), options, &silent).unwrap();
            assert!(picture.iter().all(|value| value.is_finite()), "{n_cells} cells");
            assert_eq!(picture, tsne(x.view(), options, &silent).unwrap());
        }
        let x = three_groups(60);
        let picture = tsne(x.view(), Tsne { perplexity: 20.0, n_epochs: 500, seed: 1 }, &silent).unwrap();
        for (cell, (rows, _)) in self_knn(picture.view(), 5).unwrap().iter().enumerate() {
            assert!(rows.iter().all(|&row| row as usize % 3 == cell % 3), "cell {cell} lies among others");
        }
    }
}
