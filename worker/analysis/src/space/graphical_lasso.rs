//! Which genes go together when all others are held fixed: a sparse inverse covariance, its penalty cross-validated.
//!
//! # Source   Friedman, Hastie & Tibshirani 2008; `GraphicalLassoCV` of scikit-learn, whose stopping rules decide which entries
//! are zero and are kept

use faer::{Mat, Side, linalg::solvers::DenseSolveCore as _};
use ndarray::{Array1, Array2, ArrayView2, Axis, s};
use rayon::prelude::*;

use crate::{AnalysisError, Result};

/// Penalties to choose from.
#[derive(Debug, Clone, PartialEq)]
pub enum Alphas {
    /// These, in this order.
    Given(Vec<f64>),
    /// So many on a logarithmic grid, refined around the best four times.
    Grid(usize),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneNetwork {
    /// The penalty chosen.
    pub alpha: f64,
    /// Penalties tried, descending.
    pub alphas: Vec<f64>,
    /// Log-likelihood of each left-out fold, a row per penalty.
    pub scores: Vec<Vec<f64>>,
    /// Regularised covariance of the standardised genes.
    pub covariance: Array2<f64>,
    /// Its inverse, zero where two genes have nothing to say of each other.
    pub precision: Array2<f64>,
    /// Sweeps of the last fit.
    pub n_sweeps: usize,
}

impl GeneNetwork {
    /// Pairs of genes that go together, the lower index first.
    pub fn edges(&self) -> Vec<(usize, usize)> {
        let n = self.precision.nrows();
        let pairs = (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j)));
        pairs.filter(|&(i, j)| self.precision[[i, j]] != 0.0 || self.precision[[j, i]] != 0.0).collect()
    }
}

/// The network of genes over cells.
///
/// # Shapes   `x`: `[n_cells, n_genes]`
/// # Errors   fewer than ten cells or two genes, values not finite, penalties that are not above 0, an inverse that does not
/// exist at the chosen penalty
pub fn gene_network(x: ArrayView2<'_, f64>, alphas: &Alphas) -> Result<GeneNetwork> {
    for (unit, found, needed) in [("cells", x.nrows(), 2 * N_FOLDS), ("genes", x.ncols(), 2)] {
        if found < needed {
            return Err(AnalysisError::TooFew { step: "a network of genes", unit, needed, found });
        }
    }
    if let Some(((row, column), _)) = x.indexed_iter().find(|(_, value)| !value.is_finite()) {
        return Err(AnalysisError::NotFinite { what: "the expression", row, column });
    }
    let x = standardised(x);
    let (folds, empirical) = Fold::all(&x);
    let (n_rounds, mut grid) = match alphas {
        Alphas::Given(given) => (1, given.clone()),
        Alphas::Grid(n) => {
            let largest = largest_off_diagonal(&empirical);
            (N_ROUNDS, log_space(0.01 * largest, largest, *n).into_iter().rev().collect())
        }
    };
    if grid.is_empty() || grid.iter().any(|alpha| !(f64::MIN_POSITIVE..f64::INFINITY).contains(alpha)) {
        let found = format!("{grid:?}");
        return Err(AnalysisError::Option { option: "alphas", expected: "numbers above 0", found });
    }
    let mut path: Vec<(f64, Vec<f64>)> = Vec::new();
    let mut best = 0;
    for _ in 0..n_rounds {
        let by_fold: Vec<Vec<f64>> = folds.par_iter().map(|fold| fold.scores(&grid)).collect();
        let tried = grid.iter().enumerate().map(|(at, &alpha)| (alpha, by_fold.iter().map(|of| of[at]).collect()));
        path.extend(tried.collect::<Vec<_>>());
        path.sort_by(|a, b| b.0.total_cmp(&a.0));
        best = best_of(&path);
        if let Alphas::Grid(n) = alphas {
            let (high, low) = around(&path, best);
            grid = log_space(high, low, n + 2)[1..=*n].to_vec();
        }
    }
    let alpha = path[best].0;
    let fit = Fit::new(&empirical, &empirical, alpha, MOST_SWEEPS).ok_or(AnalysisError::Decomposition)?;
    let (alphas, scores) = path.into_iter().unzip();
    let Fit { covariance, precision, n_sweeps } = fit;
    Ok(GeneNetwork { alpha, alphas, scores, covariance, precision, n_sweeps })
}

