//! The [mixture](Aggregate) that draws latent states, arranged for the kernels.

use crate::{
    aggregate::Aggregate,
    kernels::{Buffer, Level, mixture, padded},
};

/// What draws the latent states of a query to where cells of the reference lie.
#[derive(Debug)]
pub(super) struct Pull {
    /// Its weight in the loss.
    pub(super) weight: f64,
    means: Buffer,
    inverses: Buffer,
    constants: Buffer,
}

/// Gradients by mean and variance of a cell's posterior, and room for a number per component.
pub(super) struct Gradients<'a> {
    pub(super) by_mean: &'a mut [f32],
    pub(super) by_var: &'a mut [f32],
    pub(super) shares: &'a mut Buffer,
}

impl Pull {
    pub(super) fn new(aggregate: &Aggregate, weight: f64) -> Self {
        let width = padded(aggregate.components().len());
        let n_latent = aggregate.n_latent();
        let mut constants = Buffer::zeros(width);
        constants.fill(NOWHERE);
        let (mut means, mut inverses) = (Buffer::zeros(n_latent * width), Buffer::zeros(n_latent * width));
        for (at, component) in aggregate.components().enumerate() {
            let log_vars: f64 = component.var.iter().map(|&var| f64::from(var).ln()).sum();
            constants[at] = (log_vars - 2.0 * component.log_weight) as f32;
            for (dim, (&mean, &var)) in component.mean.iter().zip(component.var).enumerate() {
                means[dim * width + at] = mean;
                inverses[dim * width + at] = 1.0 / var;
            }
        }
        Self { weight, means, inverses, constants }
    }

    /// Components, with padding.
    pub(super) fn width(&self) -> usize {
        self.constants.len()
    }

    /// How far the posterior of a cell lies from the mixture, and the gradient of that times the weight and `scale`.
    pub(super) fn of_cell(&self, level: Level, (mean, var): (&[f32], &[f32]), scale: f32, to: Gradients<'_>) -> f64 {
        let Gradients { by_mean, by_var, shares } = to;
        let scale = scale * self.weight as f32;
        let (means, inverses, constants) = (&*self.means, &*self.inverses, &*self.constants);
        mixture::divergence(
            level,
            mixture::Mixture { means, inverses, constants, mean, var, scale, by_mean, by_var, shares },
        )
    }
}

/// Energy of a component that is not there.
const NOWHERE: f32 = 1e30;
