//! Correlation of features over denoised draws.

use ndarray::Array2;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use super::{CountResults, ExpressionAsk, each_draw};
use crate::nn::{Mode, Pass, SeededNoise};

/// Which correlation of features is asked for.
#[derive(Clone, PartialEq, Debug)]
pub struct CorrelationAsk {
    /// Condition codes that cells are decoded as, averaged over; empty decodes every cell as its own.
    pub transform: Vec<i64>,
    /// Draws per cell; upstream takes 10.
    pub n_samples: usize,
    /// How features are compared.
    pub kind: Correlation,
    /// Whether logarithms are compared, as each block takes them.
    pub log: bool,
}

impl Default for CorrelationAsk {
    fn default() -> Self {
        Self { transform: vec![], n_samples: 10, kind: Correlation::default(), log: false }
    }
}

/// How features are compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Correlation {
    /// Of values.
    Pearson,
    /// Of ranks.
    #[default]
    Spearman,
}

impl CountResults<'_> {
    /// Correlation of each feature with each, block after block, over draws from the model without library size effects,
    /// `[n_features, n_features]`; the mean over the conditions asked for, or with every cell as its own.
    pub fn feature_correlation(&self, ask: &CorrelationAsk) -> Array2<f64> {
        let codes: Vec<Vec<i64>> = match ask.transform.as_slice() {
            [] => vec![Vec::new()],
            codes => codes.iter().map(|&code| vec![code]).collect(),
        };
        let n_features = self.n_features();
        let mut sum = Array2::zeros((n_features, n_features));
        for (round, transform) in codes.iter().enumerate() {
            let one = ExpressionAsk { transform: transform.clone(), ..ExpressionAsk::default() };
            sum += &correlate(self.denoised_draws(&one, ask, round as u64), ask.kind);
        }
        sum / codes.len() as f64
    }

    /// Draws of every cell, feature by feature.
    fn denoised_draws(&self, one: &ExpressionAsk, ask: &CorrelationAsk, round: u64) -> Vec<Vec<f64>> {
        let _guard = tch::no_grad_guard();
        let mut noise = SeededNoise::new(self.asked.seeds().of("correlation", round));
        let mut rng = ChaCha8Rng::from_seed(self.asked.seeds().of("gamma", round));
        let n_draws = self.asked.dataset().n_cells() * ask.n_samples.max(1);
        let mut columns = vec![Vec::with_capacity(n_draws); self.n_features()];
        for _ in 0..ask.n_samples.max(1) {
            for cells in self.asked.chunks() {
                let minibatch = self.asked.minibatch(&cells);
                let mut pass = Pass { mode: Mode::Evaluation, noise: &mut noise };
                each_draw(self.model(), &minibatch, one, &mut pass, |draw, covariates, pass| {
                    let mut later = columns.as_mut_slice();
                    for block in self.model().decode(draw, &minibatch, covariates, pass) {
                        let values = block.denoised(ask.log, &mut rng);
                        let (own, rest) = std::mem::take(&mut later).split_at_mut(values.len() / cells.len());
                        let n = own.len();
                        values.iter().enumerate().for_each(|(i, &value)| own[i % n].push(value));
                        later = rest;
                    }
                });
            }
        }
        columns
    }
}

/// Correlation of each column with each.
fn correlate(mut columns: Vec<Vec<f64>>, kind: Correlation) -> Array2<f64> {
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
