//! Encoders: cells to a normal distribution over a latent space.

use tch::{Kind, Tensor};

use super::{Builder, CovariateSizes, Linear, Pass, Stack, StackOptions};
use crate::{
    data::{Covariates, MinifiedBatch},
    error::Result,
    fast::{PosteriorSpec, Unsupported},
};

/// A normal distribution per cell.
#[derive(Debug)]
pub struct Posterior {
    /// Mean, `[n, n_out]`.
    pub mean: Tensor,
    /// Variance, `[n, n_out]`, above 0.
    pub var: Tensor,
}

impl Posterior {
    /// What was kept of cells whose counts are gone.
    pub fn kept(cells: &MinifiedBatch) -> Self {
        Self { mean: cells.qz_mean.shallow_clone(), var: cells.qz_var.shallow_clone() }
    }

    /// One draw per cell by reparameterisation with given standard-normal noise, `[…, n, n_out]`.
    pub fn sample(&self, noise: &Tensor) -> Tensor {
        &self.mean + self.var.sqrt() * noise
    }

    /// Mean of the softmax, `[n, n_out]`, over many draws as upstream: the latent representation of a logistic normal.
    pub fn mean_of_softmax(&self, pass: &mut Pass<'_>) -> Tensor {
        let mut sum = self.mean.zeros_like();
        for _ in 0..N_SOFTMAX_DRAWS {
            let noise = pass.noise.normal("z", &self.mean.size(), self.mean.device());
            sum += self.sample(&noise).softmax(-1, Kind::Float);
        }
        sum / f64::from(N_SOFTMAX_DRAWS)
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

    /// What the kernels are told about it.
    ///
    /// # Errors  what they do not know
    pub(crate) fn spec(&self) -> Result<PosteriorSpec, Unsupported> {
        Ok(PosteriorSpec { layers: self.stack.spec()?, mean: self.mean.spec().0, var: self.var.spec().0 })
    }

    /// The posterior of each cell.
    pub fn forward(&self, x: &Tensor, covariates: &Covariates, pass: &mut Pass<'_>) -> Posterior {
        let q = self.stack.forward(x, covariates, pass);
        let mean = self.mean.forward(&q, covariates);
        let var = self.var.forward(&q, covariates).exp() + VARIANCE_FLOOR;
        Posterior { mean, var }
    }
}

/// Draws that the latent mean of a logistic normal is averaged over, as upstream.
const N_SOFTMAX_DRAWS: u32 = 5_000;
/// Added to every variance, as upstream does.
pub(crate) const VARIANCE_FLOOR: f64 = 1e-4;
