//! Principal component regression: how much of the variance the batches explain.

use ndarray::{ArrayView1, ArrayView2};

use crate::pca::Pca;
use crate::{Labels, Result};

/// Share of the variance in the first `n_components` that batches explain, 0 to 1: each component's share of the variance
/// times its regression on the batches.
///
/// # Shapes   `x`: `[n_cells, n_dims]`, an embedding or expression
/// # Errors   batches of another number of cells, fewer cells or dimensions than components, values that are not finite
/// # Source   Büttner et al. 2019; `pcr` of scib
pub fn batch_variance(x: ArrayView2<'_, f32>, batches: &Labels, n_components: usize) -> Result<f64> {
    batches.check_len("the batch column", x.nrows())?;
    let pca = Pca::fit(x, n_components)?;
    let coordinates = pca.project(x)?;
    let total: f64 = pca.explained_variance.iter().sum();
    let members = batches.members();
    let shares = pca.explained_variance.iter().zip(coordinates.columns());
    let explained = shares.map(|(variance, component)| variance / total * explained_by(component, &members));
    Ok(if total > 0.0 { explained.sum() } else { 0.0 })
}

/// How much less the batches explain after integration, relative to before: 1 is nothing left, 0 no better or worse.
/// `None` when batches explained nothing before.
pub fn pcr_comparison(before: f64, after: f64) -> Option<f64> {
    (before > 0.0).then(|| ((before - after) / before).max(0.0))
}

/// Coefficient of determination of a one-hot regression: the variance between groups over the whole.
fn explained_by(component: ArrayView1<'_, f32>, members: &[Vec<usize>]) -> f64 {
    let value = |cell: usize| f64::from(component[cell]);
    let n_cells = component.len() as f64;
    let mean = (0..component.len()).map(value).sum::<f64>() / n_cells;
    let whole: f64 = (0..component.len()).map(|cell| (value(cell) - mean).powi(2)).sum();
    let between: f64 = members
        .iter()
        .filter(|cells| !cells.is_empty())
        .map(|cells| {
            let group_mean = cells.iter().map(|&cell| value(cell)).sum::<f64>() / cells.len() as f64;
            cells.len() as f64 * (group_mean - mean).powi(2)
        })
        .sum();
    if whole > 0.0 { (between / whole).clamp(0.0, 1.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn batches_that_make_all_the_variance_explain_it() {
        let x = array![[0.0f32, 0.0], [0.0, 0.0], [2.0, 4.0], [2.0, 4.0]];
        let explained = |names: [&str; 4]| batch_variance(x.view(), &Labels::from_names(&names), 2).unwrap();
        assert!((explained(["a", "a", "b", "b"]) - 1.0).abs() < 1e-9);
        assert!(explained(["a", "b", "a", "b"]) < 1e-9);
    }

    #[test]
    fn the_comparison_never_rewards_a_worse_result() {
        assert_eq!(pcr_comparison(0.5, 0.125), Some(0.75));
        assert_eq!(pcr_comparison(0.1, 0.4), Some(0.0));
        assert_eq!(pcr_comparison(0.0, 0.4), None);
    }
}
