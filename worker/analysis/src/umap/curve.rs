//! The similarity that a distance in the picture stands for: `1 / (1 + a * d^(2b))`.

/// Parameters of the similarity curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Curve {
    pub(super) a: f64,
    pub(super) b: f64,
}

impl Curve {
    /// Least-squares fit to 1 below `min_dist` and an exponential decay of scale `spread` beyond, by damped
    /// Gauss-Newton steps.
    pub(super) fn fit(min_dist: f64, spread: f64) -> Self {
        let distances = (1..N_POINTS).map(|i| 3.0 * spread * i as f64 / (N_POINTS - 1) as f64);
        let wanted = |d: f64| if d < min_dist { 1.0 } else { (-(d - min_dist) / spread).exp() };
        let points: Vec<(f64, f64)> = distances.map(|d| (d, wanted(d))).collect();
        let mut curve = Self { a: 1.0, b: 1.0 };
        let mut damping = 1e-3;
        let mut error = curve.squared_error(&points);
        for _ in 0..MAX_STEPS {
            let next = curve.stepped(&points, damping);
            let next_error = next.squared_error(&points);
            if next.a > 0.0 && next.b > 0.0 && next_error <= error {
                let gain = error - next_error;
                (curve, error, damping) = (next, next_error, damping / 10.0);
                if gain < 1e-14 {
                    break;
                }
            } else {
                damping *= 10.0;
            }
        }
        curve
    }

    fn similarity(self, distance: f64) -> f64 {
        1.0 / (1.0 + self.a * distance.powf(2.0 * self.b))
    }

    fn squared_error(self, points: &[(f64, f64)]) -> f64 {
        points.iter().map(|&(d, wanted)| (self.similarity(d) - wanted).powi(2)).sum()
    }

    fn stepped(self, points: &[(f64, f64)], damping: f64) -> Self {
        let (mut aa, mut ab, mut bb, mut ra, mut rb) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for &(d, wanted) in points {
            let similarity = self.similarity(d);
            let power = d.powf(2.0 * self.b);
            let by_a = -similarity * similarity * power;
            let by_b = by_a * self.a * 2.0 * d.ln();
            let residual = wanted - similarity;
            aa += by_a * by_a;
            ab += by_a * by_b;
            bb += by_b * by_b;
            ra += by_a * residual;
            rb += by_b * residual;
        }
        let (aa, bb) = (aa * (1.0 + damping), bb * (1.0 + damping));
        let determinant = aa * bb - ab * ab;
        Self { a: self.a + (bb * ra - ab * rb) / determinant, b: self.b + (aa * rb - ab * ra) / determinant }
    }
}

const N_POINTS: usize = 300;
const MAX_STEPS: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of umap-learn's `find_ab_params(spread, min_dist)`.
    #[test]
    fn the_fit_equals_the_field_s() {
        for (min_dist, spread, a, b) in
            [(0.1, 1.0, 1.576_943_460, 0.895_060_879), (0.5, 1.0, 0.583_030_020, 1.334_166_992)]
        {
            let curve = Curve::fit(min_dist, spread);
            assert!((curve.a - a).abs() < 1e-4 && (curve.b - b).abs() < 1e-4, "{min_dist}: {curve:?}");
        }
    }
}
