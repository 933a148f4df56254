//! Dispersion against that of genes of similar mean: the flavors of Seurat (before v3) and Cell Ranger.

use super::super::moments::{Moments, entries};
use super::{Flavor, Keep, VariableGenes};
use crate::CsrView;

/// The verdict over one set of cells.
pub(super) fn within(x: CsrView<'_>, cells: &[usize], flavor: Flavor, keep: Keep) -> VariableGenes {
    let all: Vec<usize> = (0..x.n_genes()).collect();
    judge(&moments(x, cells, flavor), &all, flavor, keep)
}

/// Verdicts within each batch, genes that no cell of it expresses left out, combined by the number of batches that
/// choose a gene, then by its mean normalised dispersion.
pub(super) fn combined(x: CsrView<'_>, batches: &[Vec<usize>], flavor: Flavor, keep: Keep) -> VariableGenes {
    let n_genes = x.n_genes();
    let mut sums = nothing(n_genes);
    // A batch in which a value is undefined does not count in its mean over batches.
    let (mut n_spread, mut n_normalised) = (vec![0u32; n_genes], vec![0u32; n_genes]);
    for cells in batches {
        let verdict = within_expressed(x, cells, flavor, keep);
        for gene in 0..n_genes {
            sums.mean[gene] += verdict.mean[gene] / batches.len() as f64;
            sums.n_batches[gene] += u32::from(verdict.is_chosen[gene]);
            for (value, sum, n) in [
                (verdict.spread[gene], &mut sums.spread[gene], &mut n_spread[gene]),
                (verdict.normalised_spread[gene], &mut sums.normalised_spread[gene], &mut n_normalised[gene]),
            ] {
                if !value.is_nan() {
                    *sum += value;
                    *n += 1;
                }
            }
        }
    }
    for gene in 0..n_genes {
        sums.spread[gene] /= f64::from(n_spread[gene]);
        sums.normalised_spread[gene] /= f64::from(n_normalised[gene]);
    }
    match keep {
        Keep::Top(n_top) => {
            let mut order: Vec<usize> = (0..n_genes).collect();
            let spread = |gene: usize| match sums.normalised_spread[gene] {
                undefined if undefined.is_nan() => f64::NEG_INFINITY,
                value => value,
            };
            order.sort_by(|&a, &b| sums.n_batches[b].cmp(&sums.n_batches[a]).then(spread(b).total_cmp(&spread(a))));
            order.into_iter().take(n_top).for_each(|gene| sums.is_chosen[gene] = true);
        }
        Keep::Between { mean, dispersion } => {
            sums.normalised_spread.iter_mut().filter(|value| value.is_nan()).for_each(|value| *value = 0.0);
            sums.is_chosen = in_bounds(&sums.mean, &sums.normalised_spread, mean, dispersion);
        }
    }
    sums
}

fn within_expressed(x: CsrView<'_>, cells: &[usize], flavor: Flavor, keep: Keep) -> VariableGenes {
    let mut is_expressed = vec![false; x.n_genes()];
    entries(x, cells).filter(|&(_, value)| value > 0.0).for_each(|(gene, _)| is_expressed[gene] = true);
    let expressed: Vec<usize> = (0..x.n_genes()).filter(|&gene| is_expressed[gene]).collect();
    let judged = judge(&moments(x, cells, flavor), &expressed, flavor, keep);
    let mut all = nothing(x.n_genes());
    for (row, &gene) in expressed.iter().enumerate() {
        all.is_chosen[gene] = judged.is_chosen[row];
        all.mean[gene] = judged.mean[row];
        all.spread[gene] = judged.spread[row];
        all.normalised_spread[gene] = judged.normalised_spread[row];
    }
    all
}

fn moments(x: CsrView<'_>, cells: &[usize], flavor: Flavor) -> Moments {
    match flavor {
        Flavor::Seurat => Moments::of(x, cells, f32::exp_m1),
        _ => Moments::of(x, cells, |value| value),
    }
}

fn nothing(n_genes: usize) -> VariableGenes {
    VariableGenes {
        is_chosen: vec![false; n_genes],
        mean: vec![0.0; n_genes],
        spread: vec![0.0; n_genes],
        normalised_spread: vec![0.0; n_genes],
        n_batches: vec![0; n_genes],
        rank: Vec::new(),
        left_out: Vec::new(),
    }
}

