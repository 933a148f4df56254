//! How well predicted expression meets what was observed, gene by gene over the means of cells.

use crate::{AnalysisError, CsrView, Result};

/// Agreement of two means of every gene.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Agreement {
    /// Squared Pearson correlation over all genes; none where a side does not vary.
    pub r2: Option<f64>,
    /// The same over some genes.
    pub r2_top: Option<f64>,
    /// Mean squared difference over all genes.
    pub mse: f64,
}

impl Agreement {
    /// Compares two means of every gene; `top` are positions of some genes.
    ///
    /// # Errors   two numbers of genes, no gene
    pub fn new(predicted: &[f64], observed: &[f64], top: &[usize]) -> Result<Self> {
        let (found, expected) = (predicted.len(), observed.len());
        if found != expected {
            return Err(AnalysisError::Length { what: "predicted expression", found, expected });
        }
        if found == 0 {
            return Err(AnalysisError::TooFew { step: "a comparison of means", unit: "genes", needed: 1, found });
        }
        let squares = predicted.iter().zip(observed).map(|(a, b)| (a - b).powi(2));
        let of = |values: &[f64]| top.iter().map(|&gene| values[gene]).collect::<Vec<_>>();
        Ok(Self {
            r2: r2(predicted, observed),
            r2_top: r2(&of(predicted), &of(observed)),
            mse: squares.sum::<f64>() / found as f64,
        })
    }
}

/// The mean of every gene over cells; zeros where there is no cell.
pub fn gene_means(cells: CsrView<'_>) -> Vec<f64> {
    let mut sums = vec![0.0; cells.n_genes()];
    for cell in 0..cells.n_cells() {
        let (genes, values) = cells.row(cell);
        genes.iter().zip(values).for_each(|(&gene, &value)| sums[gene as usize] += f64::from(value));
    }
    sums.iter_mut().for_each(|sum| *sum /= cells.n_cells().max(1) as f64);
    sums
}

/// The genes that are higher in some cells than in others, the surest first, at most `n`: by Wilcoxon's rank sum, with ties at
/// their mean rank and without a correction for them, as scanpy ranks genes.
///
/// # Errors   two numbers of genes, no cell on a side
pub fn increased_genes(cells: CsrView<'_>, others: CsrView<'_>, n: usize) -> Result<Vec<usize>> {
    let (found, expected) = (cells.n_genes(), others.n_genes());
    if found != expected {
        return Err(AnalysisError::Length { what: "the genes of the cells", found, expected });
    }
    let found = cells.n_cells().min(others.n_cells());
    if found == 0 {
        return Err(AnalysisError::TooFew { step: "a rank of genes", unit: "cells on each side", needed: 1, found });
    }
    let (own, other) = (by_gene(cells), by_gene(others));
    let rank = |gene: usize| rank_sum((&own[gene], cells.n_cells()), (&other[gene], others.n_cells()));
    let scores: Vec<f64> = (0..expected).map(rank).collect();
    let mut genes: Vec<usize> = (0..expected).collect();
    genes.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    genes.truncate(n);
    Ok(genes)
}

/// Stored values of every gene.
fn by_gene(cells: CsrView<'_>) -> Vec<Vec<f32>> {
    let mut columns = vec![Vec::new(); cells.n_genes()];
    for cell in 0..cells.n_cells() {
        let (genes, values) = cells.row(cell);
        genes.iter().zip(values).for_each(|(&gene, &value)| columns[gene as usize].push(value));
    }
    columns
}

