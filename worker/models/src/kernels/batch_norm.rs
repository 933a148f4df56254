//! Batch norm over the cells of a minibatch, from the shares of blocks of up to 32 cells: rows are cells, and every unit is for itself.

use super::lanes::{LANES, kernel};

kernel! {
    /// Mean of each unit over `n` rows, and the sum of squared distances from it.
    pub(crate) fn moments<V>(rows: &[f32], width: usize, n: usize, mean: &mut [f32], squares: &mut [f32]) {
        let units = mean.as_chunks_mut::<LANES>().0.iter_mut().zip(squares.as_chunks_mut::<LANES>().0);
        for (at, (mean, squares)) in units.enumerate() {
            let rows = || rows.chunks_exact(width).take(n).map(|row| V::load(&row.as_chunks::<LANES>().0[at]));
            let mut sum = V::splat(0.0);
            for value in rows() {
                sum = sum.add(value);
            }
            let middle = sum.mul(V::splat(1.0 / n as f32));
            let mut square = V::splat(0.0);
            for value in rows() {
                let distance = value.sub(middle);
                square = distance.mul_add(distance, square);
            }
            middle.store(mean);
            square.store(squares);
        }
    }
}

/// Moments of some rows.
pub(crate) struct Moments<'a> {
    pub(crate) n: f32,
    pub(crate) mean: &'a [f32],
    pub(crate) squares: &'a [f32],
}

kernel! {
    /// Adds the moments of further rows to those of `n`.
    ///
    /// Source: Chan, Golub and LeVeque 1983
    pub(crate) fn merge<V>(n: f32, mean: &mut [f32], squares: &mut [f32], more: Moments<'_>) {
        let share = more.n / (n + more.n);
        let (share, between) = (V::splat(share), V::splat(n * share));
        let own = mean.as_chunks_mut::<LANES>().0.iter_mut().zip(squares.as_chunks_mut::<LANES>().0);
        let more = more.mean.as_chunks::<LANES>().0.iter().zip(more.squares.as_chunks::<LANES>().0);
        for ((mean, squares), (more_mean, more_squares)) in own.zip(more) {
            let (middle, square) = (V::load(mean), V::load(squares));
            let distance = V::load(more_mean).sub(middle);
            distance.mul_add(share, middle).store(mean);
            distance.mul(distance).mul_add(between, square.add(V::load(more_squares))).store(squares);
        }
    }
}

kernel! {
    /// One over the standard deviation, from sums of squared distances over `n` rows.
    pub(crate) fn invert<V>(squares: &[f32], n: f32, eps: f32, inverse: &mut [f32]) {
        let units = squares.as_chunks::<LANES>().0.iter().zip(inverse.as_chunks_mut::<LANES>().0);
        for (squares, inverse) in units {
            let var = V::load(squares).mul(V::splat(1.0 / n)).add(V::splat(eps));
            V::splat(1.0).div(var.sqrt()).store(inverse);
        }
    }
}

kernel! {
    /// Moves running numbers to new ones times a factor, by a share of the way.
    pub(crate) fn follow<V>(running: &mut [f32], new: &[f32], factor: f32, share: f32) {
        let units = running.as_chunks_mut::<LANES>().0.iter_mut().zip(new.as_chunks::<LANES>().0);
        for (running, new) in units {
            let old = V::load(running);
            V::load(new).mul(V::splat(factor)).sub(old).mul_add(V::splat(share), old).store(running);
        }
    }
}

/// What standardises a unit, and what follows.
#[derive(Clone, Copy)]
pub(crate) struct Norm<'a> {
    pub(crate) mean: &'a [f32],
    /// One over the standard deviation.
    pub(crate) inverse: &'a [f32],
    pub(crate) weight: &'a [f32],
    pub(crate) bias: &'a [f32],
}

