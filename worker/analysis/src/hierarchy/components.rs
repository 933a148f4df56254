//! Which components tell a node from its sisters: Welch's t-test.

use ndarray::ArrayView2;

/// Components whose means differ between positives and negatives at a corrected level of 5 %; without any, those of the
/// five smallest p-values.
pub(super) fn explaining(x: ArrayView2<'_, f32>, positives: &[u32], negatives: &[u32], n_tests: usize) -> Vec<u32> {
    let column = |rows: &[u32], column: usize| -> Vec<f64> {
        rows.iter().map(|&row| f64::from(x[[row as usize, column]])).collect()
    };
    let p: Vec<f64> = (0..x.ncols()).map(|at| welch_p(&column(positives, at), &column(negatives, at))).collect();
    let found: Vec<u32> = (0u32..).zip(&p).filter(|(_, p)| **p * n_tests as f64 <= LEVEL).map(|(at, _)| at).collect();
    if !found.is_empty() {
        return found;
    }
    let rank = |at: u32| if p[at as usize].is_nan() { f64::INFINITY } else { p[at as usize] };
    let mut order: Vec<u32> = (0..x.ncols() as u32).collect();
    order.sort_by(|&a, &b| rank(a).total_cmp(&rank(b)));
    order.truncate(FEW);
    order
}

/// Two-sided p-value of Welch's t-test for equal means; NaN where a side has no spread or fewer than two values.
///
/// # Source   Welch 1947; `ttest_ind(equal_var=False)` of SciPy
pub fn welch_p(a: &[f64], b: &[f64]) -> f64 {
    let [(mean_a, part_a), (mean_b, part_b)] = [a, b].map(|values| {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        (mean, values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0) / n)
    });
    let t = (mean_a - mean_b) / (part_a + part_b).sqrt();
    let [n_a, n_b] = [a, b].map(|values| values.len() as f64 - 1.0);
    let freedom = (part_a + part_b).powi(2) / (part_a.powi(2) / n_a + part_b.powi(2) / n_b);
    if !t.is_finite() || !freedom.is_finite() {
        return f64::NAN;
    }
    incomplete_beta(freedom / 2.0, 0.5, freedom / (freedom + t * t))
}

/// The regularised incomplete beta function, by its continued fraction (Lentz's method).
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    // The fraction converges quickly on this side of the mean.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(b, a, 1.0 - x);
    }
    let front = libm::lgamma(a + b) - libm::lgamma(a) - libm::lgamma(b) + a * x.ln() + b * (1.0 - x).ln();
    let guard = |value: f64| if value.abs() < f64::MIN_POSITIVE { f64::MIN_POSITIVE } else { value };
    let (mut c, mut d) = (1.0, 1.0 / guard(1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction = d;
    for m in 1..MOST_TERMS {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        for term in [even, odd] {
            d = 1.0 / guard(1.0 + term * d);
            c = guard(1.0 + term / c);
            fraction *= c * d;
        }
        if (c * d - 1.0).abs() < f64::EPSILON {
            break;
        }
    }
    front.exp() * fraction / a
}

const LEVEL: f64 = 0.05;
const FEW: usize = 5;
const MOST_TERMS: u32 = 500;

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values are those of `scipy.stats.ttest_ind(a, b, equal_var=False)`.
    #[test]
    fn p_values_are_scipy_s() {
        let check = |a: &[f64], b: &[f64], expected: f64| {
            let found = welch_p(a, b);
            assert!((found / expected - 1.0).abs() < 1e-9, "{found} for {expected}");
        };
        check(&[1.0, 2.0, 3.0, 4.0], &[2.0, 4.0, 6.0, 8.0, 9.0], WELCH[0]);
        check(&[0.1, 0.2, 0.15, 0.12], &[5.0, 5.1, 5.2, 4.9, 5.05, 5.0], WELCH[1]);
        check(&[1.0, 2.0, 3.0], &[1.0, 2.0, 3.5], WELCH[2]);
        assert!(welch_p(&[1.0, 1.0], &[1.0, 1.0]).is_nan() && welch_p(&[1.0], &[2.0, 3.0]).is_nan());
    }

    const WELCH: [f64; 3] = [0.06255581707060956, 1.0191587480379116e-12, 0.866615889038129];
}
