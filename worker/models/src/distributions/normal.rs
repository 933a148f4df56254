//! Normal distributions by mean and variance.

use std::f64::consts::PI;

use tch::Tensor;

/// `KL(N(mean, var) || N(0, 1))` summed over the last dimension, in nats.
///
/// # Shapes   `mean`, `var`: `[…, n_dims]`; returns `[…]`
pub fn kl_standard(mean: &Tensor, var: &Tensor) -> Tensor {
    let terms: Tensor = (var + mean * mean - 1.0 - var.log()) * 0.5;
    terms.sum_dim_intlist([-1_i64].as_slice(), false, mean.kind())
}

/// `KL(N(mean, var) || N(prior_mean, prior_var))` summed over the last dimension, in nats.
///
/// # Shapes   all `[…, n_dims]`; returns `[…]`
pub fn kl(mean: &Tensor, var: &Tensor, prior_mean: &Tensor, prior_var: &Tensor) -> Tensor {
    let distance = mean - prior_mean;
    let ratio = var / prior_var;
    let terms: Tensor = (&ratio + &distance * &distance / prior_var - 1.0 - ratio.log()) * 0.5;
    terms.sum_dim_intlist([-1_i64].as_slice(), false, mean.kind())
}

/// `KL(N(mean, sd) || N(prior_mean, prior_sd))` elementwise, by standard deviations, in nats.
///
/// # Shapes   all alike or broadcast; returns like `mean`
pub fn kl_terms(mean: &Tensor, sd: &Tensor, prior_mean: &Tensor, prior_sd: &Tensor) -> Tensor {
    let distance = ((mean - prior_mean) / prior_sd).square();
    let ratio = (sd / prior_sd).square();
    (&ratio + distance - 1.0 - ratio.log()) * 0.5
}

/// Log-density of `x` elementwise, in nats.
///
/// # Shapes   all alike or broadcast; returns like `x`
pub fn log_prob(x: &Tensor, mean: &Tensor, var: &Tensor) -> Tensor {
    let distance = x - mean;
    ((var.log() + &distance * &distance / var) + (2.0 * PI).ln()) * -0.5
}
