//! Poisson counts.

use tch::Tensor;

/// Log-likelihood of counts under a Poisson distribution, `x log(rate) - rate - lgamma(x + 1)` with `0 log 0 = 0`.
///
/// # Shapes   `x`, `rate`: `[…, n_cells, n_genes]`; returns like `x`
/// # Units    raw counts; expected counts; nats
/// # Errors   none
/// # Source   checked against `Poisson.log_prob` of torch 2.11
pub fn log_prob(x: &Tensor, rate: &Tensor) -> Tensor {
    x.xlogy(rate) - rate - (x + 1.0).lgamma()
}