/// Genes with mean 0 and deviation 1; a constant gene stays 0.
fn standardised(x: ArrayView2<'_, f64>) -> Array2<f64> {
    let mut x = x.to_owned();
    for mut gene in x.columns_mut() {
        let n = gene.len() as f64;
        let mean = gene.sum() / n;
        gene -= mean;
        let deviation = (gene.dot(&gene) / n).sqrt();
        if deviation > 0.0 {
            gene /= deviation;
        }
    }
    x
}

/// Sums over some cells, of which covariances follow: those of the cells that train are all cells' less those of the cells left out.
struct Sums {
    n: f64,
    first: Array1<f64>,
    second: Array2<f64>,
}

impl Sums {
    fn of(x: ArrayView2<'_, f64>) -> Self {
        Self { n: x.nrows() as f64, first: x.sum_axis(Axis(0)), second: x.t().dot(&x) }
    }

    fn plus(&self, other: &Self) -> Self {
        Self { n: self.n + other.n, first: &self.first + &other.first, second: &self.second + &other.second }
    }

    fn less(&self, other: &Self) -> Self {
        Self { n: self.n - other.n, first: &self.first - &other.first, second: &self.second - &other.second }
    }

    /// Covariance about the cells' own mean, by their number.
    fn covariance(&self) -> Array2<f64> {
        let mean = (&self.first / self.n).insert_axis(Axis(1));
        &self.second / self.n - mean.dot(&mean.t())
    }
}

fn largest_off_diagonal(covariance: &Array2<f64>) -> f64 {
    let off_diagonal = covariance.indexed_iter().filter(|((i, j), _)| i != j);
    off_diagonal.fold(0.0f64, |most, (_, value)| most.max(value.abs()))
}

fn log_space(from: f64, to: f64, n: usize) -> Vec<f64> {
    let (from, to) = (from.log10(), to.log10());
    let step = (to - from) / n.saturating_sub(1).max(1) as f64;
    (0..n).map(|i| 10f64.powf(if i + 1 == n && n > 1 { to } else { from + step * i as f64 })).collect()
}