/// Judges the given genes against each other; one row per given gene.
fn judge(moments: &Moments, genes: &[usize], flavor: Flavor, keep: Keep) -> VariableGenes {
    let mut mean = Vec::with_capacity(genes.len());
    let mut spread = Vec::with_capacity(genes.len());
    for &gene in genes {
        let gene_mean = if moments.mean[gene] == 0.0 { SMALLEST_MEAN } else { moments.mean[gene] };
        let dispersion = moments.variance[gene] / gene_mean;
        match flavor {
            Flavor::Seurat => {
                mean.push(gene_mean.ln_1p());
                spread.push(if dispersion == 0.0 { f64::NAN } else { dispersion.ln() });
            }
            _ => {
                mean.push(gene_mean);
                spread.push(dispersion);
            }
        }
    }
    let normalised_spread = normalised(&mean, &spread, flavor);
    let is_chosen = match keep {
        Keep::Top(n_top) => at_least_nth_highest(&normalised_spread, n_top),
        Keep::Between { mean: bounds, dispersion } => {
            let or_zero: Vec<f64> =
                normalised_spread.iter().map(|&value| if value.is_nan() { 0.0 } else { value }).collect();
            in_bounds(&mean, &or_zero, bounds, dispersion)
        }
    };
    let n_batches = is_chosen.iter().map(|&chosen| u32::from(chosen)).collect();
    VariableGenes { is_chosen, mean, spread, normalised_spread, n_batches, rank: Vec::new(), left_out: Vec::new() }
}

/// Dispersions relative to centre and scale of those in the same bin of the mean.
fn normalised(mean: &[f64], spread: &[f64], flavor: Flavor) -> Vec<f64> {
    let edges = match flavor {
        Flavor::Seurat => equal_width_edges(mean),
        _ => percentile_edges(mean),
    };
    // Bins are open below and closed above.
    let bin_of: Vec<usize> = mean.iter().map(|&value| edges.partition_point(|&edge| edge < value)).collect();
    let mut by_bin = vec![Vec::new(); edges.len() + 1];
    for (&bin, &value) in bin_of.iter().zip(spread) {
        if !value.is_nan() {
            by_bin[bin].push(value);
        }
    }
    let scales: Vec<(f64, f64)> = by_bin.iter().map(|values| centre_and_scale(values, flavor)).collect();
    bin_of.iter().zip(spread).map(|(&bin, value)| (value - scales[bin].0) / scales[bin].1).collect()
}

fn centre_and_scale(values: &[f64], flavor: Flavor) -> (f64, f64) {
    match (flavor, values) {
        // A gene alone in its bin gets the normalised dispersion 1.
        (Flavor::Seurat, [only]) => (0.0, *only),
        (Flavor::Seurat, _) => {
            let n = values.len() as f64;
            let mean = values.iter().sum::<f64>() / n;
            (mean, (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt())
        }
        _ => {
            let centre = median(values.to_vec());
            (centre, median(values.iter().map(|value| (value - centre).abs() / NORMAL_QUARTILE).collect()))
        }
    }
}

/// Ends of 20 bins of equal width, the first widened a little so that it holds the smallest value.
fn equal_width_edges(values: &[f64]) -> Vec<f64> {
    let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(low, high), &v| (low.min(v), high.max(v)));
    if low == high {
        let margin = if low == 0.0 { 0.001 } else { 0.001 * low.abs() };
        return (0..=N_BINS).map(|i| low - margin + 2.0 * margin * i as f64 / N_BINS as f64).collect();
    }
    let step = (high - low) / N_BINS as f64;
    let mut edges: Vec<f64> = (0..N_BINS).map(|i| low + i as f64 * step).collect();
    edges[0] -= (high - low) * 0.001;
    edges.push(high);
    edges
}

/// The 10th to the 100th percentile in steps of five; what lies outside has bins of its own.
fn percentile_edges(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return Vec::new() };
    let percentile = |percent: usize| {
        let at = percent as f64 / 100.0 * last as f64;
        let (below, share) = (at.floor() as usize, at.fract());
        let (low, high) = (sorted[below], sorted[(below + 1).min(last)]);
        if share < 0.5 { low + (high - low) * share } else { high - (high - low) * (1.0 - share) }
    };
    (10..=100).step_by(5).map(percentile).collect()
}

fn at_least_nth_highest(values: &[f64], n: usize) -> Vec<bool> {
    let mut defined: Vec<f64> = values.iter().copied().filter(|value| !value.is_nan()).collect();
    defined.sort_by(|a, b| b.total_cmp(a));
    match defined.get(n.min(defined.len()).wrapping_sub(1)) {
        Some(&lowest) => values.iter().map(|&value| value >= lowest).collect(),
        None => vec![false; values.len()],
    }
}

fn in_bounds(mean: &[f64], spread: &[f64], mean_bounds: (f64, f64), spread_bounds: (f64, f64)) -> Vec<bool> {
    let between = |value: f64, bounds: (f64, f64)| value > bounds.0 && value < bounds.1;
    mean.iter().zip(spread).map(|(&m, &s)| between(m, mean_bounds) && between(s, spread_bounds)).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    match n {
        0 => f64::NAN,
        _ if n % 2 == 1 => values[n / 2],
        _ => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

const N_BINS: usize = 20;
const SMALLEST_MEAN: f64 = 1e-12;
/// Upper quartile of the standard normal: a median absolute deviation over it estimates a standard deviation.
const NORMAL_QUARTILE: f64 = 0.674_489_750_196_081_7;
