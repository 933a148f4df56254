//! What stands between two products, row by row: norms, activation, dropout, the draw of the latent state; and its gradient.

use super::{
    lanes::{LANES, kernel},
    math::{exp, ln},
};

kernel! {
    /// `row = row * scale + shift`: batch norm with running statistics.
    pub(crate) fn scale_shift<V>(row: &mut [f32], scale: &[f32], shift: &[f32]) {
        let factors = scale.as_chunks::<LANES>().0.iter().zip(shift.as_chunks::<LANES>().0);
        for (row, (scale, shift)) in row.as_chunks_mut::<LANES>().0.iter_mut().zip(factors) {
            V::load(row).mul_add(V::load(scale), V::load(shift)).store(row);
        }
    }
}

kernel! {
    /// `row = row * factor`.
    pub(crate) fn scale<V>(row: &mut [f32], factor: &[f32]) {
        for (row, factor) in row.as_chunks_mut::<LANES>().0.iter_mut().zip(factor.as_chunks::<LANES>().0) {
            V::load(row).mul(V::load(factor)).store(row);
        }
    }
}

kernel! {
    /// `sum = sum + row`.
    pub(crate) fn add<V>(sum: &mut [f32], row: &[f32]) {
        for (sum, row) in sum.as_chunks_mut::<LANES>().0.iter_mut().zip(row.as_chunks::<LANES>().0) {
            V::load(sum).add(V::load(row)).store(sum);
        }
    }
}

kernel! {
    /// `sum = sum + row * factor`.
    pub(crate) fn add_scaled<V>(sum: &mut [f32], row: &[f32], factor: f32) {
        let factor = V::splat(factor);
        for (sum, row) in sum.as_chunks_mut::<LANES>().0.iter_mut().zip(row.as_chunks::<LANES>().0) {
            factor.mul_add(V::load(row), V::load(sum)).store(sum);
        }
    }
}

kernel! {
    /// `sum = sum + a * b`, number by number.
    pub(crate) fn add_product<V>(sum: &mut [f32], a: &[f32], b: &[f32]) {
        let rows = a.as_chunks::<LANES>().0.iter().zip(b.as_chunks::<LANES>().0);
        for (sum, (a, b)) in sum.as_chunks_mut::<LANES>().0.iter_mut().zip(rows) {
            V::load(a).mul_add(V::load(b), V::load(sum)).store(sum);
        }
    }
}

kernel! {
    /// The sum of products of two rows.
    pub(crate) fn dot<V>(a: &[f32], b: &[f32]) -> f32 {
        let mut sum = V::splat(0.0);
        for (a, b) in a.as_chunks::<LANES>().0.iter().zip(b.as_chunks::<LANES>().0) {
            sum = V::load(a).mul_add(V::load(b), sum);
        }
        sum.sum()
    }
}

kernel! {
    /// Layer norm of a row of `n` units, eps 1e-5, no parameters; `mask` is 1 for units and 0 for padding. Gives one over the
    /// standard deviation.
    pub(crate) fn layer_norm<V>(row: &mut [f32], mask: &[f32], n: usize) -> f32 {
        let (row, (mask, _)) = (row.as_chunks_mut::<LANES>().0, mask.as_chunks::<LANES>());
        let mut sum = V::splat(0.0);
        for row in &*row {
            sum = sum.add(V::load(row));
        }
        let mean = V::splat(sum.sum() / n as f32);
        let mut squares = V::splat(0.0);
        for (row, mask) in row.iter_mut().zip(mask) {
            let distance = V::load(row).sub(mean).mul(V::load(mask));
            squares = distance.mul_add(distance, squares);
            distance.store(row);
        }
        let inverse = 1.0 / (squares.sum() / n as f32 + 1e-5).sqrt();
        for row in row {
            V::load(row).mul(V::splat(inverse)).store(row);
        }
        inverse
    }
}