kernel! {
    /// Standardises a row into `standard`, and gives each unit its scale and shift.
    pub(crate) fn standardise<V>(row: &mut [f32], norm: Norm<'_>, standard: &mut [f32]) {
        let rows = row.as_chunks_mut::<LANES>().0.iter_mut().zip(standard.as_chunks_mut::<LANES>().0);
        let moments = norm.mean.as_chunks::<LANES>().0.iter().zip(norm.inverse.as_chunks::<LANES>().0);
        let affine = norm.weight.as_chunks::<LANES>().0.iter().zip(norm.bias.as_chunks::<LANES>().0);
        for (((row, standard), (mean, inverse)), (weight, bias)) in rows.zip(moments).zip(affine) {
            let value = V::load(row).sub(V::load(mean)).mul(V::load(inverse));
            value.store(standard);
            value.mul_add(V::load(weight), V::load(bias)).store(row);
        }
    }
}

kernel! {
    /// Sums over rows, of a width and so many, of the gradient by what came out, and of its product with what was standardised.
    pub(crate) fn gradient_sums<V>(
        gradient: &[f32],
        standard: &[f32],
        shape: (usize, usize),
        by_bias: &mut [f32],
        by_weight: &mut [f32],
    ) {
        let (width, n) = shape;
        let units = by_bias.as_chunks_mut::<LANES>().0.iter_mut().zip(by_weight.as_chunks_mut::<LANES>().0);
        for (at, (by_bias, by_weight)) in units.enumerate() {
            let (mut sum, mut product) = (V::splat(0.0), V::splat(0.0));
            for (gradient, standard) in gradient.chunks_exact(width).zip(standard.chunks_exact(width)).take(n) {
                let gradient = V::load(&gradient.as_chunks::<LANES>().0[at]);
                sum = sum.add(gradient);
                product = gradient.mul_add(V::load(&standard.as_chunks::<LANES>().0[at]), product);
            }
            sum.store(by_bias);
            product.store(by_weight);
        }
    }
}

/// What the gradient by a row takes of all rows.
#[derive(Clone, Copy)]
pub(crate) struct Sums<'a> {
    /// One over the number of rows.
    pub(crate) share: f32,
    pub(crate) by_bias: &'a [f32],
    pub(crate) by_weight: &'a [f32],
}

kernel! {
    /// From the gradient of a row by what came out of the norm to that by what went in, in place.
    pub(crate) fn gradient<V>(gradient: &mut [f32], standard: &[f32], norm: Norm<'_>, sums: Sums<'_>) {
        let share = V::splat(sums.share);
        let rows = gradient.as_chunks_mut::<LANES>().0.iter_mut().zip(standard.as_chunks::<LANES>().0);
        let factors = norm.inverse.as_chunks::<LANES>().0.iter().zip(norm.weight.as_chunks::<LANES>().0);
        let sums = sums.by_bias.as_chunks::<LANES>().0.iter().zip(sums.by_weight.as_chunks::<LANES>().0);
        for (((gradient, standard), (inverse, weight)), (by_bias, by_weight)) in rows.zip(factors).zip(sums) {
            let centred = V::load(by_bias).neg_mul_add(share, V::load(gradient));
            let along = V::load(by_weight).mul(share);
            let left = V::load(standard).neg_mul_add(along, centred);
            left.mul(V::load(inverse)).mul(V::load(weight)).store(gradient);
        }
    }
}

/// Running statistics.
#[derive(Clone, Copy)]
pub(crate) struct Running<'a> {
    pub(crate) mean: &'a [f32],
    pub(crate) var: &'a [f32],
    /// Added to the variance.
    pub(crate) eps: f32,
}

kernel! {
    /// Factor and term of each unit by running statistics.
    pub(crate) fn affine<V>(
        weight: &[f32],
        bias: &[f32],
        running: Running<'_>,
        scale: &mut [f32],
        shift: &mut [f32],
    ) {
        let Running { mean, var, eps } = running;
        let parameters = weight.as_chunks::<LANES>().0.iter().zip(bias.as_chunks::<LANES>().0);
        let statistics = mean.as_chunks::<LANES>().0.iter().zip(var.as_chunks::<LANES>().0);
        let results = scale.as_chunks_mut::<LANES>().0.iter_mut().zip(shift.as_chunks_mut::<LANES>().0);
        for (((weight, bias), (mean, var)), (scale, shift)) in parameters.zip(statistics).zip(results) {
            let factor = V::load(weight).div(V::load(var).add(V::splat(eps)).sqrt());
            factor.store(scale);
            V::load(mean).neg_mul_add(factor, V::load(bias)).store(shift);
        }
    }
}
