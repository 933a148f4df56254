//! Elementary and special functions of sixteen lanes, to about the last bit of single precision.

use super::lanes::{Lanes, SHIFT};

/// `e^x`; 0 where that is well below the smallest normal number, from -87.7 down; infinity above 88.37; NaN for NaN.
#[inline(always)]
pub(crate) fn exp<V: Lanes>(x: V) -> V {
    let value = exp_of_negative(V::splat(HIGHEST_EXPONENT).min(x));
    V::splat(HIGHEST_EXPONENT).where_below(x, V::splat(f32::INFINITY), value)
}

/// [`exp`] of what is not above 88.37.
///
/// Source: range reduction by Cody and Waite; the polynomial is that of Cephes' `expf`.
#[inline(always)]
pub(crate) fn exp_of_negative<V: Lanes>(x: V) -> V {
    let x = V::splat(LOWEST_EXPONENT).max(x);
    let shift = V::splat(SHIFT);
    let shifted = x.mul_add(V::splat(std::f32::consts::LOG2_E), shift);
    let n = shifted.sub(shift);
    let r = n.neg_mul_add(V::splat(LN_2_HIGH), x);
    let r = n.neg_mul_add(V::splat(LN_2_LOW), r);
    let mut p = V::splat(1.987_569_1e-4);
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p.mul_add(r, V::splat(c));
    }
    p.mul_add(r.mul(r), r).add(V::splat(1.0)).mul(shifted.exp2_of_shifted())
}

/// `1 / x` for `x` from 2^-125 up to [`LARGEST`], within one in the last place. Two steps, of the third and the second order, take a third of
/// the time of a division.
#[inline(always)]
pub(crate) fn reciprocal<V: Lanes>(x: V) -> V {
    let one = V::splat(1.0);
    let y = x.near_reciprocal();
    let error = x.neg_mul_add(y, one);
    let y = y.mul_add(error.mul_add(error, error), y);
    let error = x.neg_mul_add(y, one);
    y.mul_add(error, y)
}

/// `sqrt(x)` for normal `x` and 0, within two in the last place; less than 1e-19 below the smallest normal number.
#[inline(always)]
pub(crate) fn root<V: Lanes>(x: V) -> V {
    let (one, half) = (V::splat(1.0), V::splat(0.5));
    let y = x.near_reciprocal_root();
    let error = x.mul(y).neg_mul_add(y, one);
    let y = y.mul(error).mul_add(error.mul_add(V::splat(0.375), half), y);
    let root = x.mul(y);
    let error = root.neg_mul_add(y, one);
    root.mul(half).mul_add(error, root)
}

/// The natural logarithm of `x` from the smallest normal number up; minus infinity below it, NaN and infinity for themselves.
///
/// Source: the polynomial of Cephes' `logf`.
#[inline(always)]
pub(crate) fn ln<V: Lanes>(x: V) -> V {
    let (e, m) = x.exponent_and_mantissa();
    // The mantissa from 1/sqrt(2) up to sqrt(2): the polynomial is in its distance from 1.
    let sqrt_2 = V::splat(std::f32::consts::SQRT_2);
    let one = V::splat(1.0);
    let e = m.where_below(sqrt_2, e, e.add(one));
    let m = m.where_below(sqrt_2, m, m.mul(V::splat(0.5)));
    let d = m.sub(one);
    let mut p = V::splat(7.037_683_6e-2);
    for c in [
        -1.151_461e-1,
        1.167_699_8e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_7e-1,
        2.000_071_5e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ] {
        p = p.mul_add(d, V::splat(c));
    }
    let square = d.mul(d);
    let y = p.mul(d).mul(square);
    let y = e.mul_add(V::splat(LN_2_LOW), y);
    let y = square.mul_add(V::splat(-0.5), y);
    let value = e.mul_add(V::splat(LN_2_HIGH), d.add(y));
    let value = x.where_below(V::splat(f32::MIN_POSITIVE), V::splat(f32::NEG_INFINITY), value);
    x.where_below(V::splat(f32::INFINITY), value, x)
}

/// `ln(1 + q)` and `1 / (1 + q)` for `q >= 0`, exact for small `q` too.
#[inline(always)]
pub(crate) fn ln_1p<V: Lanes>(q: V) -> (V, V) {
    let one = V::splat(1.0);
    let u = q.add(one);
    let inverse = reciprocal(V::splat(LARGEST).min(u));
    // What the sum lost of q, to first order.
    let lost = q.sub(u.sub(one));
    (lost.mul_add(inverse, ln(u)), inverse)
}

