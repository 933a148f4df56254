//! Sums of Gaussians of one cell's distance to all others, and their gradient.

use super::{
    buffer::Buffer,
    lanes::{LANES, kernel},
    math::exp_of_negative,
};

/// One cell and all the others.
pub(crate) struct Pairs<'a> {
    /// Everybody's numbers: a row of `width` cells per dimension. What lies beyond the last cell counts nothing.
    pub(crate) all: &'a [f32],
    pub(crate) width: usize,
    /// The cell's own numbers.
    pub(crate) own: &'a [f32],
    /// What each pair counts, `[width]`; the same for both of its cells.
    pub(crate) coefficients: &'a [f32],
    /// Factors of the squared distance in the exponents, below 0.
    pub(crate) exponents: &'a [f32],
    /// The gradient is multiplied by it, the value is not.
    pub(crate) scale: f32,
    /// Where the gradient by the cell's own numbers is added, of the sum over all cells.
    pub(crate) gradient: &'a mut [f32],
    /// Room for a number per cell.
    pub(crate) slopes: &'a mut Buffer,
}

kernel! {
    /// `Σ_j c_j Σ_a e^(a |x - x_j|²)`. Squared distances are sums of squared differences, for the sake of the narrowest Gaussians.
    pub(crate) fn pairs<V>(pairs: Pairs<'_>) -> f32 {
        let Pairs { all, width, own, coefficients, exponents, scale, gradient, slopes } = pairs;
        let mut value = V::splat(0.0);
        let chunk = |dim: usize, at: usize| &all.as_chunks::<LANES>().0[dim * (width / LANES) + at];
        let of_pairs = coefficients.as_chunks::<LANES>().0.iter().zip(slopes.as_chunks_mut::<LANES>().0);
        for (at, (coefficients, slopes)) in of_pairs.enumerate() {
            let mut distance = V::splat(0.0);
            for (dim, &own) in own.iter().enumerate() {
                let difference = V::splat(own).sub(V::load(chunk(dim, at)));
                distance = difference.mul_add(difference, distance);
            }
            let (mut sum, mut slope) = (V::splat(0.0), V::splat(0.0));
            for &exponent in exponents {
                let gaussian = exp_of_negative(distance.mul(V::splat(exponent)));
                sum = sum.add(gaussian);
                slope = gaussian.mul_add(V::splat(exponent), slope);
            }
            let coefficients = V::load(coefficients);
            value = coefficients.mul_add(sum, value);
            // Twice for the square, and each pair is there from both sides.
            coefficients.mul(slope).mul(V::splat(4.0 * scale)).store(slopes);
        }
        for ((dim, &own), gradient) in own.iter().enumerate().zip(gradient.iter_mut()) {
            let mut by_own = V::splat(0.0);
            for (at, slopes) in slopes.as_chunks::<LANES>().0.iter().take(width / LANES).enumerate() {
                by_own = V::splat(own).sub(V::load(chunk(dim, at))).mul_add(V::load(slopes), by_own);
            }
            *gradient += by_own.sum();
        }
        value.sum()
    }
}
