//! t-SNE of few cells: fewer than three times the perplexity, for which Barnes-Hut is not made. All pairs are looked at.

use crate::neighbours::Neighbours;
use crate::progress::Progress;

/// How the descent is steered; the same numbers as for many cells.
pub(super) struct Descent {
    pub(super) perplexity: f64,
    pub(super) n_epochs: usize,
    pub(super) learning_rate: f64,
    pub(super) exaggeration: f64,
}

impl Descent {
    /// Places cells from a start on.
    ///
    /// # Shapes   `start`, returns: `[n_cells * 2]`
    /// # Source   van der Maaten & Hinton 2008: momentum, gains and early exaggeration as there
    pub(super) fn run(&self, neighbours: &Neighbours, start: &[f32], progress: Progress<'_>) -> Vec<f32> {
        let n = neighbours.n_cells();
        let p = affinities(neighbours, self.perplexity);
        let mut y: Vec<f64> = start.iter().map(|&value| f64::from(value)).collect();
        let (mut speed, mut gains) = (vec![0.0_f64; 2 * n], vec![1.0_f64; 2 * n]);
        for epoch in 0..self.n_epochs {
            let is_early = epoch < EARLY_EPOCHS;
            let (exaggeration, momentum) = if is_early { (self.exaggeration, 0.5) } else { (1.0, 0.8) };
            let gradient = gradient(&p, &y, exaggeration);
            for (((y, speed), gain), slope) in y.iter_mut().zip(&mut speed).zip(&mut gains).zip(gradient) {
                *gain = if (slope > 0.0) == (*speed > 0.0) { *gain * 0.8 } else { *gain + 0.2 };
                *gain = gain.max(0.01);
                *speed = momentum * *speed - self.learning_rate * *gain * slope;
                *y += *speed;
            }
            centre(&mut y);
            progress((epoch + 1) as f64 / self.n_epochs as f64);
        }
        y.into_iter().map(|value| value as f32).collect()
    }
}

/// Joint probabilities of all pairs, `[n * n]`, which sum to 1.
fn affinities(neighbours: &Neighbours, perplexity: f64) -> Vec<f64> {
    let n = neighbours.n_cells();
    let mut p = vec![0.0; n * n];
    for (cell, (rows, distances)) in neighbours.iter().enumerate() {
        let squares: Vec<f64> = distances.iter().map(|distance| distance * distance).collect();
        for (&row, share) in rows.iter().zip(conditional(&squares, perplexity)) {
            let share = share / (2 * n) as f64;
            p[cell * n + row as usize] += share;
            p[row as usize * n + cell] += share;
        }
    }
    p
}

/// Probabilities of a cell's neighbours by a Gaussian whose entropy is that of `perplexity` equal ones, as far as there are so
/// many.
fn conditional(squares: &[f64], perplexity: f64) -> Vec<f64> {
    let nearest = squares.iter().copied().fold(f64::INFINITY, f64::min);
    let (mut low, mut high, mut precision) = (0.0, f64::INFINITY, 1.0);
    let mut shares = Vec::new();
    for _ in 0..BISECTIONS {
        shares = squares.iter().map(|square| (-(square - nearest) * precision).exp()).collect::<Vec<f64>>();
        let sum: f64 = shares.iter().sum();
        shares.iter_mut().for_each(|share| *share /= sum);
        let entropy: f64 = shares.iter().filter(|share| **share > 0.0).map(|share| -share * share.ln()).sum();
        if entropy > perplexity.ln() {
            low = precision;
            precision = if high.is_finite() { f64::midpoint(precision, high) } else { 2.0 * precision };
        } else {
            high = precision;
            precision = f64::midpoint(precision, low);
        }
    }
    shares
}

/// Slope of the divergence between `p` and the places `y`.
fn gradient(p: &[f64], y: &[f64], exaggeration: f64) -> Vec<f64> {
    let n = y.len() / 2;
    let mut closeness = vec![0.0; n * n];
    let mut sum = 0.0;
    for i in 0..n {
        for j in 0..i {
            let (dx, dy) = (y[2 * i] - y[2 * j], y[2 * i + 1] - y[2 * j + 1]);
            let close = 1.0 / (1.0 + dx * dx + dy * dy);
            closeness[i * n + j] = close;
            sum += 2.0 * close;
        }
    }
    let sum = sum.max(f64::MIN_POSITIVE);
    let mut gradient = vec![0.0; 2 * n];
    for i in 0..n {
        for j in 0..i {
            let close = closeness[i * n + j];
            let force = 4.0 * (exaggeration * p[i * n + j] - close / sum) * close;
            for axis in 0..2 {
                let pull = force * (y[2 * i + axis] - y[2 * j + axis]);
                gradient[2 * i + axis] += pull;
                gradient[2 * j + axis] -= pull;
            }
        }
    }
    gradient
}

fn centre(y: &mut [f64]) {
    let n = (y.len() / 2).max(1) as f64;
    for axis in 0..2 {
        let mean = y.iter().skip(axis).step_by(2).sum::<f64>() / n;
        y.iter_mut().skip(axis).step_by(2).for_each(|value| *value -= mean);
    }
}

/// Steps of early exaggeration.
const EARLY_EPOCHS: usize = 250;
/// Halvings of the precision: enough for the last bit that matters.
const BISECTIONS: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropies_are_those_of_the_perplexity() {
        let squares: Vec<f64> = (1..40).map(|i| f64::from(i * i) / 7.0).collect();
        let entropy = |shares: &[f64]| -shares.iter().map(|share| share * share.ln()).sum::<f64>();
        assert!((entropy(&conditional(&squares, 10.0)).exp() - 10.0).abs() < 1e-6);
        let most = conditional(&squares[..5], 5.0);
        assert!(most.iter().all(|share| (share - 0.2).abs() < 1e-3), "{most:?}");
    }

    #[test]
    fn the_gradient_is_the_slope_of_the_divergence() {
        let n = 4;
        let mut p: Vec<f64> =
            (0..n * n).map(|at| if at / n == at % n { 0.0 } else { ((at / n + at % n) % 5 + 1) as f64 }).collect();
        let total: f64 = p.iter().sum();
        p.iter_mut().for_each(|p| *p /= total);
        let y = [0.3, -0.2, 1.0, 0.5, -0.7, 0.9, 0.1, -1.1];
        let divergence = |y: &[f64]| {
            let close = |i: usize, j: usize| {
                1.0 / (1.0 + (y[2 * i] - y[2 * j]).powi(2) + (y[2 * i + 1] - y[2 * j + 1]).powi(2))
            };
            let pairs = || (0..n * n).map(|at| (at / n, at % n)).filter(|(i, j)| i != j);
            let sum: f64 = pairs().map(|(i, j)| close(i, j)).sum();
            pairs().map(|(i, j)| p[i * n + j] * (p[i * n + j] * sum / close(i, j)).ln()).sum::<f64>()
        };
        for (at, slope) in gradient(&p, &y, 1.0).into_iter().enumerate() {
            let (mut up, mut down) = (y, y);
            up[at] += 1e-6;
            down[at] -= 1e-6;
            let numeric = (divergence(&up) - divergence(&down)) / 2e-6;
            assert!((slope - numeric).abs() < 1e-6, "{at}: {slope} and {numeric}");
        }
    }
}
