//! How far a normal distribution lies from a mixture of them, and the gradient of that.

use super::{
    buffer::Buffer,
    lanes::{LANES, kernel},
    math::exp_of_negative,
};

/// One cell's posterior and the mixture.
pub(crate) struct Mixture<'a> {
    /// Means of the components: a row of `width` components per dimension.
    pub(crate) means: &'a [f32],
    /// One over their variances, in the same way.
    pub(crate) inverses: &'a [f32],
    /// What a component's energy has beside its distance, `[width]`: `Σ ln v - 2 ln w`. Beyond the last component, so much that it counts nothing.
    pub(crate) constants: &'a [f32],
    /// Mean and variance of the posterior, `[n_latent]`.
    pub(crate) mean: &'a [f32],
    pub(crate) var: &'a [f32],
    /// The gradients are multiplied by it, the value is not.
    pub(crate) scale: f32,
    /// Becomes the gradient by the mean.
    pub(crate) by_mean: &'a mut [f32],
    /// Becomes the gradient by the variance.
    pub(crate) by_var: &'a mut [f32],
    /// Room for a number per component.
    pub(crate) shares: &'a mut Buffer,
}

kernel! {
    /// `-ln Σ_k w_k e^(-KL(q | p_k))`, an upper bound of the divergence of `q` from the mixture, in nats.
    pub(crate) fn divergence<V>(of: Mixture<'_>) -> f64 {
        let Mixture { means, inverses, constants, mean, var, scale, by_mean, by_var, shares } = of;
        let width = constants.len();
        let chunk = |table: &'_ [f32], dim: usize, at: usize| -> V {
            V::load(&table.as_chunks::<LANES>().0[dim * (width / LANES) + at])
        };
        let half = V::splat(0.5);
        for (at, energies) in shares.as_chunks_mut::<LANES>().0.iter_mut().take(width / LANES).enumerate() {
            let mut energy = V::load(&constants.as_chunks::<LANES>().0[at]);
            for (dim, (&mean, &var)) in mean.iter().zip(var).enumerate() {
                let distance = V::splat(mean).sub(chunk(means, dim, at));
                energy = distance.mul_add(distance, V::splat(var)).mul_add(chunk(inverses, dim, at), energy);
            }
            energy.mul(half).store(energies);
        }
        let least = shares[..width].iter().copied().fold(f32::INFINITY, f32::min);
        let mut sum = V::splat(0.0);
        for share in shares.as_chunks_mut::<LANES>().0.iter_mut().take(width / LANES) {
            let own = exp_of_negative(V::splat(least).sub(V::load(share)));
            sum = sum.add(own);
            own.store(share);
        }
        let sum = sum.sum();
        let mut log_vars = 0.0;
        for (dim, (&mean, &var)) in mean.iter().zip(var).enumerate() {
            let (mut pull, mut inverse) = (V::splat(0.0), V::splat(0.0));
            for (at, share) in shares.as_chunks::<LANES>().0.iter().take(width / LANES).enumerate() {
                let weighed = V::load(share).mul(chunk(inverses, dim, at));
                pull = V::splat(mean).sub(chunk(means, dim, at)).mul_add(weighed, pull);
                inverse = inverse.add(weighed);
            }
            by_mean[dim] = scale * pull.sum() / sum;
            by_var[dim] = 0.5 * scale * (inverse.sum() / sum - 1.0 / var);
            log_vars += f64::from(var).ln();
        }
        f64::from(least) - f64::from(sum).ln() - 0.5 * (log_vars + mean.len() as f64)
    }
}
