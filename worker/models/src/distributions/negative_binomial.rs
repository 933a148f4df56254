//! Negative binomial, zero-inflated negative binomial, and the mixture of two negative binomials.

use tch::Tensor;

/// Log-likelihood of counts under a negative binomial.
///
/// # Shapes   `x`, `mu`: `[…, n_cells, n_genes]`; `theta`: `[n_genes]` or like `x`; returns like `x`
/// # Units    raw counts; expected counts; inverse dispersion above 0; nats
/// # Errors   none
/// # Source   Lopez et al. 2018; checked against `log_nb_positive` of scvi-tools 1.4
pub fn log_prob(x: &Tensor, mu: &Tensor, theta: &Tensor) -> Tensor {
    let log_theta_mu = log_total(theta, mu);
    theta * ((theta + EPS).log() - &log_theta_mu) + count_terms(x, mu, theta, &log_theta_mu)
}

/// Log-likelihood of counts under a zero-inflated negative binomial; `logits` are those of an extra zero.
///
/// # Shapes   as [`log_prob`]; `logits` like `x`
/// # Units    as [`log_prob`]
/// # Errors   none; the branch of zeros and the branch of counts must both be finite
/// # Source   Lopez et al. 2018; checked against `log_zinb_positive` of scvi-tools 1.4
pub fn zero_inflated_log_prob(x: &Tensor, mu: &Tensor, theta: &Tensor, logits: &Tensor) -> Tensor {
    let log_theta_mu = log_total(theta, mu);
    let not_inflated = (-logits).softplus();
    let a = theta * ((theta + EPS).log() - &log_theta_mu) - logits;
    let zero = a.softplus() - &not_inflated;
    let positive = -&not_inflated + &a + count_terms(x, mu, theta, &log_theta_mu);
    zero.where_self(&x.lt(EPS), &positive)
}

/// Log-likelihood under a mixture of two negative binomials with one dispersion; `logits` are those of the first.
///
/// # Shapes   as [`log_prob`]; `mu_1`, `mu_2`, `logits` like `x`
/// # Units    as [`log_prob`]
/// # Errors   none
/// # Source   Gayoso et al. 2021; checked against `log_mixture_nb` of scvi-tools 1.4
pub fn mixture_log_prob(x: &Tensor, mu_1: &Tensor, mu_2: &Tensor, theta: &Tensor, logits: &Tensor) -> Tensor {
    let first = log_prob(x, mu_1, theta);
    let second = log_prob(x, mu_2, theta) - logits;
    first.logaddexp(&second) - (-logits).softplus()
}

fn log_total(theta: &Tensor, mu: &Tensor) -> Tensor {
    (theta + mu + EPS).log()
}

/// The terms that vanish at `x = 0`.
fn count_terms(x: &Tensor, mu: &Tensor, theta: &Tensor, log_theta_mu: &Tensor) -> Tensor {
    x * ((mu + EPS).log() - log_theta_mu) + (x + theta).lgamma() - theta.lgamma() - (x + 1.0).lgamma()
}

/// Keeps logarithms finite; also the border between zero and a count.
const EPS: f64 = 1e-8;
