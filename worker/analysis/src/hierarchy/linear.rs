//! A linear support vector machine with squared hinge loss, solved by Newton's method.
//!
//! The problem is smooth and strictly convex in a handful of dimensions, so a few steps end at its one minimum whatever the
//! order of the cells; coordinate descent, as LIBLINEAR does, stops near it.

use faer::linalg::matmul::matmul;
use faer::prelude::Solve;
use faer::{Accum, Mat, MatRef, Par, Side};
use ndarray::{ArrayView1, ArrayView2};

use crate::{AnalysisError, Result};

/// Weights of a decision between two classes.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearSvm {
    /// One per dimension.
    pub weights: Vec<f64>,
    /// Added to the weighted sum.
    pub intercept: f64,
}

impl LinearSvm {
    /// Minimises `(|w|² + b²) / 2 + Σ max(0, 1 − y (w·x + b))²`; decisions of negatives are positive.
    ///
    /// # Errors   [`AnalysisError::Decomposition`] for values so large that the equations have no solution
    /// # Source   `LinearSVC` of scikit-learn with its defaults; Keerthi & DeCoste 2005 for the method
    pub(super) fn fit(x: ArrayView2<'_, f32>, positives: &[u32], negatives: &[u32]) -> Result<Self> {
        let n = x.ncols() + 1;
        let of_side = |rows: &[u32], y: f64| -> Vec<(u32, f64)> { rows.iter().map(|&row| (row, y)).collect() };
        let cells = [of_side(positives, -1.0), of_side(negatives, 1.0)].concat();
        let mut w = vec![0.0; n];
        let mut objective = objective(x, &cells, &w);
        for _ in 0..MOST_STEPS {
            let (gradient, step) = newton(x, &cells, &w)?;
            let norm = gradient.iter().map(|value| value * value).sum::<f64>().sqrt();
            if norm <= TOLERANCE * (1.0 + cells.len() as f64) {
                break;
            }
            let slope: f64 = gradient.iter().zip(&step).map(|(g, s)| g * s).sum();
            let mut length = 1.0;
            let moved = |length: f64| -> Vec<f64> { w.iter().zip(&step).map(|(w, s)| w + length * s).collect() };
            let (mut next, mut reached) = (moved(length), self::objective(x, &cells, &moved(length)));
            while reached > objective + SUFFICIENT * length * slope && length > SHORTEST {
                length /= 2.0;
                next = moved(length);
                reached = self::objective(x, &cells, &next);
            }
            if reached >= objective {
                break;
            }
            (w, objective) = (next, reached);
        }
        let intercept = w.pop().unwrap_or(0.0);
        Ok(Self { weights: w, intercept })
    }

    /// Negative for cells of the node, positive for those of its sisters.
    pub(super) fn decision(&self, cell: ArrayView1<'_, f32>) -> f64 {
        cell.iter().zip(&self.weights).map(|(&value, weight)| f64::from(value) * weight).sum::<f64>() + self.intercept
    }
}

fn value(x: ArrayView2<'_, f32>, row: u32, w: &[f64]) -> f64 {
    x.row(row as usize).iter().zip(w).map(|(&value, w)| f64::from(value) * w).sum::<f64>() + w[w.len() - 1]
}

fn objective(x: ArrayView2<'_, f32>, cells: &[(u32, f64)], w: &[f64]) -> f64 {
    let losses = cells.iter().map(|&(row, y)| (1.0 - y * value(x, row, w)).max(0.0).powi(2));
    w.iter().map(|w| w * w).sum::<f64>() / 2.0 + losses.sum::<f64>()
}

/// The gradient at `w` and the step that Newton's method takes from it.
fn newton(x: ArrayView2<'_, f32>, cells: &[(u32, f64)], w: &[f64]) -> Result<(Vec<f64>, Vec<f64>)> {
    let n = w.len();
    let mut gradient = w.to_vec();
    let mut curvature = Mat::<f64>::identity(n, n);
    let mut block = Vec::with_capacity(BLOCK_CELLS * n);
    let add = |block: &mut Vec<f64>, curvature: &mut Mat<f64>| {
        let rows = MatRef::from_row_major_slice(block, block.len() / n, n);
        matmul(curvature.as_mut(), Accum::Add, rows.transpose(), rows, 2.0, Par::Seq);
        block.clear();
    };
    for &(row, y) in cells {
        let value = value(x, row, w);
        if y * value >= 1.0 {
            continue;
        }
        let pull = 2.0 * (value - y);
        let cell = x.row(row as usize);
        gradient.iter_mut().zip(cell).for_each(|(gradient, &value)| *gradient += pull * f64::from(value));
        gradient[n - 1] += pull;
        block.extend(cell.iter().map(|&value| f64::from(value)));
        block.push(1.0);
        if block.len() == BLOCK_CELLS * n {
            add(&mut block, &mut curvature);
        }
    }
    add(&mut block, &mut curvature);
    let solver = curvature.llt(Side::Lower).map_err(|_| AnalysisError::Decomposition)?;
    let step = solver.solve(Mat::from_fn(n, 1, |i, _| -gradient[i]));
    Ok((gradient, (0..n).map(|i| step[(i, 0)]).collect()))
}

const MOST_STEPS: usize = 100;
/// Gradient per cell at which the minimum is found.
const TOLERANCE: f64 = 1e-9;
const SUFFICIENT: f64 = 1e-4;
const SHORTEST: f64 = 1e-10;
const BLOCK_CELLS: usize = 512;

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn the_minimum_of_two_cells_is_where_algebra_puts_it() {
        // One cell at 1 (negative class, y = 1) and one at -1: w = 4/5, b = 0 by symmetry.
        let x = array![[1.0f32], [-1.0]];
        let svm = LinearSvm::fit(x.view(), &[1], &[0]).unwrap();
        assert!((svm.weights[0] - 0.8).abs() < 1e-12 && svm.intercept.abs() < 1e-12, "{svm:?}");
        assert!(svm.decision(x.row(1)) < 0.0);
    }
}
