//! One step of Adam over a stretch of memory, as [`crate::train::Adam`] does it tensor by tensor.

use super::{
    lanes::{LANES, kernel},
    math::{reciprocal, root},
};

/// The numbers of one step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// Step size over the first moment's correction.
    pub(crate) rate: f32,
    /// One over the root of the second moment's correction.
    pub(crate) inverse_correction: f32,
    /// Added to the denominator.
    pub(crate) eps: f32,
    /// Added to the gradient, times the value.
    pub(crate) weight_decay: f32,
}

kernel! {
    /// Moves `values` against `gradient`.
    pub(crate) fn step<V>(step: Step, gradient: &[f32], values: &mut [f32], mean: &mut [f32], square: &mut [f32]) {
        let splat = V::splat;
        let (decay, eps) = (splat(step.weight_decay), splat(step.eps));
        let (rate, inverse_correction) = (splat(step.rate), splat(step.inverse_correction));
        let (one_minus_beta_1, beta_2, one_minus_beta_2) = (splat(0.1), splat(0.999), splat(0.001));
        let (gradient, _) = gradient.as_chunks::<LANES>();
        let moments = mean.as_chunks_mut::<LANES>().0.iter_mut().zip(square.as_chunks_mut::<LANES>().0);
        for ((gradient, values), (mean, square)) in gradient.iter().zip(values.as_chunks_mut::<LANES>().0).zip(moments) {
            let value = V::load(values);
            let gradient = decay.mul_add(value, V::load(gradient));
            let old = V::load(mean);
            let first = gradient.sub(old).mul_add(one_minus_beta_1, old);
            let second = gradient.mul(gradient).mul_add(one_minus_beta_2, V::load(square).mul(beta_2));
            first.store(mean);
            second.store(square);
            let denominator = root(second).mul_add(inverse_correction, eps);
            first.mul(reciprocal(denominator)).neg_mul_add(rate, value).store(values);
        }
    }
}