/// `lgamma(z)` and `digamma(z)` for `z > 0`.
///
/// Source: the recurrence up to 8, then the asymptotic series (DLMF 5.11.1, 5.11.2).
#[inline(always)]
pub(crate) fn lgamma_digamma<V: Lanes>(z: V) -> (V, V) {
    let (one, zero) = (V::splat(1.0), V::splat(0.0));
    let bound = V::splat(8.0);
    // The product of z, z + 1, … below the bound, and its derivative: their quotient is the sum of the reciprocals.
    let (mut shifted, mut product, mut derivative) = (z, one, zero);
    for _ in 0..8 {
        derivative = shifted.where_below(bound, derivative.mul_add(shifted, product), derivative);
        product = shifted.where_below(bound, product.mul(shifted), product);
        shifted = shifted.where_below(bound, shifted.add(one), shifted);
    }
    let sum = derivative.div(product);
    let log = ln(shifted);
    let r = one.div(shifted);
    let r2 = r.mul(r);
    let series = r2.mul_add(V::splat(1.0 / 1260.0), V::splat(-1.0 / 360.0)).mul_add(r2, V::splat(1.0 / 12.0)).mul(r);
    let half_log_tau = V::splat(0.918_938_5);
    let stirling = shifted.sub(V::splat(0.5)).mul_add(log, half_log_tau.sub(shifted)).add(series);
    let lgamma = stirling.sub(ln(product));
    let tail = r2.mul_add(V::splat(-1.0 / 252.0), V::splat(1.0 / 120.0)).mul_add(r2, V::splat(-1.0 / 12.0)).mul(r2);
    let digamma = r.mul_add(V::splat(-0.5), log).add(tail).sub(sum);
    (lgamma, digamma)
}

/// Above it a reciprocal is 0, to all digits that matter.
pub(crate) const LARGEST: f32 = (1_u128 << 100) as f32;
/// Where `2^n` with the nearest `n`, -127, is 0.
const LOWEST_EXPONENT: f32 = -88.0;
/// Above it, nearly, `e^x` is no finite number.
const HIGHEST_EXPONENT: f32 = 88.37;
/// `ln 2` in two parts: the first has few enough bits that its multiples are exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::lanes::{LANES, Level, kernel};

    kernel! {
        fn all<V>(x: &[f32; LANES], out: &mut [[f32; LANES]; 6]) {
            let x = V::load(x);
            exp(x).store(&mut out[0]);
            ln(x).store(&mut out[1]);
            let (log, inverse) = ln_1p(x);
            log.store(&mut out[2]);
            inverse.store(&mut out[3]);
            let (lgamma, digamma) = lgamma_digamma(x);
            lgamma.store(&mut out[4]);
            digamma.store(&mut out[5]);
        }
    }

    fn run(level: Level, x: f32) -> [f32; 6] {
        let mut out = [[0.0; LANES]; 6];
        all(level, &[x; LANES], &mut out);
        out.map(|lanes| lanes[3])
    }

    fn check(name: &str, x: f32, found: f32, expected: f64, relative: f64, absolute: f64) {
        let bound = expected.abs() * relative + absolute;
        assert!((f64::from(found) - expected).abs() <= bound, "{name}({x}) is {found}, expected {expected}");
    }

    #[test]
    fn functions_are_exact_to_the_last_bits_on_every_level() {
        for level in Level::available() {
            for i in -350..350 {
                let x = 1.13_f64.powi(i) as f32;
                let y = f64::from(x);
                if y > f64::from(f32::MIN_POSITIVE) {
                    let [_, ln, ln_1p, inverse, ..] = run(level, x);
                    check("ln", x, ln, y.ln(), 2e-7, 0.0);
                    check("ln_1p", x, ln_1p, y.ln_1p(), 3e-7, 0.0);
                    check("1 / (1 + x)", x, inverse, 1.0 / (1.0 + y), 2e-7, 0.0);
                }
                let x = i as f32 / 4.0 + 0.01;
                let smallest = f64::from(f32::MIN_POSITIVE);
                check("exp", x, run(level, x)[0], f64::from(x).exp(), 3e-7, smallest);
                assert!(x > -87.7 || run(level, x)[0] == 0.0);
                assert!(x < 88.0 || run(level, x + 1.0)[0] == f32::INFINITY);
            }
        }
    }

    // from scipy.special import gammaln, psi; for z in (1e-6, .02, .5, 1, 1.5, 3, 7.9, 8, 40.25, 1e3, 1e6): print(z, gammaln(z), psi(z))
    const GAMMA: &[(f32, f64, f64)] = &[
        (0.5, 0.5723649429247001, -1.9635100260214235),
        (1.0, 0.0, -0.5772156649015329),
        (1.5, -0.12078223763524522, 0.03648997397857652),
        (3.0, std::f64::consts::LN_2, 0.9227843350984671),
        (8.0, 8.525161361065415, 2.01564147795561),
        (1000.0, 5905.220423209181, 6.907255195648812),
        (1e6, 12815504.569147611, 13.815510057964191),
    ];

    #[test]
    fn gamma_functions_are_those_of_scipy() {
        for level in Level::available() {
            for &(z, lgamma, digamma) in GAMMA {
                let [.., found_lgamma, found_digamma] = run(level, z);
                check("lgamma", z, found_lgamma, lgamma, 5e-7, 1e-6);
                check("digamma", z, found_digamma, digamma, 5e-7, 1e-6);
            }
        }
    }

    #[test]
    fn what_is_no_number_stays_visible() {
        for level in Level::available() {
            assert!(run(level, f32::NAN)[..3].iter().all(|y| y.is_nan()));
            assert_eq!(run(level, f32::NEG_INFINITY)[0], 0.0);
            assert_eq!(run(level, 0.0)[1], f32::NEG_INFINITY);
            assert_eq!(run(level, f32::INFINITY)[1], f32::INFINITY);
        }
    }
}
