//! What several encoders say of one cell, mixed to one normal posterior, and the way back.
//!
//! Rows are means and logarithms of variances. An expert is added to a sum of all that a cell has; the sum becomes the posterior.

use super::{
    lanes::{LANES, kernel},
    math::{exp, ln},
};

/// What one encoder says, or all of them.
#[derive(Clone, Copy)]
pub(crate) struct Normal<'a> {
    pub(crate) mean: &'a [f32],
    pub(crate) log_var: &'a [f32],
}

/// The joint posterior and its gradient.
#[derive(Clone, Copy)]
pub(crate) struct Joint<'a> {
    pub(crate) mean: &'a [f32],
    pub(crate) var: &'a [f32],
    pub(crate) of_mean: &'a [f32],
    /// By the variance's logarithm.
    pub(crate) of_log_var: &'a [f32],
}

kernel! {
    /// Adds an expert to a product: its precision, and its mean times that.
    pub(crate) fn add_factor<V>(expert: Normal<'_>, weighted: &mut [f32], precision: &mut [f32]) {
        let sums = weighted.as_chunks_mut::<LANES>().0.iter_mut().zip(precision.as_chunks_mut::<LANES>().0);
        let experts = expert.mean.as_chunks::<LANES>().0.iter().zip(expert.log_var.as_chunks::<LANES>().0);
        for ((weighted, precision), (mean, log_var)) in sums.zip(experts) {
            let own = exp(V::splat(0.0).sub(V::load(log_var)));
            own.mul_add(V::load(mean), V::load(weighted)).store(weighted);
            own.add(V::load(precision)).store(precision);
        }
    }
}

kernel! {
    /// From the sums of a product to mean and logarithm of the variance, in place.
    pub(crate) fn finish_product<V>(weighted: &mut [f32], precision: &mut [f32]) {
        let sums = weighted.as_chunks_mut::<LANES>().0.iter_mut().zip(precision.as_chunks_mut::<LANES>().0);
        for (weighted, precision) in sums {
            let sum = V::load(precision);
            V::load(weighted).div(sum).store(weighted);
            V::splat(0.0).sub(ln(sum)).store(precision);
        }
    }
}

kernel! {
    /// The gradient by one expert's mean and logarithm of the variance in a product.
    pub(crate) fn factor_gradient<V>(expert: Normal<'_>, joint: Joint<'_>, of_mean: &mut [f32], of_log_var: &mut [f32]) {
        let of = of_mean.as_chunks_mut::<LANES>().0.iter_mut().zip(of_log_var.as_chunks_mut::<LANES>().0);
        let experts = expert.mean.as_chunks::<LANES>().0.iter().zip(expert.log_var.as_chunks::<LANES>().0);
        let (means, vars) = (joint.mean.as_chunks::<LANES>().0, joint.var.as_chunks::<LANES>().0);
        let (by_means, by_vars) = (joint.of_mean.as_chunks::<LANES>().0, joint.of_log_var.as_chunks::<LANES>().0);
        for (i, ((of_mean, of_log_var), (mean, log_var))) in of.zip(experts).enumerate() {
            // What of the joint precision is the expert's.
            let share = exp(V::splat(0.0).sub(V::load(log_var))).mul(V::load(&vars[i]));
            let (by_mean, ahead) = (V::load(&by_means[i]), V::load(&means[i]).sub(V::load(mean)));
            by_mean.mul(share).store(of_mean);
            by_mean.mul_add(ahead, V::load(&by_vars[i])).mul(share).store(of_log_var);
        }
    }
}

kernel! {
    /// Adds an expert with this share to a mean of experts.
    pub(crate) fn add_term<V>(expert: Normal<'_>, share: f32, mean: &mut [f32], var: &mut [f32]) {
        let sums = mean.as_chunks_mut::<LANES>().0.iter_mut().zip(var.as_chunks_mut::<LANES>().0);
        let experts = expert.mean.as_chunks::<LANES>().0.iter().zip(expert.log_var.as_chunks::<LANES>().0);
        for ((mean, var), (own, log_var)) in sums.zip(experts) {
            V::splat(share).mul_add(V::load(own), V::load(mean)).store(mean);
            V::splat(share * share).mul_add(exp(V::load(log_var)), V::load(var)).store(var);
        }
    }
}

kernel! {
    /// Numbers to their logarithms, in place.
    pub(crate) fn ln_of<V>(row: &mut [f32]) {
        row.as_chunks_mut::<LANES>().0.iter_mut().for_each(|row| ln(V::load(row)).store(row));
    }
}

kernel! {
    /// The gradient by one expert's mean and logarithm of the variance in a mean of experts, of which it has this share.
    pub(crate) fn term_gradient<V>(
        expert: Normal<'_>,
        share: f32,
        joint: Joint<'_>,
        of_mean: &mut [f32],
        of_log_var: &mut [f32],
    ) {
        let of = of_mean.as_chunks_mut::<LANES>().0.iter_mut().zip(of_log_var.as_chunks_mut::<LANES>().0);
        let vars = joint.var.as_chunks::<LANES>().0.iter().zip(expert.log_var.as_chunks::<LANES>().0);
        let by = joint.of_mean.as_chunks::<LANES>().0.iter().zip(joint.of_log_var.as_chunks::<LANES>().0);
        for (((of_mean, of_log_var), (var, log_var)), (by_mean, by_log_var)) in of.zip(vars).zip(by) {
            V::load(by_mean).mul(V::splat(share)).store(of_mean);
            let own = exp(V::load(log_var)).mul(V::splat(share * share)).div(V::load(var));
            V::load(by_log_var).mul(own).store(of_log_var);
        }
    }
}
