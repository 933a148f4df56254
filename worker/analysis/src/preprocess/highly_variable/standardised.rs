//! Variance of counts after standardising by a trend over the mean: the flavor of Seurat v3.

use super::super::loess::loess;
use super::super::moments::{Moments, entries};
use super::VariableGenes;
use crate::{CsrView, Result};

/// Judges all genes in every batch; a batch in which no trend can be fitted is left out, as long as there is another.
///
/// Ranks genes by standardised variance within each batch and chooses by the median rank over the batches in which a gene
/// is among the `n_top`, then by the number of these. Equal variances rank in the order of the genes; scanpy leaves their
/// order to an unstable sort.
pub(super) fn choose(x: CsrView<'_>, batches: &[(&str, Vec<usize>)], n_top: usize) -> Result<VariableGenes> {
    let n_genes = x.n_genes();
    let all_cells: Vec<usize> = (0..x.n_cells()).collect();
    let overall = Moments::of(x, &all_cells, |count| count);
    let mut variance = vec![0.0; n_genes];
    let mut top_ranks = vec![Vec::new(); n_genes];
    let (mut judged, mut left_out, mut failure) = (Vec::new(), Vec::new(), None);
    for (name, cells) in batches {
        match standardised_variance(x, cells) {
            Ok(of_batch) => judged.push(of_batch),
            Err(error) => {
                left_out.push((*name).to_owned());
                failure = Some(error);
            }
        }
    }
    if let (true, Some(error)) = (judged.is_empty(), failure) {
        return Err(error);
    }
    for of_batch in &judged {
        variance.iter_mut().zip(of_batch).for_each(|(sum, value)| *sum += value / judged.len() as f64);
        let mut order: Vec<usize> = (0..n_genes).collect();
        order.sort_by(|&a, &b| of_batch[b].total_cmp(&of_batch[a]));
        order.iter().take(n_top).enumerate().for_each(|(rank, &gene)| top_ranks[gene].push(rank as f64));
    }
    let n_batches: Vec<u32> = top_ranks.iter().map(|ranks| ranks.len() as u32).collect();
    let rank: Vec<f64> = top_ranks.into_iter().map(median_rank).collect();
    let mut order: Vec<usize> = (0..n_genes).collect();
    let or_last = |gene: usize| if rank[gene].is_nan() { f64::INFINITY } else { rank[gene] };
    order.sort_by(|&a, &b| or_last(a).total_cmp(&or_last(b)).then(n_batches[b].cmp(&n_batches[a])));
    let mut is_chosen = vec![false; n_genes];
    order.into_iter().take(n_top).for_each(|gene| is_chosen[gene] = true);
    Ok(VariableGenes {
        is_chosen,
        mean: overall.mean,
        spread: overall.variance,
        normalised_spread: variance,
        n_batches,
        rank,
        left_out,
    })
}

/// Variance of each gene's counts, centred, divided by the deviation expected at its mean and clipped at the root of the
/// number of cells.
fn standardised_variance(x: CsrView<'_>, cells: &[usize]) -> Result<Vec<f64>> {
    let moments = Moments::of(x, cells, |count| count);
    let varying: Vec<usize> = (0..x.n_genes()).filter(|&gene| moments.variance[gene] > 0.0).collect();
    let log10 = |values: &[f64]| varying.iter().map(|&gene| values[gene].log10()).collect::<Vec<_>>();
    let trend = loess(&log10(&moments.mean), &log10(&moments.variance), SPAN)?;
    let mut deviation = vec![1.0; x.n_genes()];
    for (&gene, log_variance) in varying.iter().zip(trend) {
        deviation[gene] = 10f64.powf(log_variance).sqrt();
    }
    let n_cells = moments.n_cells as f64;
    let clip = |gene: usize| deviation[gene] * n_cells.sqrt() + moments.mean[gene];
    let mut sum = vec![0.0; x.n_genes()];
    let mut sum_of_squares = vec![0.0; x.n_genes()];
    for (gene, value) in entries(x, cells) {
        let clipped = f64::from(value).min(clip(gene));
        sum[gene] += clipped;
        sum_of_squares[gene] += clipped * clipped;
    }
    let genes = (0..x.n_genes()).map(|gene| {
        let mean = moments.mean[gene];
        let around_mean = n_cells * mean * mean + sum_of_squares[gene] - 2.0 * sum[gene] * mean;
        around_mean / ((n_cells - 1.0) * deviation[gene] * deviation[gene])
    });
    Ok(genes.collect())
}

fn median_rank(mut ranks: Vec<f64>) -> f64 {
    ranks.sort_by(f64::total_cmp);
    match ranks.len() {
        0 => f64::NAN,
        n => (ranks[(n - 1) / 2] + ranks[n / 2]) / 2.0,
    }
}

/// Share of the genes in each local fit of the trend.
const SPAN: f64 = 0.3;
