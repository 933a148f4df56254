//! Silhouettes: how much closer a cell lies to its own group than to the next.

use ndarray::{ArrayView2, Axis};
use rayon::prelude::*;

use crate::distance::{TILE_ROWS, Tile, check_finite};
use crate::{Labels, Result};

use super::mean;

/// Silhouette of each cell, -1 to 1, by Euclidean distance; 0 for a group of one cell. `None` unless there are at least
/// two groups and fewer groups than cells.
///
/// # Shapes   `x`: `[n_cells, n_dims]`
/// # Errors   groups of another number of cells, values that are not finite
/// # Source   Rousseeuw 1987; `silhouette_samples` of scikit-learn
pub fn silhouette_samples(x: ArrayView2<'_, f32>, groups: &Labels) -> Result<Option<Vec<f64>>> {
    groups.check_len("the group column", x.nrows())?;
    check_finite("the embedding", x)?;
    let sizes = groups.counts();
    let n_groups = sizes.iter().filter(|&&size| size > 0).count();
    if n_groups < 2 || n_groups >= x.nrows() {
        return Ok(None);
    }
    let tiles = Tile::divide(x);
    let samples = (0..x.nrows()).into_par_iter().map_init(
        || (vec![0.0; TILE_ROWS], vec![0.0; sizes.len()]),
        |(squared, sums), cell| {
            sums.fill(0.0);
            for tile in &tiles {
                tile.squared_distances(x.row(cell), squared);
                for (&row, distance) in tile.rows.iter().zip(squared.iter()) {
                    sums[groups.codes()[row as usize] as usize] += distance.sqrt();
                }
            }
            silhouette(groups.codes()[cell] as usize, sums, &sizes)
        },
    );
    Ok(Some(samples.collect()))
}

/// Mean silhouette by label, scaled to 0..1; `None` where silhouettes are undefined.
///
/// # Errors   as [`silhouette_samples`]
pub fn asw_label(x: ArrayView2<'_, f32>, labels: &Labels) -> Result<Option<f64>> {
    Ok(silhouette_samples(x, labels)?.and_then(|samples| scaled_mean(&samples)))
}

/// Mean of silhouettes, scaled to 0..1.
pub(super) fn scaled_mean(silhouettes: &[f64]) -> Option<f64> {
    mean(silhouettes.iter().copied()).map(|silhouette| (silhouette + 1.0) / 2.0)
}

/// Mean over labels of [`asw_batch_by_label`]; `None` when no label has cells of two batches.
///
/// # Errors   as [`silhouette_samples`]
pub fn asw_batch(x: ArrayView2<'_, f32>, labels: &Labels, batches: &Labels) -> Result<Option<f64>> {
    Ok(mean(asw_batch_by_label(x, labels, batches)?.into_iter().map(|(_, value)| value)))
}

/// Within each label, the mean over cells of 1 - |silhouette by batch|: 1 when batches cannot be told apart. Labels for
/// which it is undefined (one batch, or each cell in its own) are left out.
///
/// # Errors   as [`silhouette_samples`]
/// # Source   Luecken et al. 2022, batch ASW
pub fn asw_batch_by_label(x: ArrayView2<'_, f32>, labels: &Labels, batches: &Labels) -> Result<Vec<(String, f64)>> {
    labels.check_len("the label column", x.nrows())?;
    batches.check_len("the batch column", x.nrows())?;
    let mut by_label = Vec::new();
    for (name, members) in labels.names().iter().zip(labels.members()) {
        let within = x.select(Axis(0), &members);
        if let Some(samples) = silhouette_samples(within.view(), &batches.select(&members))? {
            by_label.extend(mean(samples.into_iter().map(|s| 1.0 - s.abs())).map(|value| (name.clone(), value)));
        }
    }
    Ok(by_label)
}

fn silhouette(own: usize, sums: &[f64], sizes: &[usize]) -> f64 {
    if sizes[own] == 1 {
        return 0.0;
    }
    // The cell itself adds nothing to its group's sum.
    let within = sums[own] / (sizes[own] - 1) as f64;
    let others = (0..sizes.len()).filter(|&group| group != own && sizes[group] > 0);
    let nearest_other = others.map(|group| sums[group] / sizes[group] as f64).fold(f64::INFINITY, f64::min);
    match within.max(nearest_other) {
        0.0 => 0.0,
        larger => (nearest_other - within) / larger,
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn values_follow_the_definition() {
        let x = array![[0.0f32], [1.0], [4.0]];
        let found = silhouette_samples(x.view(), &Labels::from_names(&["a", "a", "b"])).unwrap().unwrap();
        assert_eq!(found, [0.75, 2.0 / 3.0, 0.0]);
    }

    #[test]
    fn one_group_or_one_cell_per_group_is_undefined() {
        let x = array![[0.0f32], [1.0]];
        assert_eq!(silhouette_samples(x.view(), &Labels::from_names(&["a", "a"])).unwrap(), None);
        assert_eq!(asw_label(x.view(), &Labels::from_names(&["a", "b"])).unwrap(), None);
        let (labels, batches) = (Labels::from_names(&["a", "a"]), Labels::from_names(&["s", "s"]));
        assert_eq!(asw_batch(x.view(), &labels, &batches).unwrap(), None);
    }
}
