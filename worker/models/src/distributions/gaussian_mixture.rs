//! A mixture of normal distributions on a line, fitted by expectation maximisation.

/// Means of a mixture of `k` normals fitted to `values`, ascending; fewer where there are fewer distinct values.
pub(crate) fn means(values: &[f64], k: usize) -> Vec<f64> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    sorted.dedup();
    let k = k.min(sorted.len());
    if k < 2 {
        return sorted.into_iter().take(k).collect();
    }
    let mut mixture = Mixture::start(&sorted, k);
    mixture.fit(values);
    mixture.mean.sort_by(f64::total_cmp);
    mixture.mean
}

/// Mean and standard deviation of the lower of two normals fitted to `values`; `None` where they are all alike, or the fit
/// does not settle.
pub(crate) fn lower_of_two(values: &[f64]) -> Option<(f64, f64)> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    if sorted.first() == sorted.last() {
        return None;
    }
    let mut mixture = Mixture::start(&sorted, 2);
    let is_settled = mixture.fit(values);
    let lower = usize::from(mixture.mean[1] < mixture.mean[0]);
    is_settled.then(|| (mixture.mean[lower], mixture.var[lower].sqrt()))
}

struct Mixture {
    weight: Vec<f64>,
    mean: Vec<f64>,
    var: Vec<f64>,
}

impl Mixture {
    /// Starts from k-means, itself started at equally spaced quantiles.
    fn start(sorted: &[f64], k: usize) -> Self {
        let quantile = |i: usize| sorted[((2 * i + 1) * (sorted.len() - 1)) / (2 * k)];
        let mut centre: Vec<f64> = (0..k).map(quantile).collect();
        let mut groups = vec![Vec::new(); k];
        for _ in 0..MAX_ROUNDS {
            groups = vec![Vec::new(); k];
            for &value in sorted {
                let nearest = (0..k).min_by(|&a, &b| (value - centre[a]).abs().total_cmp(&(value - centre[b]).abs()));
                groups[nearest.unwrap_or(0)].push(value);
            }
            let moved: Vec<f64> = groups.iter().zip(&centre).map(|(g, &c)| mean_or(g, c)).collect();
            if moved == centre {
                break;
            }
            centre = moved;
        }
        let n = sorted.len() as f64;
        let spread = |(group, centre): (&Vec<f64>, &f64)| {
            group.iter().map(|value| (value - centre).powi(2)).sum::<f64>() / (group.len().max(1) as f64) + FLOOR
        };
        let var = groups.iter().zip(&centre).map(spread).collect();
        let weight = groups.iter().map(|group| group.len().max(1) as f64 / n).collect();
        Self { weight, mean: centre, var }
    }

    /// Rounds until the fit no longer improves; whether that happened in time.
    fn fit(&mut self, values: &[f64]) -> bool {
        let mut before = f64::NEG_INFINITY;
        for _ in 0..MAX_ROUNDS {
            let fit = self.improve(values);
            if (fit - before).abs() < CHANGE {
                return true;
            }
            before = fit;
        }
        false
    }

    /// One round; gives the mean log-likelihood before it.
    fn improve(&mut self, values: &[f64]) -> f64 {
        let k = self.mean.len();
        let (mut total, mut sum, mut square) = (vec![0.0; k], vec![0.0; k], vec![0.0; k]);
        let (mut fit, mut n) = (0.0, 0.0);
        for &value in values.iter().filter(|value| value.is_finite()) {
            let log: Vec<f64> = (0..k).map(|j| self.log_density(j, value)).collect();
            let largest = log.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let norm = largest + log.iter().map(|l| (l - largest).exp()).sum::<f64>().ln();
            for j in 0..k {
                let share = (log[j] - norm).exp();
                total[j] += share;
                sum[j] += share * value;
                square[j] += share * value * value;
            }
            fit += norm;
            n += 1.0;
        }
        for j in (0..k).filter(|&j| total[j] > f64::EPSILON) {
            self.weight[j] = total[j] / n;
            self.mean[j] = sum[j] / total[j];
            self.var[j] = (square[j] / total[j] - self.mean[j].powi(2)).max(0.0) + FLOOR;
        }
        fit / n
    }

    fn log_density(&self, j: usize, value: f64) -> f64 {
        let distance = value - self.mean[j];
        self.weight[j].ln() - 0.5 * (self.var[j].ln() + distance * distance / self.var[j] + std::f64::consts::TAU.ln())
    }
}

fn mean_or(values: &[f64], otherwise: f64) -> f64 {
    if values.is_empty() { otherwise } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// Rounds of either algorithm; as many as upstream's.
const MAX_ROUNDS: usize = 100;
/// Improvement of the mean log-likelihood below which fitting ends.
const CHANGE: f64 = 1e-3;
/// Added to variances, so that a component on one point stays finite.
const FLOOR: f64 = 1e-6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_heaps_are_found() {
        let heap = |centre: f64| (0..50).map(move |i| centre + 0.01 * f64::from(i - 25));
        let values: Vec<f64> = heap(-2.0).chain(heap(0.0)).chain(heap(3.0)).collect();
        for (found, expected) in means(&values, 3).iter().zip([-2.0, 0.0, 3.0]) {
            assert!((found - expected).abs() < 0.02, "{found} instead of {expected}");
        }
    }

    // from sklearn.mixture import GaussianMixture  # scikit-learn 1.9, random_state 0
    // x = np.log1p([0, 1, 2, 0, 3, 1, 40, 60, 55, 90, 2, 1])
    // g = GaussianMixture(2).fit(x.reshape(-1, 1)); print(g.means_, np.sqrt(g.covariances_))
    #[test]
    fn the_lower_of_two_is_the_one_that_scikit_learn_finds() {
        let counts: [f64; 12] = [0.0, 1.0, 2.0, 0.0, 3.0, 1.0, 40.0, 60.0, 55.0, 90.0, 2.0, 1.0];
        let (mean, sd) = lower_of_two(&counts.map(f64::ln_1p)).unwrap();
        assert!((mean - LOWER.0).abs() < 1e-3 && (sd - LOWER.1).abs() < 1e-3, "{mean} {sd}");
        assert_eq!(lower_of_two(&[0.0; 8]), None, "an empty cell has no two components");
    }

    #[test]
    fn too_few_values_give_fewer_means() {
        assert_eq!(means(&[1.0, 1.0], 3), [1.0]);
        assert!(means(&[], 3).is_empty());
    }

    const LOWER: (f64, f64) = (0.7078700, 0.4701645);
}
