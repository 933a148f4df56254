//! Squared differences to values, one cell at a time: a row of outputs becomes its gradient, in place.

use super::{
    buffer::Buffer,
    lanes::{LANES, Lanes, kernel},
    math::{exp, ln_1p},
};

/// What outputs go through before they are compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Link {
    /// Nothing.
    Identity,
    /// 0 where they are below 0.
    Relu,
    /// `ln(1 + e^x)`.
    Softplus,
    /// `e^x`.
    Exp,
}

/// One cell.
pub(crate) struct Row<'a> {
    /// Outputs, padded; becomes the gradient by them.
    pub(crate) outputs: &'a mut [f32],
    /// Number of genes.
    pub(crate) n_genes: usize,
    /// Genes with a value other than 0.
    pub(crate) genes: &'a [u32],
    /// Their values.
    pub(crate) values: &'a [f32],
    pub(crate) link: Link,
    /// What the gradient is multiplied by.
    pub(crate) scale: f32,
}

/// The sum of squared differences; `dense` is room for a row, zero before and after.
pub(crate) fn squared_differences(level: super::Level, row: Row<'_>, dense: &mut Buffer) -> f32 {
    if row.link != Link::Identity {
        // What padding goes through is 0.
        row.outputs[row.n_genes..].fill(f32::NEG_INFINITY);
    }
    for (&gene, &value) in row.genes.iter().zip(row.values) {
        dense[gene as usize] = value;
    }
    match row.link {
        Link::Identity => identity(level, row.outputs, row.scale, dense),
        Link::Relu => relu(level, row.outputs, row.scale, dense),
        Link::Softplus => softplus(level, row.outputs, row.scale, dense),
        Link::Exp => power(level, row.outputs, row.scale, dense),
    }
}

/// Makes the kernel of one link: value and slope of an output.
macro_rules! of_link {
    ($name:ident, $lanes:ident, $output:ident, $value_and_slope:expr) => {
        kernel! {
            fn $name<$lanes>(outputs: &mut [f32], scale: f32, dense: &mut [f32]) -> f32 {
                let (mut sum, twice) = ($lanes::splat(0.0), $lanes::splat(2.0 * scale));
                let rows = outputs.as_chunks_mut::<LANES>().0.iter_mut().zip(dense.as_chunks_mut::<LANES>().0);
                for (outputs, dense) in rows {
                    let $output = $lanes::load(outputs);
                    let (value, slope) = $value_and_slope;
                    let difference = value.sub($lanes::load(dense));
                    sum = difference.mul_add(difference, sum);
                    difference.mul(slope).mul(twice).store(outputs);
                    $lanes::splat(0.0).store(dense);
                }
                sum.sum()
            }
        }
    };
}

of_link!(identity, V, x, (x, V::splat(1.0)));
// In this order a NaN stays one.
of_link!(relu, V, x, (V::splat(0.0).max(x), V::splat(0.0).where_below(x, V::splat(1.0), V::splat(0.0))));
of_link!(power, V, x, {
    let power = exp(x);
    (power, power)
});
of_link!(softplus, V, x, softplus_of(x));

/// `ln(1 + e^x)` and its slope.
#[inline(always)]
fn softplus_of<V: Lanes>(x: V) -> (V, V) {
    let (zero, one) = (V::splat(0.0), V::splat(1.0));
    // e^-|x|; of padding it is 0.
    let power = exp(x.min(zero.sub(x)));
    let (log, over) = ln_1p(power);
    (zero.max(x).add(log), x.where_below(zero, power.mul(over), one.mul(over)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{Level, padded};

    #[test]
    fn differences_and_slopes_are_right_on_every_level() {
        let (n_genes, genes, values) = (37, [0_u32, 5, 36], [1.5_f32, 0.25, 3.0]);
        let at = |i: usize| ((i as f32) * 0.7).sin() * 3.0;
        type Curve = fn(f64) -> f64;
        let links: [(Link, Curve); 4] = [
            (Link::Identity, |x| x),
            (Link::Relu, |x| x.max(0.0)),
            (Link::Softplus, |x| x.exp().ln_1p()),
            (Link::Exp, f64::exp),
        ];
        for (link, of) in links {
            let mut first: Option<Vec<u32>> = None;
            for level in Level::available() {
                let mut outputs = Buffer::zeros(padded(n_genes));
                (0..n_genes).for_each(|i| outputs[i] = at(i));
                let mut dense = Buffer::zeros(padded(n_genes));
                let row = Row { outputs: &mut outputs, n_genes, genes: &genes, values: &values, link, scale: 0.5 };
                let sum = squared_differences(level, row, &mut dense);
                let value = |i: usize| genes.iter().position(|&gene| gene as usize == i).map_or(0.0, |at| values[at]);
                let term = |i: usize, x: f64| (of(x) - f64::from(value(i))).powi(2);
                let exact: f64 = (0..n_genes).map(|i| term(i, f64::from(at(i)))).sum();
                assert!((f64::from(sum) - exact).abs() < 1e-5 * exact, "{link:?}: {sum}, expected {exact}");
                for i in 0..n_genes {
                    let (x, step) = (f64::from(at(i)), 1e-6);
                    let slope = 0.5 * (term(i, x + step) - term(i, x - step)) / (2.0 * step);
                    let is_kink = link == Link::Relu && x.abs() < 1e-5;
                    let is_right = (f64::from(outputs[i]) - slope).abs() < 1e-4 * (1.0 + slope.abs());
                    assert!(is_kink || is_right, "{link:?}: {}, expected {slope}", outputs[i]);
                }
                assert!(outputs[n_genes..].iter().chain(&dense[..]).all(|&value| value == 0.0), "{link:?}");
                let bits = outputs.iter().map(|value| value.to_bits()).chain([sum.to_bits()]).collect::<Vec<_>>();
                assert_eq!(first.get_or_insert(bits.clone()), &bits);
            }
        }
    }
}
