//! A one-class support vector machine with a radial kernel.
//!
//! Sequential minimal optimisation with second-order choice of the pair, as LIBSVM does it: the margin of a node is found
//! to LIBSVM's tolerance, and kernel rows are made when they are asked for, so memory stays linear in the cells.

use std::collections::HashMap;
use std::rc::Rc;

use ndarray::{Array2, ArrayView1, ArrayView2, Axis};

/// The region in which most cells of a node lie.
#[derive(Debug, Clone, PartialEq)]
pub struct OneClassSvm {
    /// Cells at or beyond the margin, `[n_vectors, n_dims]`.
    pub vectors: Array2<f32>,
    /// Their weights.
    pub weights: Vec<f64>,
    /// What the weighted kernel must reach.
    pub rho: f64,
    /// Inverse squared width of the kernel.
    pub gamma: f64,
}

impl OneClassSvm {
    /// Finds the region that leaves out a share of about 5 % of the cells at `rows`.
    ///
    /// # Source   Schölkopf et al. 2001; Fan, Chen & Lin 2005; `OneClassSVM(gamma="scale", nu=0.05)` of scikit-learn
    pub(super) fn fit(x: ArrayView2<'_, f32>, rows: &[u32]) -> Self {
        let rows: Vec<usize> = rows.iter().map(|&row| row as usize).collect();
        let cells = x.select(Axis(0), &rows);
        let gamma = 1.0 / (cells.ncols() as f64 * spread(&cells));
        let gamma = if gamma.is_finite() { gamma } else { 1.0 };
        let mut solver = Solver::new(&cells, gamma);
        solver.solve();
        let rho = solver.rho();
        let kept: Vec<usize> = (0..rows.len()).filter(|&cell| solver.weights[cell] > 0.0).collect();
        let weights = kept.iter().map(|&cell| solver.weights[cell]).collect();
        Self { vectors: cells.select(Axis(0), &kept), weights, rho, gamma }
    }

    /// Positive inside.
    pub(super) fn decision(&self, cell: ArrayView1<'_, f32>) -> f64 {
        let pull = |(vector, weight): (ArrayView1<'_, f32>, &f64)| weight * kernel(vector, cell, self.gamma);
        self.vectors.rows().into_iter().zip(&self.weights).map(pull).sum::<f64>() - self.rho
    }
}

/// Variance of all entries together.
fn spread(cells: &Array2<f32>) -> f64 {
    let n = cells.len() as f64;
    let mean = cells.iter().map(|&value| f64::from(value)).sum::<f64>() / n;
    cells.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / n
}

fn kernel(a: ArrayView1<'_, f32>, b: ArrayView1<'_, f32>, gamma: f64) -> f64 {
    let squared: f64 = a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
    (-gamma * squared).exp()
}

/// Weights from 0 to 1 with a fixed sum, and the gradient of half the squared length of what they span.
struct Solver<'a> {
    cells: &'a Array2<f32>,
    gamma: f64,
    weights: Vec<f64>,
    gradient: Vec<f64>,
    rows: HashMap<usize, Rc<[f64]>>,
}

impl<'a> Solver<'a> {
    fn new(cells: &'a Array2<f32>, gamma: f64) -> Self {
        let n = cells.nrows();
        let total = NU * n as f64;
        let weights: Vec<f64> = (0..n).map(|cell| (total - cell as f64).clamp(0.0, 1.0)).collect();
        let mut solver = Self { cells, gamma, weights, gradient: vec![0.0; n], rows: HashMap::new() };
        for cell in (0..n).take_while(|&cell| (cell as f64) < total) {
            let (row, weight) = (solver.row(cell), solver.weights[cell]);
            solver.gradient.iter_mut().zip(row.iter()).for_each(|(gradient, k)| *gradient += weight * k);
        }
        solver
    }

    fn solve(&mut self) {
        let most = (MOST_STEPS_PER_CELL * self.cells.nrows()).max(LEAST_STEPS);
        for _ in 0..most {
            let Some((up, down)) = self.pair() else { return };
            let (row_up, row_down) = (self.row(up), self.row(down));
            let curvature = (2.0 - 2.0 * row_up[down]).max(LEAST_CURVATURE);
            let step = (self.gradient[down] - self.gradient[up]) / curvature;
            let step = step.min(1.0 - self.weights[up]).min(self.weights[down]);
            self.weights[up] += step;
            self.weights[down] -= step;
            for (gradient, (a, b)) in self.gradient.iter_mut().zip(row_up.iter().zip(row_down.iter())) {
                *gradient += step * (a - b);
            }
        }
    }

    /// The cell that gains most by more weight, and the one to take it from; none within the tolerance.
    fn pair(&mut self) -> Option<(usize, usize)> {
        let can_grow = (0..self.weights.len()).filter(|&cell| self.weights[cell] < 1.0);
        let up = can_grow.min_by(|&a, &b| self.gradient[a].total_cmp(&self.gradient[b]))?;
        let row = self.row(up);
        let (mut best, mut down, mut furthest) = (0.0, None, f64::NEG_INFINITY);
        for cell in (0..self.weights.len()).filter(|&cell| self.weights[cell] > 0.0) {
            let gain = self.gradient[cell] - self.gradient[up];
            furthest = gain.max(furthest);
            if gain > 0.0 {
                let decrease = gain * gain / (2.0 - 2.0 * row[cell]).max(LEAST_CURVATURE);
                if decrease > best {
                    (best, down) = (decrease, Some(cell));
                }
            }
        }
        (furthest >= TOLERANCE).then_some((up, down?))
    }

    /// The margin: mean gradient of the cells on it, or the middle of where it can lie.
    fn rho(&self) -> f64 {
        let on_margin = |&(weight, _): &(f64, f64)| weight > 0.0 && weight < 1.0;
        let pairs = || self.weights.iter().copied().zip(self.gradient.iter().copied());
        let n_on = pairs().filter(on_margin).count();
        if n_on > 0 {
            return pairs().filter(on_margin).map(|(_, gradient)| gradient).sum::<f64>() / n_on as f64;
        }
        let lower = pairs().filter(|&(weight, _)| weight >= 1.0).map(|(_, g)| g).fold(f64::NEG_INFINITY, f64::max);
        let upper = pairs().filter(|&(weight, _)| weight <= 0.0).map(|(_, g)| g).fold(f64::INFINITY, f64::min);
        match (lower.is_finite(), upper.is_finite()) {
            (true, true) => (lower + upper) / 2.0,
            (true, false) => lower,
            _ => upper,
        }
    }

    fn row(&mut self, cell: usize) -> Rc<[f64]> {
        if let Some(row) = self.rows.get(&cell) {
            return row.clone();
        }
        if self.rows.len() * self.cells.nrows() >= MOST_KEPT {
            self.rows.clear();
        }
        let own = self.cells.row(cell);
        let row: Rc<[f64]> = self.cells.rows().into_iter().map(|other| kernel(own, other, self.gamma)).collect();
        self.rows.insert(cell, row.clone());
        row
    }
}

/// Share of cells that may lie outside.
const NU: f64 = 0.05;
/// Violation of optimality at which LIBSVM stops.
const TOLERANCE: f64 = 1e-3;
const LEAST_CURVATURE: f64 = 1e-12;
/// As LIBSVM, so that rounding cannot keep it busy.
const MOST_STEPS_PER_CELL: usize = 100;
const LEAST_STEPS: usize = 10_000_000;
/// Kernel values kept: 32 MiB.
const MOST_KEPT: usize = 4 << 20;