/// Sum of the ranks of the first cells, from stored values and number of cells of both, in units of its standard deviation around what is
/// expected of equals.
fn rank_sum((own, n_own): (&[f32], usize), (other, n_other): (&[f32], usize)) -> f64 {
    let zeros = |stored: &[f32], n: usize| n - stored.iter().filter(|value| **value != 0.0).count();
    let mut stored: Vec<(f32, bool)> = own.iter().map(|&value| (value, true)).collect();
    stored.extend(other.iter().map(|&value| (value, false)));
    stored.retain(|(value, _)| *value != 0.0);
    stored.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (own_zeros, all_zeros) = (zeros(own, n_own), zeros(own, n_own) + zeros(other, n_other));
    let below = stored.partition_point(|(value, _)| *value < 0.0);
    let mut sum = own_zeros as f64 * (below as f64 + (all_zeros as f64 + 1.0) / 2.0);
    let mut start = 0;
    while start < stored.len() {
        let ties = stored[start..].iter().take_while(|(value, _)| *value == stored[start].0).count();
        let before = start + if start >= below { all_zeros } else { 0 };
        let n_own = stored[start..start + ties].iter().filter(|(_, is_own)| *is_own).count();
        sum += n_own as f64 * (before as f64 + (ties as f64 + 1.0) / 2.0);
        start += ties;
    }
    let (a, b) = (n_own as f64, n_other as f64);
    (sum - a * (a + b + 1.0) / 2.0) / (a * b * (a + b + 1.0) / 12.0).sqrt()
}

fn r2(a: &[f64], b: &[f64]) -> Option<f64> {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let product = |x: &[f64], mean_x: f64, y: &[f64], mean_y: f64| -> f64 {
        x.iter().zip(y).map(|(x, y)| (x - mean_x) * (y - mean_y)).sum()
    };
    let variances = product(a, mean_a, a, mean_a) * product(b, mean_b, b, mean_b);
    (variances > 0.0).then(|| product(a, mean_a, b, mean_b).powi(2) / variances)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_that_are_a_line_of_each_other_agree() {
        let agreement = Agreement::new(&[1.0, 3.0, 5.0], &[2.0, 4.0, 6.0], &[0, 1]).unwrap();
        assert_eq!(agreement, Agreement { r2: Some(1.0), r2_top: Some(1.0), mse: 1.0 });
        let flat = Agreement::new(&[1.0, 1.0], &[2.0, 4.0], &[]).unwrap();
        assert_eq!((flat.r2, flat.r2_top), (None, None));
        assert!(Agreement::new(&[1.0], &[], &[]).is_err() && Agreement::new(&[], &[], &[]).is_err());
    }

    /// Two cells with genes 1, 2 and 3, and two others; by hand.
    #[test]
    fn ranks_count_zeros_that_are_not_stored_and_ties_share_theirs() {
        let cells = CsrView::new(3, &[0, 2, 4], &[0, 2, 0, 2], &[5.0, 1.0, 4.0, 1.0]).unwrap();
        let others = CsrView::new(3, &[0, 2, 4], &[0, 1, 1, 2], &[1.0, 2.0, 2.0, 1.0]).unwrap();
        // Ranks of the first two cells: gene 0 has 3 and 4, gene 1 ranks 1.5 twice, gene 2 has 3 twice.
        let expected = [(7.0, 0), (6.0, 2), (3.0, 1)];
        assert_eq!(increased_genes(cells, others, 3).unwrap(), expected.map(|(_, gene)| gene));
        let score = |own: &[f32], other: &[f32]| rank_sum((own, 2), (other, 2));
        let sd = (4.0_f64 * 5.0 / 12.0).sqrt();
        assert_eq!(score(&[5.0, 4.0], &[1.0]), (7.0 - 5.0) / sd);
        assert_eq!(score(&[], &[2.0, 2.0]), (3.0 - 5.0) / sd);
        assert_eq!(score(&[1.0, 1.0], &[1.0]), (6.0 - 5.0) / sd);
        assert_eq!(score(&[-1.0, 0.0], &[3.0]), (1.0 + 2.5 - 5.0) / sd);
    }

    #[test]
    fn means_are_over_all_cells() {
        let cells = CsrView::new(2, &[0, 1, 1], &[1], &[3.0]).unwrap();
        assert_eq!(gene_means(cells), [0.0, 1.5]);
        let nobody = CsrView::new(2, &[0], &[], &[]).unwrap();
        assert!(increased_genes(cells, nobody, 1).is_err());
    }
}
