//! How well distances go with true ones.

use ndarray::{Array2, ArrayView2};

/// Euclidean distances of all pairs of rows.
pub(crate) fn pairwise(x: ArrayView2<'_, f32>) -> Array2<f64> {
    Array2::from_shape_fn((x.nrows(), x.nrows()), |(i, j)| {
        let squares = x.row(i).iter().zip(x.row(j)).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
        squares.sqrt()
    })
}

/// What stands above the diagonal: each pair once.
pub(crate) fn upper(matrix: &Array2<f64>) -> Vec<f64> {
    matrix.indexed_iter().filter(|((i, j), _)| i < j).map(|(_, value)| *value).collect()
}

/// Correlation of ranks.
pub(crate) fn spearman(a: &[f64], b: &[f64]) -> f64 {
    pearson(&ranked(a), &ranked(b))
}

/// Correlation of values.
pub(crate) fn pearson(a: &[f64], b: &[f64]) -> f64 {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let sum = |of: &dyn Fn(f64, f64) -> f64| a.iter().zip(b).map(|(a, b)| of(a - mean_a, b - mean_b)).sum::<f64>();
    sum(&|a, b| a * b) / (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt()
}

/// Mean rank by `truth` of the fifty cells that are nearest by `found`: 0 where they are the nearest, 0.5 by chance.
pub(crate) fn neighbour_rank(found: &Array2<f64>, truth: &Array2<f64>) -> f64 {
    let n = found.nrows();
    let k = MOST_NEIGHBOURS.min(n / 5);
    let of_cell = |cell: usize| {
        let others: Vec<usize> = (0..n).filter(|&other| other != cell).collect();
        let ranks = ranked(&others.iter().map(|&other| truth[[cell, other]]).collect::<Vec<_>>());
        let mut nearest: Vec<usize> = (0..others.len()).collect();
        nearest.sort_by(|&a, &b| found[[cell, others[a]]].total_cmp(&found[[cell, others[b]]]));
        nearest[..k].iter().map(|&at| (ranks[at] - 1.0) / (n - 2) as f64).sum::<f64>() / k as f64
    };
    (0..n).map(of_cell).sum::<f64>() / n as f64
}

/// Ranks from 1; equal values share the mean of theirs.
fn ranked(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let mut end = start + 1;
        while end < order.len() && values[order[end]] == values[order[start]] {
            end += 1;
        }
        order[start..end].iter().for_each(|&at| ranks[at] = (start + end + 1) as f64 / 2.0);
        start = end;
    }
    ranks
}

const MOST_NEIGHBOURS: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_of_equal_values_are_shared_and_order_is_all_that_spearman_sees() {
        assert_eq!(ranked(&[3.0, 1.0, 3.0, 0.5]), [3.5, 2.0, 3.5, 1.0]);
        let (a, b) = ([1.0, 2.0, 3.0, 4.0], [1.0, 10.0, 100.0, 1000.0]);
        assert!((spearman(&a, &b) - 1.0).abs() < 1e-12 && pearson(&a, &b) < 0.9);
        assert!((spearman(&a, &[4.0, 3.0, 2.0, 1.0]) + 1.0).abs() < 1e-12);
    }

    #[test]
    fn neighbours_by_the_true_distances_have_the_lowest_ranks_and_the_farthest_the_highest() {
        let x = Array2::from_shape_fn((20, 1), |(cell, _)| (cell * cell) as f32);
        let truth = pairwise(x.view());
        let (best, worst) = (neighbour_rank(&truth, &truth), neighbour_rank(&truth.mapv(|d| -d), &truth));
        // Four of nineteen neighbours: ranks 0 to 3, and 15 to 18, of 18.
        assert!((best - 1.5 / 18.0).abs() < 1e-12 && (worst - 16.5 / 18.0).abs() < 1e-12, "{best} {worst}");
        assert_eq!(upper(&truth).len(), 190);
    }
}