kernel! {
    /// The gradient of what went into [`layer_norm`], from that of what came out (`normal`), in place.
    pub(crate) fn layer_norm_gradient<V>(gradient: &mut [f32], normal: &[f32], mask: &[f32], n: usize, inverse: f32) {
        let (gradient, (normal, _)) = (gradient.as_chunks_mut::<LANES>().0, normal.as_chunks::<LANES>());
        let (mut sum, mut product) = (V::splat(0.0), V::splat(0.0));
        for (gradient, normal) in gradient.iter().zip(normal) {
            sum = sum.add(V::load(gradient));
            product = V::load(gradient).mul_add(V::load(normal), product);
        }
        let (mean, slope) = (V::splat(sum.sum() / n as f32), V::splat(product.sum() / n as f32));
        let inverse = V::splat(inverse);
        let masks = mask.as_chunks::<LANES>().0;
        for ((gradient, normal), mask) in gradient.iter_mut().zip(normal).zip(masks) {
            let centred = V::load(gradient).sub(mean);
            V::load(normal).neg_mul_add(slope, centred).mul(inverse).mul(V::load(mask)).store(gradient);
        }
    }
}

kernel! {
    /// `out = max(row, 0)`, times what dropout keeps.
    pub(crate) fn relu<V>(row: &[f32], keep: Option<&[f32]>, out: &mut [f32]) {
        let (rows, outs) = (row.as_chunks::<LANES>().0, out.as_chunks_mut::<LANES>().0);
        for (i, (row, out)) in rows.iter().zip(outs).enumerate() {
            // In this order a NaN stays one.
            let mut value = V::splat(0.0).max(V::load(row));
            if let Some(keep) = keep {
                value = value.mul(V::load(&keep.as_chunks::<LANES>().0[i]));
            }
            value.store(out);
        }
    }
}

kernel! {
    /// The gradient of what went into [`relu`], from that of what came out, in place.
    pub(crate) fn relu_gradient<V>(gradient: &mut [f32], row: &[f32], keep: Option<&[f32]>) {
        let (gradients, rows) = (gradient.as_chunks_mut::<LANES>().0, row.as_chunks::<LANES>().0);
        for (i, (gradient, row)) in gradients.iter_mut().zip(rows).enumerate() {
            let mut value = V::load(gradient);
            if let Some(keep) = keep {
                value = value.mul(V::load(&keep.as_chunks::<LANES>().0[i]));
            }
            V::splat(0.0).where_below(V::load(row), value, V::splat(0.0)).store(gradient);
        }
    }
}

kernel! {
    /// `out = row` above 0 and `row * slope` below it, times what dropout keeps.
    pub(crate) fn leaky_relu<V>(row: &[f32], slope: f32, keep: Option<&[f32]>, out: &mut [f32]) {
        let (rows, outs) = (row.as_chunks::<LANES>().0, out.as_chunks_mut::<LANES>().0);
        for (i, (row, out)) in rows.iter().zip(outs).enumerate() {
            let value = V::load(row);
            let mut value = V::splat(0.0).where_below(value, value, value.mul(V::splat(slope)));
            if let Some(keep) = keep {
                value = value.mul(V::load(&keep.as_chunks::<LANES>().0[i]));
            }
            value.store(out);
        }
    }
}

kernel! {
    /// The gradient of what went into [`leaky_relu`], from that of what came out, in place.
    pub(crate) fn leaky_relu_gradient<V>(gradient: &mut [f32], row: &[f32], slope: f32, keep: Option<&[f32]>) {
        let (gradients, rows) = (gradient.as_chunks_mut::<LANES>().0, row.as_chunks::<LANES>().0);
        for (i, (gradient, row)) in gradients.iter_mut().zip(rows).enumerate() {
            let mut value = V::load(gradient);
            if let Some(keep) = keep {
                value = value.mul(V::load(&keep.as_chunks::<LANES>().0[i]));
            }
            V::splat(0.0).where_below(V::load(row), value, value.mul(V::splat(slope))).store(gradient);
        }
    }
}

/// One cell's latent state: rows of `n_latent` numbers and padding.
pub(crate) struct Draw<'a> {
    /// Mean of the posterior.
    pub(crate) mean: &'a [f32],
    /// Log of its variance above the floor; becomes the variance.
    pub(crate) var: &'a mut [f32],
    /// Standard-normal noise.
    pub(crate) noise: &'a [f32],
    /// What is drawn.
    pub(crate) z: &'a mut [f32],
    /// 1 for dimensions, 0 for padding.
    pub(crate) mask: &'a [f32],
    /// Added to every variance.
    pub(crate) floor: f32,
}

