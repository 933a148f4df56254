//! One step of Adam over a stretch of memory, as [`crate::train::Adam`] does it tensor by tensor.

use rayon::prelude::*;
use tch::Tensor;

use super::{
    Level,
    lanes::{LANES, kernel},
    math::{reciprocal, root},
    memory::{numbers, numbers_mut},
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
    /// What values are multiplied by before: less than 1 where weight decay is apart from the gradient.
    pub(crate) kept: f32,
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
            let value = V::load(values).mul(splat(step.kept));
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

/// The same of a tensor, in place. Whether it was done: nothing is where their memory is not what kernels take.
pub(crate) fn step_tensor(
    step: Step,
    gradient: &Tensor,
    values: &mut Tensor,
    mean: &mut Tensor,
    square: &mut Tensor,
) -> bool {
    // Four tensors of one optimiser: none shares its memory with another.
    let lent = (numbers(gradient), numbers_mut(values), numbers_mut(mean), numbers_mut(square));
    let (Some(gradient), Some(values), Some(mean), Some(square)) = lent else { return false };
    let level = Level::best();
    let pieces = gradient.par_chunks(PIECE).zip(values.par_chunks_mut(PIECE));
    let moments = mean.par_chunks_mut(PIECE).zip(square.par_chunks_mut(PIECE));
    pieces.zip(moments).for_each(|((gradient, values), (mean, square))| {
        let whole = gradient.len() - gradient.len() % LANES;
        let (of_whole, of_rest) = gradient.split_at(whole);
        let (values, rest) = values.split_at_mut(whole);
        let (mean, mean_rest) = mean.split_at_mut(whole);
        let (square, square_rest) = square.split_at_mut(whole);
        self::step(level, step, of_whole, values, mean, square);
        if !of_rest.is_empty() {
            let filled = |some: &[f32]| std::array::from_fn(|i| some.get(i).copied().unwrap_or_default());
            let gradient: [f32; LANES] = filled(of_rest);
            let mut all: [[f32; LANES]; 3] = [filled(rest), filled(mean_rest), filled(square_rest)];
            let [values, mean, square] = &mut all;
            self::step(level, step, &gradient, values, mean, square);
            let n = of_rest.len();
            for (to, from) in [rest, mean_rest, square_rest].into_iter().zip(&all) {
                to.copy_from_slice(&from[..n]);
            }
        }
    });
    true
}

/// Numbers that one thread moves at a time.
const PIECE: usize = 1 << 14;
