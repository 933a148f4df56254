//! Maximum mean discrepancy between the conditions of a minibatch, which pulls their latent states together.
//!
//! `mmd(P, Q) = mean k(P, P) + mean k(Q, Q) − 2 mean k(P, Q)` summed over pairs of conditions, means over all ordered pairs of
//! cells, a cell with itself included. `k` is a sum of Gaussians of 19 widths. The sum over pairs of conditions is one quadratic form
//! over pairs of cells: `Σ A_ij k(f_i, f_j)` with a coefficient for each pair of conditions ([`Coefficients`]).

use tch::{Kind, Tensor};

/// What each pair of cells counts in the sum over pairs of conditions.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Coefficients {
    /// Condition of each cell.
    codes: Vec<usize>,
    /// Cells of each condition.
    n_cells: Vec<usize>,
    /// Of every two conditions, row by row.
    of_codes: Vec<f32>,
}

impl Coefficients {
    /// Those of cells of these conditions; whether a pair of conditions is among them. Without a boundary all pairs count, of a
    /// single cell too; with one, pairs of a condition below it and one from it on, of two cells or more each.
    pub fn set(&mut self, conditions: impl IntoIterator<Item = i64>, boundary: Option<usize>) -> bool {
        match boundary {
            None => self.set_pairs(conditions, 1, |_, _| true),
            Some(m) => self.set_pairs(conditions, 2, |p, q| (p < m) != (q < m)),
        }
    }

    /// The same, where pairs count of conditions that have enough cells each, and of which `counts` says so.
    pub(crate) fn set_pairs(
        &mut self,
        conditions: impl IntoIterator<Item = i64>,
        fewest: usize,
        counts: impl Fn(usize, usize) -> bool,
    ) -> bool {
        self.codes.clear();
        self.codes.extend(conditions.into_iter().map(|code| code as usize));
        let n = self.codes.iter().max().map_or(0, |last| last + 1);
        self.n_cells.clear();
        self.n_cells.resize(n, 0);
        self.codes.iter().for_each(|&code| self.n_cells[code] += 1);
        self.of_codes.clear();
        self.of_codes.resize(n * n, 0.0);
        let mut has_pairs = false;
        for p in (0..n).filter(|&p| self.n_cells[p] >= fewest) {
            for q in (p + 1..n).filter(|&q| self.n_cells[q] >= fewest && counts(p, q)) {
                has_pairs = true;
                let (n_p, n_q) = (self.n_cells[p] as f32, self.n_cells[q] as f32);
                self.of_codes[p * n + p] += 1.0 / (n_p * n_p);
                self.of_codes[q * n + q] += 1.0 / (n_q * n_q);
                let between = -1.0 / (n_p * n_q);
                (self.of_codes[p * n + q], self.of_codes[q * n + p]) = (between, between);
            }
        }
        has_pairs
    }

    /// Condition of each cell.
    pub(crate) fn codes(&self) -> &[usize] {
        &self.codes
    }

    /// One past the last condition.
    pub(crate) fn n_codes(&self) -> usize {
        self.n_cells.len()
    }

    /// That of two cells of these conditions.
    pub(crate) fn of_codes(&self, p: usize, q: usize) -> f32 {
        self.of_codes[p * self.n_codes() + q]
    }

    fn tensor(&self, like: &Tensor) -> Tensor {
        let n = self.codes.len() as i64;
        let of = |p: usize| self.codes.iter().map(move |&q| self.of_codes(p, q));
        let values: Vec<f32> = self.codes.iter().flat_map(|&p| of(p)).collect();
        Tensor::from_slice(&values).view([n, n]).to_device(like.device())
    }
}

/// The discrepancy between the conditions of some cells, a scalar; 0 where there is no pair.
///
/// # Shapes   `features`: `[n, n_features]`; `condition`: `[n]`
/// # Source   Lotfollahi et al. 2020; checked against scArches 0.6.1
pub fn mmd(features: &Tensor, condition: &Tensor, boundary: Option<usize>) -> Tensor {
    let codes = Vec::<i64>::try_from(condition).expect("codes are integers");
    let mut coefficients = Coefficients::default();
    if coefficients.set(codes, boundary) {
        (kernel(features) * coefficients.tensor(features)).sum(Kind::Float)
    } else {
        Tensor::zeros([], (Kind::Float, features.device()))
    }
}

