//! Labels: a softmax over them, logarithms of normal densities, and means over the labels that a cell could have.

use super::{
    lanes::{LANES, Lanes, kernel},
    math::{exp, ln},
};

kernel! {
    /// `e^x` of each number.
    pub(crate) fn exp_of<V>(row: &mut [f32]) {
        for row in row.as_chunks_mut::<LANES>().0 {
            exp(V::load(row)).store(row);
        }
    }
}

kernel! {
    /// Numbers to shares of their powers of e, and padding to 0; gives the logarithm of the powers' sum. `mask` is 1 for numbers and 0
    /// for padding.
    pub(crate) fn softmax<V>(row: &mut [f32], mask: &[f32]) -> f32 {
        let (row, mask) = (row.as_chunks_mut::<LANES>().0, mask.as_chunks::<LANES>().0);
        let mut largest = V::splat(f32::NEG_INFINITY);
        for (row, mask) in row.iter().zip(mask) {
            largest = V::load(mask).where_below(V::splat(1.0), largest, largest.max(V::load(row)));
        }
        let largest = largest.largest();
        let mut sum = V::splat(0.0);
        for (row, mask) in row.iter_mut().zip(mask) {
            let power = exp(V::load(row).sub(V::splat(largest))).mul(V::load(mask));
            sum = sum.add(power);
            power.store(row);
        }
        let sum = sum.sum();
        let inverse = V::splat(1.0 / sum);
        row.iter_mut().for_each(|row| V::load(row).mul(inverse).store(row));
        let mut log = [0.0; LANES];
        ln(V::splat(sum)).store(&mut log);
        largest + log[0]
    }
}

kernel! {
    /// The gradient of what went into [`softmax`], from that of what came out (`probabilities`), times `factor`, in place.
    pub(crate) fn softmax_gradient<V>(probabilities: &[f32], gradient: &mut [f32], factor: f32) {
        let (gradient, probabilities) = (gradient.as_chunks_mut::<LANES>().0, probabilities.as_chunks::<LANES>().0);
        let mut mean = V::splat(0.0);
        for (gradient, p) in gradient.iter().zip(probabilities) {
            mean = V::load(gradient).mul_add(V::load(p), mean);
        }
        let mean = V::splat(mean.sum());
        for (gradient, p) in gradient.iter_mut().zip(probabilities) {
            V::load(gradient).sub(mean).mul(V::load(p)).mul(V::splat(factor)).store(gradient);
        }
    }
}

/// A point and a normal distribution, independent by dimension.
#[derive(Clone, Copy)]
pub(crate) struct Normal<'a> {
    /// The point.
    pub(crate) x: &'a [f32],
    /// Mean of the distribution.
    pub(crate) mean: &'a [f32],
    /// Its variance.
    pub(crate) var: &'a [f32],
    /// 1 for dimensions, 0 for padding.
    pub(crate) mask: &'a [f32],
}

impl<'a> Normal<'a> {
    /// Point, mean, variance and mask, lanes by lanes.
    #[inline(always)]
    fn lanes<V: Lanes>(self) -> impl Iterator<Item = (V, V, V, V)> + 'a {
        let of = |row: &'a [f32]| row.as_chunks::<LANES>().0.iter();
        let pairs = of(self.x).zip(of(self.mean)).zip(of(self.var).zip(of(self.mask)));
        pairs.map(|((x, mean), (var, mask))| (V::load(x), V::load(mean), V::load(var), V::load(mask)))
    }
}

kernel! {
    /// The logarithm of the density at the point, in nats.
    pub(crate) fn log_normal<V>(normal: Normal<'_>) -> f32 {
        let mut sum = V::splat(0.0);
        for (x, mean, var, mask) in normal.lanes::<V>() {
            let distance = x.sub(mean);
            let term = distance.mul(distance).div(var).add(ln(var)).add(V::splat(LOG_TAU));
            sum = term.mul_add(mask, sum);
        }
        -0.5 * sum.sum()
    }
}

kernel! {
    /// The gradient of `weight` times [`log_normal`]: by the point, which is added to `by_x`, by the mean, and by the variance.
    pub(crate) fn log_normal_gradient<V>(
        normal: Normal<'_>,
        weight: f32,
        by_x: &mut [f32],
        by_mean: &mut [f32],
        by_var: &mut [f32],
    ) {
        let by = by_x.as_chunks_mut::<LANES>().0.iter_mut().zip(by_mean.as_chunks_mut::<LANES>().0);
        let by = by.zip(by_var.as_chunks_mut::<LANES>().0);
        for (((by_x, by_mean), by_var), (x, mean, var, mask)) in by.zip(normal.lanes::<V>()) {
            let weight = V::splat(weight).mul(mask);
            let inverse = V::splat(1.0).div(var);
            let slope = x.sub(mean).mul(inverse);
            let of_mean = slope.mul(weight);
            V::load(by_x).sub(of_mean).store(by_x);
            of_mean.store(by_mean);
            slope.mul(slope).sub(inverse).mul(weight).mul(V::splat(0.5)).store(by_var);
        }
    }
}

/// What is known of a cell under each label.
pub(crate) struct Expected<'a> {
    /// Probability of the label, 0 for padding.
    pub(crate) probabilities: &'a [f32],
    /// A negative log density under the label.
    pub(crate) negative_log: &'a [f32],
    /// A divergence under the label.
    pub(crate) kl: &'a [f32],
    /// Logarithm of the label's probability before anything is seen.
    pub(crate) log_prior: &'a [f32],
    /// Weight of the divergences in the loss.
    pub(crate) kl_weight: f32,
    /// The loss's gradient by the probabilities, up to a number that all of them share.
    pub(crate) of_probabilities: &'a mut [f32],
}

kernel! {
    /// Means over the labels of the negative log density, and of the divergences with that of the probabilities from the prior; in nats.
    /// Logarithms are taken of probabilities between 2^-23 and 1 - 2^-23, as upstream does.
    pub(crate) fn expect<V>(row: Expected<'_>) -> (f32, f32) {
        let of = |row: &[f32], i: usize| V::load(&row.as_chunks::<LANES>().0[i]);
        let (mut negative_logs, mut kls) = (V::splat(0.0), V::splat(0.0));
        for (i, by) in row.of_probabilities.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let (p, negative_log) = (of(row.probabilities, i), of(row.negative_log, i));
            let kl = ln(clamped(p)).sub(of(row.log_prior, i)).add(of(row.kl, i));
            negative_logs = p.mul_add(negative_log, negative_logs);
            kls = p.mul_add(kl, kls);
            kl.mul_add(V::splat(row.kl_weight), negative_log).store(by);
        }
        (negative_logs.sum(), kls.sum())
    }
}

kernel! {
    /// The logarithm of each probability of a prior, between the same bounds.
    pub(crate) fn ln_of_prior<V>(row: &mut [f32]) {
        row.as_chunks_mut::<LANES>().0.iter_mut().for_each(|row| ln(clamped(V::load(row))).store(row));
    }
}

#[inline(always)]
fn clamped<V: Lanes>(p: V) -> V {
    V::splat(1.0 - f32::EPSILON).min(V::splat(f32::EPSILON).max(p))
}

/// `ln(2 π)`
const LOG_TAU: f32 = 1.837_877_1;
