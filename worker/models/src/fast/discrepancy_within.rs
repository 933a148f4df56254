//! Discrepancies of groups by the kernels, in the middle of a network that goes through autograd, as [likelihoods](super::CountsWithin).

use rayon::prelude::*;
use tch::{Kind, Tensor};

use crate::{
    kernels::{Buffer, Level, gaussian, memory::numbers, padded},
    losses::mmd::Coefficients,
};

/// `Σ_ij c_ij Σ_a e^(a |z_i - z_j|²)` over pairs of cells, a scalar: with the coefficients of groups it is the sum of their maximum mean
/// discrepancies. `z`: `[n, n_latent]`.
///
/// Nothing where the tensor's memory is not what kernels take: in double precision, or on a device.
pub(crate) fn discrepancy_within(z: &Tensor, coefficients: &Coefficients, exponents: &[f32]) -> Option<Tensor> {
    let (value, gradient) = tch::no_grad(|| computed(z, coefficients, exponents))?;
    let value = Tensor::from(value as f32);
    if !z.requires_grad() {
        return Some(value);
    }
    let sum = (z * gradient).sum(Kind::Float);
    // Of the sum nothing but its gradient is left.
    Some(&sum - sum.detach() + value)
}

fn computed(z: &Tensor, coefficients: &Coefficients, exponents: &[f32]) -> Option<(f64, Tensor)> {
    let (n, n_latent) = (z.size()[0] as usize, z.size()[1] as usize);
    let (width, z) = (padded(n), z.contiguous());
    let rows = numbers(&z)?;
    let mut by_dim = Buffer::zeros(n_latent * width);
    for (cell, row) in rows.chunks_exact(n_latent).enumerate() {
        row.iter().enumerate().for_each(|(dim, &value)| by_dim[dim * width + cell] = value);
    }
    let codes = coefficients.codes();
    let mut of_codes = Buffer::zeros(coefficients.n_codes() * width);
    for (p, row) in of_codes.chunks_exact_mut(width).enumerate() {
        // Nothing counts beyond the last cell.
        row.iter_mut().zip(codes).for_each(|(to, &q)| *to = coefficients.of_codes(p, q));
    }
    let level = Level::best();
    let mut gradient = vec![0.0_f32; n * n_latent];
    let of_cells = gradient.par_chunks_mut(n_latent).zip(rows.par_chunks(n_latent)).zip(codes);
    let values: Vec<f32> = of_cells
        .map_init(
            || Buffer::zeros(width),
            |slopes, ((gradient, own), &code)| {
                let coefficients = &of_codes[code * width..][..width];
                let all = &by_dim[..n_latent * width];
                gaussian::pairs(
                    level,
                    gaussian::Pairs { all, width, own, coefficients, exponents, scale: 1.0, gradient, slopes },
                )
            },
        )
        .collect();
    let gradient = Tensor::from_slice(&gradient).view([n as i64, n_latent as i64]);
    Some((values.into_iter().map(f64::from).sum(), gradient))
}