/// The kernel of every pair of rows. Squared distances are sums of squared differences: by a product of matrices they would be too rough
/// for the narrowest Gaussians.
fn kernel(features: &Tensor) -> Tensor {
    let differences = features.unsqueeze(1) - features.unsqueeze(0);
    let distance = differences.square().sum_dim_intlist([-1_i64].as_slice(), false, Kind::Float);
    let gaussian = |width: &f64| (&distance * (-0.5 / width)).exp();
    WIDTHS.iter().map(gaussian).reduce(|sum, k| sum + k).expect("there are widths")
}

/// Its name among the figures of a model that has it.
pub const FIGURE: &str = "mmd";
/// Widths of the Gaussians: `exp(-|u - v|² / (2 width))`.
pub const WIDTHS: [f64; 19] =
    [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 100.0, 1e3, 1e4, 1e5, 1e6];

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    fn rows(values: &[f32]) -> Tensor {
        Tensor::from_slice(values).view([-1, 1])
    }

    fn check(values: &[f32], conditions: &[i64], boundary: Option<usize>) -> f64 {
        mmd(&rows(values), &Tensor::from_slice(conditions), boundary).double_value(&[])
    }

    /// By the definition, pair of conditions after pair of conditions.
    fn by_definition(values: &[f32], conditions: &[i64]) -> f64 {
        let of = |code: i64| -> Vec<f64> {
            values.iter().zip(conditions).filter(|(_, c)| **c == code).map(|(v, _)| f64::from(*v)).collect()
        };
        let mean = |p: &[f64], q: &[f64]| {
            let k = |u: f64, v: f64| WIDTHS.iter().map(|a| (-(u - v).powi(2) / (2.0 * a)).exp()).sum::<f64>();
            p.iter().flat_map(|u| q.iter().map(move |v| k(*u, *v))).sum::<f64>() / (p.len() * q.len()) as f64
        };
        let mut sum = 0.0;
        for a in 0..3 {
            for b in a + 1..3 {
                let (p, q) = (of(a), of(b));
                if !p.is_empty() && !q.is_empty() {
                    sum += mean(&p, &p) + mean(&q, &q) - 2.0 * mean(&p, &q);
                }
            }
        }
        sum
    }

    #[test]
    fn it_is_the_sum_over_pairs_of_conditions() {
        let values = [0.3, -1.2, 0.31, 2.5, 0.0, 0.7, -0.4];
        for conditions in [[0, 0, 1, 1, 2, 2, 2], [0, 1, 0, 1, 0, 1, 0], [2, 2, 0, 2, 2, 2, 2]] {
            let found = check(&values, &conditions, None);
            assert!((found - by_definition(&values, &conditions)).abs() < 1e-4, "{conditions:?}: {found}");
        }
    }

    #[test]
    fn one_condition_alone_has_none() {
        assert_eq!(check(&[0.3, 0.4, 0.5], &[1, 1, 1], None), 0.0);
        assert!(!Coefficients::default().set([1, 1, 1], None));
    }

    #[test]
    fn a_boundary_leaves_pairs_across_it_and_no_lone_cell() {
        let (values, conditions) = ([0.3, -1.2, 0.4, 2.5, 0.1], [0, 0, 1, 1, 2]);
        // Conditions 0 and 1 are on one side, and 2 has one cell.
        assert_eq!(check(&values, &conditions, Some(2)), 0.0);
        let without_the_last = by_definition(&values[..4], &conditions[..4]);
        assert!((check(&values, &conditions, Some(1)) - without_the_last).abs() < 1e-4);
    }

    #[test]
    fn equal_cells_of_different_conditions_have_a_gradient_of_zero() {
        let features = rows(&[0.5, 0.5, 0.1]).set_requires_grad(true);
        mmd(&features, &Tensor::from_slice(&[0_i64, 1, 1]), None).backward();
        let gradient = Vec::<f32>::try_from(features.grad().view([-1])).unwrap();
        assert!(gradient.iter().all(|g| g.is_finite()), "{gradient:?}");
        assert_eq!(features.device(), Device::Cpu);
    }
}
