//! Correlation of genes over denoised draws.

use ndarray::Array2;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use super::{CountResults, ExpressionAsk, predictive::gamma, to_vec};
use crate::nn::{Mode, Pass};

/// How genes are compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Correlation {
    /// Of values.
    Pearson,
    /// Of ranks.
    #[default]
    Spearman,
}

impl CountResults<'_> {
    /// Correlation of each gene with each over draws from the model without library size effects,
    /// `[n_genes, n_genes]`; the mean over the conditions asked for, or with every cell as its own.
    pub fn feature_correlation(&self, transform: &[i64], n_samples: usize, kind: Correlation) -> Array2<f64> {
        let codes: Vec<Vec<i64>> =
            if transform.is_empty() { vec![Vec::new()] } else { transform.iter().map(|&code| vec![code]).collect() };
        let n_genes = self.dataset.counts.n_cols();
        let mut sum = Array2::zeros((n_genes, n_genes));
        for (round, transform) in codes.iter().enumerate() {
            let ask = ExpressionAsk { transform: transform.clone(), ..ExpressionAsk::default() };
            sum += &correlate(self.denoised_draws(&ask, n_samples.max(1), round as u64), kind);
        }
        sum / codes.len() as f64
    }

    /// Gamma draws around `1000 * scale`, gene by gene.
    fn denoised_draws(&self, ask: &ExpressionAsk, n_samples: usize, round: u64) -> Vec<Vec<f64>> {
        let _guard = tch::no_grad_guard();
        let mut noise = crate::nn::SeededNoise::new(self.seeds.of("correlation", round));
        let mut rng = ChaCha8Rng::from_seed(self.seeds.of("gamma", round));
        let n_genes = self.dataset.counts.n_cols();
        let mut columns = vec![Vec::with_capacity(self.dataset.n_cells() * n_samples); n_genes];
        for _ in 0..n_samples {
            for cells in self.chunks() {
                let minibatch = self.minibatch(&cells);
                let mut pass = Pass { mode: Mode::Evaluation, noise: &mut noise };
                let draw = self.model().draw(&minibatch, &mut pass);
                let transformed = ask.transform.first().map(|&code| minibatch.covariates.with_condition(code));
                let covariates = transformed.as_ref().unwrap_or(&minibatch.covariates);
                let decoded = self.model().decode(&draw, &minibatch, covariates, &mut pass);
                let means = to_vec(&(&decoded.scale * DENOISED_LIBRARY));
                let shapes = decoded.counts.r.as_ref().map(|r| to_vec(&r.expand_as(&decoded.scale).contiguous()));
                for (i, &mean) in means.iter().enumerate() {
                    let shape = shapes.as_ref().map_or(f64::INFINITY, |shapes| f64::from(shapes[i]));
                    columns[i % n_genes].push(gamma(shape, f64::from(mean), &mut rng));
                }
            }
        }
        columns
    }
}

/// Correlation of each column with each.
pub(super) fn correlate(mut columns: Vec<Vec<f64>>, kind: Correlation) -> Array2<f64> {
    if kind == Correlation::Spearman {
        columns.iter_mut().for_each(|column| *column = ranks(column));
    }
    pearson(columns)
}

/// Pearson correlation of columns; 0 with a column that does not vary.
fn pearson(mut columns: Vec<Vec<f64>>) -> Array2<f64> {
    for column in &mut columns {
        let mean = column.iter().sum::<f64>() / column.len() as f64;
        column.iter_mut().for_each(|value| *value -= mean);
        let norm = column.iter().map(|value| value * value).sum::<f64>().sqrt();
        column.iter_mut().for_each(|value| *value = if norm > 0.0 { *value / norm } else { 0.0 });
    }
    let (n_genes, n_rows) = (columns.len(), columns.first().map_or(0, Vec::len));
    let matrix = Array2::from_shape_vec((n_genes, n_rows), columns.concat()).expect("all columns have one length");
    matrix.dot(&matrix.t())
}

/// Ranks from 1, ties at their mean.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let ties = order[start..].iter().take_while(|&&i| values[i] == values[order[start]]).count();
        let rank = start as f64 + (ties as f64 + 1.0) / 2.0;
        order[start..start + ties].iter().for_each(|&i| ranks[i] = rank);
        start += ties;
    }
    ranks
}

/// Library size that denoised draws are made for, as upstream.
pub(super) const DENOISED_LIBRARY: f64 = 1_000.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_share_the_mean_rank() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [3.5, 1.0, 3.5, 2.0]);
    }

    #[test]
    fn opposite_columns_correlate_with_minus_one() {
        let found = pearson(vec![vec![1.0, 2.0, 3.0], vec![3.0, 2.0, 1.0], vec![5.0; 3]]);
        assert!((found[[0, 1]] + 1.0).abs() < 1e-12 && (found[[0, 0]] - 1.0).abs() < 1e-12);
        assert_eq!(found[[0, 2]], 0.0);
    }
}