/// The largest mean score; of equal ones that of the smallest penalty.
fn best_of(path: &[(f64, Vec<f64>)]) -> usize {
    let (mut best, mut score) = (0, f64::NEG_INFINITY);
    for (at, (_, scores)) in path.iter().enumerate() {
        let mean = mean(scores);
        if mean < TOO_GOOD && mean >= score {
            (best, score) = (at, mean);
        }
    }
    best
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Penalties between which the next round looks.
fn around(path: &[(f64, Vec<f64>)], best: usize) -> (f64, f64) {
    let is_finite = |(_, scores): &(f64, Vec<f64>)| mean(scores).is_finite();
    let last_finite = path.iter().rposition(is_finite).unwrap_or(0);
    let alpha = |at: usize| path[at].0;
    if path.len() == 1 || best + 1 == path.len() {
        (alpha(best), 0.01 * alpha(best))
    } else if best == 0 || best == last_finite {
        (alpha(best), alpha(best + 1))
    } else {
        (alpha(best - 1), alpha(best + 1))
    }
}

/// Covariances of the cells that train and of those left out.
struct Fold {
    train: Array2<f64>,
    test: Array2<f64>,
}

impl Fold {
    /// Five runs of cells in order, the first ones one longer where the cells do not divide; and the covariance of all cells.
    fn all(x: &Array2<f64>) -> (Vec<Self>, Array2<f64>) {
        let n = x.nrows();
        let mut start = 0;
        let run = |fold: usize| {
            let end = start + n / N_FOLDS + usize::from(fold < n % N_FOLDS);
            let sums = Sums::of(x.slice(s![start..end, ..]));
            start = end;
            sums
        };
        let runs: Vec<Sums> = (0..N_FOLDS).map(run).collect();
        let all = runs.iter().fold(Sums::of(x.slice(s![..0, ..])), |sum, run| sum.plus(run));
        let fold = |run: &Sums| Self { train: all.less(run).covariance(), test: run.covariance() };
        (runs.iter().map(fold).collect(), all.covariance())
    }

    /// Log-likelihood of the cells left out at each penalty, each fit started from the one before.
    fn scores(&self, alphas: &[f64]) -> Vec<f64> {
        let mut start = self.train.clone();
        let mut score = |&alpha: &f64| match Fit::new(&self.train, &start, alpha, MOST_SWEEPS / 10) {
            Some(fit) => {
                let score = log_likelihood(&self.test, &fit.precision);
                start = fit.covariance;
                if score.is_finite() { score } else { f64::NEG_INFINITY }
            }
            None => f64::NEG_INFINITY,
        };
        alphas.iter().map(&mut score).collect()
    }
}

fn log_likelihood(covariance: &Array2<f64>, precision: &Array2<f64>) -> f64 {
    let n = precision.nrows() as f64;
    let fit: f64 = covariance.iter().zip(precision).map(|(a, b)| a * b).sum();
    (log_determinant(precision) - fit - n * (2.0 * std::f64::consts::PI).ln()) / 2.0
}

/// Minus infinity for a determinant that is not above 0.
fn log_determinant(matrix: &Array2<f64>) -> f64 {
    let n = matrix.nrows();
    let matrix = Mat::from_fn(n, n, |i, j| matrix[[i, j]]);
    let decomposed = matrix.partial_piv_lu();
    let (mut sum, mut is_negative) = (0.0, false);
    for i in 0..n {
        let pivot = decomposed.U()[(i, i)];
        sum += pivot.abs().ln();
        is_negative ^= pivot < 0.0;
    }
    let n_swaps = permutation_swaps(decomposed.P().arrays().0);
    if is_negative ^ (n_swaps % 2 == 1) { f64::NEG_INFINITY } else { sum }
}

fn permutation_swaps(order: &[usize]) -> usize {
    let mut seen = vec![false; order.len()];
    let mut n_cycles = 0;
    for start in 0..order.len() {
        if seen[start] {
            continue;
        }
        n_cycles += 1;
        let mut at = start;
        while !seen[at] {
            seen[at] = true;
            at = order[at];
        }
    }
    order.len() - n_cycles
}

/// A covariance and its sparse inverse.
struct Fit {
    covariance: Array2<f64>,
    precision: Array2<f64>,
    n_sweeps: usize,
}

impl Fit {
    /// Block coordinate descent from a covariance; none where numbers run away.
    fn new(empirical: &Array2<f64>, start: &Array2<f64>, alpha: f64, most_sweeps: usize) -> Option<Self> {
        let n = empirical.nrows();
        let mut covariance = start * SHRINKAGE;
        covariance.diag_mut().assign(&empirical.diag());
        let mut precision = pseudo_inverse(&covariance)?;
        let mut n_sweeps = 0;
        while n_sweeps < most_sweeps {
            n_sweeps += 1;
            for gene in 0..n {
                sweep_gene(empirical, &mut covariance, &mut precision, gene, alpha, most_sweeps);
            }
            if !precision.sum().is_finite() {
                return None;
            }
            let gap = dual_gap(empirical, &precision, alpha);
            if gap.abs() < TOLERANCE {
                break;
            }
            if n_sweeps > 1 && !log_determinant(&precision).is_finite() {
                return None;
            }
        }
        Some(Self { covariance, precision, n_sweeps })
    }
}

/// Lasso of one gene on the others, and what follows for its row and column.
fn sweep_gene(
    empirical: &Array2<f64>,
    covariance: &mut Array2<f64>,
    precision: &mut Array2<f64>,
    gene: usize,
    alpha: f64,
    most_sweeps: usize,
) {
    let scale = precision[[gene, gene]] + 1000.0 * f64::EPSILON;
    let mut weights: Vec<f64> = precision.column(gene).iter().map(|value| -value / scale).collect();
    // The gene's own place is among the others, so that rows of the covariance are read as they lie, and holds zeros.
    weights[gene] = 0.0;
    let mut target = empirical.row(gene).to_vec();
    target[gene] = 0.0;
    let products = lasso(covariance, gene, &target, &mut weights, alpha, most_sweeps);
    let explained: f64 = covariance.row(gene).iter().zip(&weights).map(|(value, weight)| value * weight).sum();
    let own = 1.0 / (covariance[[gene, gene]] - explained);
    precision[[gene, gene]] = own;
    for (other, (weight, product)) in weights.iter().zip(&products).enumerate().filter(|(other, _)| *other != gene) {
        precision[[other, gene]] = -own * weight;
        precision[[gene, other]] = -own * weight;
        covariance[[other, gene]] = *product;
        covariance[[gene, other]] = *product;
    }
}

/// Minimises `w'Qw / 2 − s'w + alpha |w|` over all genes but one by coordinate descent from the given weights; returns `Qw`, zero at
/// that gene.
fn lasso(
    q: &Array2<f64>,
    gene: usize,
    target: &[f64],
    weights: &mut [f64],
    alpha: f64,
    most_sweeps: usize,
) -> Vec<f64> {
    let mut products = vec![0.0; weights.len()];
    let add = |products: &mut [f64], at: usize, step: f64| {
        products.iter_mut().zip(q.row(at)).for_each(|(product, q)| *product += step * q);
        products[gene] = 0.0;
    };
    for (at, &weight) in weights.iter().enumerate().filter(|(_, weight)| **weight != 0.0) {
        add(&mut products, at, weight);
    }
    let squared: f64 = target.iter().map(|value| value * value).sum();
    for sweep in 1..=most_sweeps {
        let (mut largest, mut change) = (0.0f64, 0.0f64);
        for at in (0..weights.len()).filter(|&at| at != gene) {
            let (own, before) = (q[[at, at]], weights[at]);
            if own == 0.0 {
                continue;
            }
            let pull = target[at] - (products[at] - before * own);
            let after = pull.signum() * (pull.abs() - alpha).max(0.0) / own;
            if after != before {
                add(&mut products, at, after - before);
                weights[at] = after;
            }
            change = change.max((after - before).abs());
            largest = largest.max(after.abs());
        }
        let is_still = largest == 0.0 || change / largest < LASSO_TOLERANCE || sweep == most_sweeps;
        if is_still && lasso_gap(&products, target, weights, alpha, squared) < LASSO_TOLERANCE * squared {
            break;
        }
    }
    products
}

/// How far from the minimum the weights can be.
fn lasso_gap(products: &[f64], target: &[f64], weights: &[f64], alpha: f64, squared: f64) -> f64 {
    let along: f64 = weights.iter().zip(target).map(|(weight, value)| weight * value).sum();
    let curved: f64 = weights.iter().zip(products).map(|(weight, product)| weight * product).sum();
    let residual = squared + curved - 2.0 * along;
    let steepest = target.iter().zip(products).map(|(value, product)| (value - product).abs()).fold(0.0, f64::max);
    let (share, gap) = match steepest > alpha {
        true => (alpha / steepest, 0.5 * residual * (1.0 + (alpha / steepest).powi(2))),
        false => (1.0, residual),
    };
    let size: f64 = weights.iter().map(|weight| weight.abs()).sum();
    gap + alpha * size - share * squared + share * along
}

fn dual_gap(empirical: &Array2<f64>, precision: &Array2<f64>, alpha: f64) -> f64 {
    let fit: f64 = empirical.iter().zip(precision).map(|(a, b)| a * b).sum();
    let off_diagonal: f64 = precision.indexed_iter().filter(|((i, j), _)| i != j).map(|(_, value)| value.abs()).sum();
    fit - precision.nrows() as f64 + alpha * off_diagonal
}

/// Eigenvalues near zero count as zero; where none is, it is the inverse.
fn pseudo_inverse(matrix: &Array2<f64>) -> Option<Array2<f64>> {
    let n = matrix.nrows();
    let given = Mat::from_fn(n, n, |i, j| matrix[[i, j]]);
    // Which is the rule: what is shrunk has no eigenvalue near zero, if no gene is constant.
    if let Ok(factors) = given.llt(Side::Lower)
        && (0..n).all(|i| factors.L()[(i, i)] > LEAST_PIVOT)
    {
        let inverse = factors.inverse();
        return Some(Array2::from_shape_fn((n, n), |(i, j)| inverse[(i, j)]));
    }
    let eigen = given.self_adjoint_eigen(Side::Lower).ok()?;
    let values: Vec<f64> = eigen.S().column_vector().iter().copied().collect();
    let least = values.iter().fold(0.0f64, |most, value| most.max(value.abs())) * n as f64 * f64::EPSILON;
    let inverse: Vec<f64> = values.iter().map(|&value| if value.abs() > least { 1.0 / value } else { 0.0 }).collect();
    let vectors = Array2::from_shape_fn((n, n), |(i, j)| eigen.U()[(i, j)]);
    Some((&vectors * &Array1::from(inverse)).dot(&vectors.t()))
}

const N_FOLDS: usize = 5;
const N_ROUNDS: usize = 4;
const MOST_SWEEPS: usize = 100;
const TOLERANCE: f64 = 1e-4;
const LASSO_TOLERANCE: f64 = 1e-4;
const SHRINKAGE: f64 = 0.95;
/// Below it a matrix of genes with deviation 1 is not taken for one that has an inverse.
const LEAST_PIVOT: f64 = 1e-3;
/// A score beyond is a fit that went wrong.
const TOO_GOOD: f64 = 0.1 / f64::EPSILON;

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn genes_that_have_nothing_to_do_with_each_other_are_apart() {
        // The second gene follows the first, the third follows nothing.
        let x = Array2::from_shape_fn((60, 3), |(i, j)| match j {
            0 => (i as f64 * 0.7).sin(),
            1 => (i as f64 * 0.7).sin() + 0.3 * (i as f64 * 5.1).cos(),
            _ => (i as f64 * 2.9).cos(),
        });
        let found = gene_network(x.view(), &Alphas::Given(vec![0.4, 0.2])).unwrap();
        assert_eq!(found.edges(), [(0, 1)]);
        assert_eq!(found.alphas, [0.4, 0.2]);
    }

    #[test]
    fn bad_input_is_refused() {
        let x = Array2::from_shape_fn((20, 2), |(i, j)| ((i * 7 + j * 3) % 5) as f64);
        let few = gene_network(x.slice(s![..4, ..]), &Alphas::Grid(3));
        assert!(matches!(few, Err(AnalysisError::TooFew { unit: "cells", .. })));
        let none = gene_network(x.view(), &Alphas::Given(vec![0.0]));
        assert!(matches!(none, Err(AnalysisError::Option { option: "alphas", .. })));
        let mut bad = x.clone();
        bad[[3, 1]] = f64::NAN;
        assert!(matches!(gene_network(bad.view(), &Alphas::Grid(3)), Err(AnalysisError::NotFinite { row: 3, .. })));
    }

    #[test]
    fn a_determinant_below_zero_has_no_logarithm() {
        assert_eq!(log_determinant(&array![[0.0, 1.0], [1.0, 0.0]]), f64::NEG_INFINITY);
        assert!((log_determinant(&array![[2.0, 0.0], [0.0, 3.0]]) - 6f64.ln()).abs() < 1e-12);
    }
}
