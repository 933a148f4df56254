//! Hilbert-Schmidt independence criterion: how much one set of a cell's numbers tells about another.

use tch::{Kind, Tensor};

/// Of the rows of two matrices, a scalar. 0 (but for rounding) where they are independent.
///
/// # Shapes   `z`: `[n, d1]`; `s`: `[n, d2]`
/// # Source   Gretton et al. 2007, the biased estimate, and its square root; checked against scArches 0.6.1
pub fn hsic(z: &Tensor, s: &Tensor) -> Tensor {
    let (kz, ks) = (kernel(z), kernel(s));
    let row_mean = |k: &Tensor| k.mean_dim([1_i64].as_slice(), false, Kind::Float);
    let product = (&kz * &ks).mean(Kind::Float);
    let means = kz.mean(Kind::Float) * ks.mean(Kind::Float);
    let rows = (row_mean(&kz) * row_mean(&ks)).mean(Kind::Float);
    // Rounding can take it below 0, and the root has no slope at 0.
    (product + means - rows * 2.0).clamp_min(TINY).sqrt()
}

/// Each of the last `n_free` columns of `z` with all other columns, added up.
pub fn one_against_all(z: &Tensor, n_free: usize) -> Tensor {
    let n = z.size()[1];
    let of_column = |column: i64| {
        let others = Tensor::cat(&[z.narrow(1, 0, column), z.narrow(1, column + 1, n - column - 1)], 1);
        hsic(&z.narrow(1, column, 1), &others)
    };
    let zero = Tensor::zeros([], (Kind::Float, z.device()));
    (n - n_free as i64..n).fold(zero, |sum, column| sum + of_column(column))
}

/// The last `n_free` columns of `z` together with all before them.
pub fn together(z: &Tensor, n_free: usize) -> Tensor {
    let (n, n_free) = (z.size()[1], n_free as i64);
    hsic(&z.narrow(1, 0, n - n_free), &z.narrow(1, n - n_free, n_free))
}

/// A Gaussian of the distance of every two rows, as wide as the mean distance of standard normal numbers.
fn kernel(v: &Tensor) -> Tensor {
    let differences = v.unsqueeze(1) - v.unsqueeze(0);
    let distance = differences.square().sum_dim_intlist([-1_i64].as_slice(), false, Kind::Float);
    (distance * -bandwidth(v.size()[1] as usize)).exp()
}

/// `1 / (2 g²)` with `g = 2 Γ((d + 1) / 2) / Γ(d / 2)`. By logarithms: Γ itself is too large from 342 columns on.
pub fn bandwidth(n_columns: usize) -> f64 {
    let d = n_columns as f64;
    let g = 2.0 * (libm::lgamma((d + 1.0) / 2.0) - libm::lgamma(d / 2.0)).exp();
    1.0 / (2.0 * g * g)
}

/// Its name among the figures of a model that has it.
pub const FIGURE: &str = "hsic";
/// Below what a difference of means of numbers up to 1 can tell.
const TINY: f64 = 1e-12;

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn a_copy_is_less_independent_than_a_stranger_and_a_constant_has_a_slope() {
        let column = |values: &[f32]| Tensor::from_slice(values).view([-1, 1]);
        // Within the kernel's width of each other: far apart, every two columns would tell as much of each other as a copy.
        let values = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5];
        let (x, stranger) = (column(&values), column(&[1.5, 0.0, 3.5, 0.5, 2.5, 1.0, 3.0, 2.0]));
        assert!(hsic(&x, &x).double_value(&[]) > 2.0 * hsic(&x, &stranger).double_value(&[]));
        let constant = Tensor::zeros([8, 1], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        hsic(&x, &constant).backward();
        assert!(constant.grad().isfinite().all().int64_value(&[]) == 1);
    }

    #[test]
    fn wide_latent_spaces_have_a_bandwidth() {
        assert!((bandwidth(1) - std::f64::consts::FRAC_PI_8).abs() < 1e-12);
        assert!(bandwidth(2_000).is_finite() && bandwidth(2_000) > 0.0);
    }
}