kernel! {
    /// Draws by reparameterisation; gives the divergence from the standard normal, in nats.
    pub(crate) fn draw<V>(row: Draw<'_>) -> f32 {
        let mut kl = V::splat(0.0);
        let (vars, zs) = (row.var.as_chunks_mut::<LANES>().0, row.z.as_chunks_mut::<LANES>().0);
        let (means, noises) = (row.mean.as_chunks::<LANES>().0, row.noise.as_chunks::<LANES>().0);
        let masks = row.mask.as_chunks::<LANES>().0;
        for (i, (var, z)) in vars.iter_mut().zip(zs).enumerate() {
            let (mean, mask) = (V::load(&means[i]), V::load(&masks[i]));
            let value = exp(V::load(var)).add(V::splat(row.floor));
            value.store(var);
            value.sqrt().mul_add(V::load(&noises[i]), mean).store(z);
            let term = mean.mul_add(mean, value).sub(V::splat(1.0)).sub(ln(value));
            kl = term.mul_add(mask, kl);
        }
        0.5 * kl.sum()
    }
}

/// Gradients of one cell's latent state.
pub(crate) struct DrawGradient<'a> {
    /// Mean of the posterior.
    pub(crate) mean: &'a [f32],
    /// Its variance.
    pub(crate) var: &'a [f32],
    /// The noise it was drawn with.
    pub(crate) noise: &'a [f32],
    /// Gradient of what was drawn; becomes that of the mean.
    pub(crate) of_mean: &'a mut [f32],
    /// Becomes the gradient of the variance's logarithm.
    pub(crate) of_var: &'a mut [f32],
    /// 1 for dimensions, 0 for padding.
    pub(crate) mask: &'a [f32],
    /// Weight of the divergence.
    pub(crate) kl_weight: f32,
    /// What was added to the variance.
    pub(crate) floor: f32,
}

kernel! {
    /// The gradient of [`draw`] and of the divergence.
    pub(crate) fn draw_gradient<V>(row: DrawGradient<'_>) {
        let (half, one, weight) = (V::splat(0.5), V::splat(1.0), V::splat(row.kl_weight));
        let (of_means, of_vars) = (row.of_mean.as_chunks_mut::<LANES>().0, row.of_var.as_chunks_mut::<LANES>().0);
        let (means, vars) = (row.mean.as_chunks::<LANES>().0, row.var.as_chunks::<LANES>().0);
        let (noises, masks) = (row.noise.as_chunks::<LANES>().0, row.mask.as_chunks::<LANES>().0);
        for (i, (of_mean, of_var)) in of_means.iter_mut().zip(of_vars).enumerate() {
            let (var, mask, of_z) = (V::load(&vars[i]), V::load(&masks[i]), V::load(of_mean));
            let by_noise = of_z.mul(V::load(&noises[i])).div(var.sqrt());
            let by_kl = one.sub(one.div(var)).mul(weight);
            let above_floor = var.sub(V::splat(row.floor));
            by_noise.add(by_kl).mul(half).mul(above_floor).mul(mask).store(of_var);
            V::load(&means[i]).mul_add(weight, of_z).mul(mask).store(of_mean);
        }
    }
}

kernel! {
    /// Adds the gradients, by one cell's posterior, of what else depends on it: by the mean to `of_mean`, and by the variance, through its
    /// logarithm, to `of_var`.
    pub(crate) fn add_posterior_gradient<V>(
        of_mean: &mut [f32],
        of_var: &mut [f32],
        var: &[f32],
        by_mean: &[f32],
        by_var: &[f32],
        floor: f32,
    ) {
        let of = of_mean.as_chunks_mut::<LANES>().0.iter_mut().zip(of_var.as_chunks_mut::<LANES>().0);
        let by = by_mean.as_chunks::<LANES>().0.iter().zip(by_var.as_chunks::<LANES>().0);
        for (((of_mean, of_var), (by_mean, by_var)), var) in of.zip(by).zip(var.as_chunks::<LANES>().0) {
            let above_floor = V::load(var).sub(V::splat(floor));
            V::load(of_mean).add(V::load(by_mean)).store(of_mean);
            above_floor.mul_add(V::load(by_var), V::load(of_var)).store(of_var);
        }
    }
}

/// Added to variances, as upstream does where it adds something.
pub(crate) const VARIANCE_FLOOR: f32 = 1e-4;
