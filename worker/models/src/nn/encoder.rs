//! Encoders: cells to a normal distribution over a latent space.

use tch::Tensor;

use super::{Builder, CovariateSizes, Linear, Pass, Stack, StackOptions};
use crate::{data::Covariates, error::Result};

/// A normal distribution per cell.
#[derive(Debug)]
pub struct Posterior {
    /// Mean, `[n, n_out]`.
    pub mean: Tensor,
    /// Variance, `[n, n_out]`, above 0.
    pub var: Tensor,
}

impl Posterior {
    /// One draw per cell by reparameterisation with given standard-normal noise, `[…, n, n_out]`.
    pub fn sample(&self, noise: &Tensor) -> Tensor {
        &self.mean + self.var.sqrt() * noise
    }

    /// `KL(q || N(0, 1))` summed over dimensions, `[n]`, in nats.
    pub fn kl_standard_normal(&self) -> Tensor {
        crate::distributions::normal::kl_standard(&self.mean, &self.var)
    }
}

/// A stack with heads for mean and variance.
#[derive(Debug)]
pub struct Encoder {
    stack: Stack,
    mean: Linear,
    var: Linear,
}

impl Encoder {
    /// An encoder of `n_in` units to `n_out` dimensions; tensors `{name}.encoder.…`, `.mean_encoder.…`, `.var_encoder.…`.
    ///
    /// # Errors  a stored tensor is missing or looks otherwise
    pub fn new(
        builder: &mut Builder<'_>,
        name: &str,
        n_in: usize,
        n_out: usize,
        options: &StackOptions,
    ) -> Result<Self> {
        let stack = Stack::new(builder, &format!("{name}.encoder"), n_in, options)?;
        let mut head =
            |part: &str| Linear::new(builder, &format!("{name}.{part}"), options.n_out, n_out, &CovariateSizes::none());
        Ok(Self { stack, mean: head("mean_encoder")?, var: head("var_encoder")? })
    }

    /// The posterior of each cell.
    pub fn forward(&self, x: &Tensor, covariates: &Covariates, pass: &mut Pass<'_>) -> Posterior {
        let q = self.stack.forward(x, covariates, pass);
        let mean = self.mean.forward(&q, covariates);
        let var = self.var.forward(&q, covariates).exp() + VARIANCE_FLOOR;
        Posterior { mean, var }
    }
}

/// Added to every variance, as upstream does.
const VARIANCE_FLOOR: f64 = 1e-4;
