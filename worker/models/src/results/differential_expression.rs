//! Differential expression decided from draws of normalised expression (Lopez et al. 2018; Boyeau et al. 2019).
//!
//! Two matrices of draws, paired row by row, go in; one row per gene comes out. Where the draws come from is the
//! model's business.

use ndarray::{ArrayView1, ArrayView2};

use crate::{
    distributions::gaussian_mixture,
    error::{Error, Result},
};

/// How a difference is decided.
#[derive(Clone, PartialEq, Debug)]
pub enum Decision {
    /// Which group expresses more.
    Vanilla,
    /// Whether the log fold change is large.
    Change(Change),
}

/// When a log fold change is large.
#[derive(Clone, PartialEq, Debug)]
pub struct Change {
    /// Smallest log2 fold change that counts; `None` fits one to the data.
    pub delta: Option<f64>,
    /// Added to expression before taking logarithms; `None` estimates one from genes that are hardly expressed.
    pub pseudocount: Option<f64>,
    /// What is tested.
    pub hypothesis: Hypothesis,
    /// Levels of credible intervals to report, in (0, 1).
    pub credible_levels: Vec<f64>,
}

impl Default for Change {
    fn default() -> Self {
        let hypothesis = Hypothesis::Direction;
        Self { delta: Some(DEFAULT_DELTA), pseudocount: None, hypothesis, credible_levels: Vec::new() }
    }
}

/// What is tested under [`Decision::Change`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hypothesis {
    /// Up against down against neither: the more probable direction counts. Upstream's `three`.
    Direction,
    /// Different against not: both directions count together. Upstream's `two`.
    Difference,
}

/// Draws of both groups, paired row by row.
#[derive(Clone, Copy, Debug)]
pub struct Draws<'a> {
    /// Expression of the first group, `[n_draws, n_genes]`.
    pub first: ArrayView2<'a, f64>,
    /// Expression of the second group, `[n_draws, n_genes]`.
    pub second: ArrayView2<'a, f64>,
}

/// One gene's result.
#[derive(Clone, PartialEq, Debug)]
pub struct GeneDifference {
    /// Mean expression drawn in the first group.
    pub scale_1: f64,
    /// Mean expression drawn in the second group.
    pub scale_2: f64,
    /// Vanilla: probability that the first group expresses more. Change: probability of a large difference.
    pub probability: f64,
    /// Log odds of that probability.
    pub bayes_factor: f64,
    /// Log fold changes, under [`Decision::Change`].
    pub fold_change: Option<FoldChange>,
}

/// Log2 fold changes of one gene over the draws.
#[derive(Clone, PartialEq, Debug)]
pub struct FoldChange {
    /// Mean.
    pub mean: f64,
    /// Median.
    pub median: f64,
    /// Standard deviation, population form.
    pub std: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
    /// Shortest interval for each level asked for.
    pub credible: Vec<(f64, f64)>,
}

/// Results of all genes, in panel order, and what was decided with.
#[derive(Clone, PartialEq, Debug)]
pub struct DifferentialExpression {
    /// One row per gene.
    pub genes: Vec<GeneDifference>,
    /// The smallest fold change that counted.
    pub delta: Option<f64>,
    /// The pseudocount that was used.
    pub pseudocount: Option<f64>,
}

/// Decides for every gene. `mean_counts` are the mean raw counts of each gene in both groups.
///
/// # Errors  [`Error::Shape`] if draws or means do not fit each other, [`Error::TooFewCells`] without a draw
pub fn decide(draws: Draws<'_>, mean_counts: (&[f64], &[f64]), decision: &Decision) -> Result<DifferentialExpression> {
    let (n_draws, n_genes) = draws.first.dim();
    let shape = |part: &str, axis, found, expected| Error::Shape { part: part.to_owned(), axis, found, expected };
    if n_draws == 0 {
        return Err(Error::TooFewCells { what: "a group".to_owned(), found: 0, expected: 1 });
    }
    if draws.second.dim() != (n_draws, n_genes) {
        return Err(shape("draws of the second group", "values", draws.second.len(), n_draws * n_genes));
    }
    for (part, means) in
        [("mean counts of the first group", mean_counts.0), ("mean counts of the second group", mean_counts.1)]
    {
        if means.len() != n_genes {
            return Err(shape(part, "genes", means.len(), n_genes));
        }
    }
    Ok(match decision {
        Decision::Vanilla => {
            let genes = columns(draws).map(|(first, second)| vanilla(first, second)).collect();
            DifferentialExpression { genes, delta: None, pseudocount: None }
        }
        Decision::Change(change) => decide_change(draws, mean_counts, change),
    })
}

/// Genes called different at a false discovery rate, given the probability of each.
pub fn called_at_fdr(probabilities: &[f64], rate: f64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
    let mut sum = 0.0;
    let running = order.iter().enumerate().map(|(i, &gene)| {
        sum += 1.0 - probabilities[gene];
        sum / (i + 1) as f64
    });
    let n_called = running.filter(|&expected| expected <= rate).count();
    let mut called = vec![false; probabilities.len()];
    for &gene in &order[..n_called] {
        called[gene] = true;
    }
    called
}

fn columns<'a>(draws: Draws<'a>) -> impl Iterator<Item = (ArrayView1<'a, f64>, ArrayView1<'a, f64>)> {
    let Draws { first, second } = draws;
    (0..first.ncols())
        .map(move |gene| (first.slice_move(ndarray::s![.., gene]), second.slice_move(ndarray::s![.., gene])))
}

fn vanilla(first: ArrayView1<'_, f64>, second: ArrayView1<'_, f64>) -> GeneDifference {
    let n_more = first.iter().zip(&second).filter(|(a, b)| a > b).count();
    let probability = n_more as f64 / first.len() as f64;
    gene(first, second, probability, None)
}

fn gene(
    first: ArrayView1<'_, f64>,
    second: ArrayView1<'_, f64>,
    probability: f64,
    fold_change: Option<FoldChange>,
) -> GeneDifference {
    let bayes_factor = (probability + EPS).ln() - (1.0 - probability + EPS).ln();
    GeneDifference { scale_1: mean(first), scale_2: mean(second), probability, bayes_factor, fold_change }
}

fn decide_change(draws: Draws<'_>, mean_counts: (&[f64], &[f64]), change: &Change) -> DifferentialExpression {
    let pseudocount = change.pseudocount.unwrap_or_else(|| estimate_pseudocount(draws, mean_counts));
    let delta = change.delta.unwrap_or_else(|| {
        let means = columns(draws).map(|(first, second)| {
            let changes = log_fold_changes(first, second, pseudocount);
            changes.iter().sum::<f64>() / changes.len() as f64
        });
        fit_delta(&means.collect::<Vec<_>>())
    });
    let decide_gene = |(first, second): (ArrayView1<'_, f64>, ArrayView1<'_, f64>)| {
        let changes = log_fold_changes(first, second, pseudocount);
        let share = |n: usize| n as f64 / changes.len() as f64;
        let up = share(changes.iter().filter(|&&change| change >= delta).count());
        let down = share(changes.iter().filter(|&&change| change < -delta).count());
        let probability = match change.hypothesis {
            Hypothesis::Direction => up.max(down),
            Hypothesis::Difference => up + down,
        };
        // Reported fold changes use a pseudocount that hardly shrinks them.
        let reported = log_fold_changes(first, second, pseudocount * REPORTED_SHARE);
        gene(first, second, probability, Some(FoldChange::of(reported, &change.credible_levels)))
    };
    let genes = columns(draws).map(decide_gene).collect();
    DifferentialExpression { genes, delta: Some(delta), pseudocount: Some(pseudocount) }
}

fn log_fold_changes(first: ArrayView1<'_, f64>, second: ArrayView1<'_, f64>, pseudocount: f64) -> Vec<f64> {
    first.iter().zip(&second).map(|(a, b)| (a + pseudocount).log2() - (b + pseudocount).log2()).collect()
}

/// From genes that a group hardly expresses: what the model draws for them is noise.
fn estimate_pseudocount(draws: Draws<'_>, mean_counts: (&[f64], &[f64])) -> f64 {
    let of_group = |draws: ArrayView2<'_, f64>, means: &[f64]| {
        let quiet = draws.columns().into_iter().zip(means).filter(|(_, mean)| **mean < QUIET_GENE);
        let mut maxima: Vec<f64> =
            quiet.map(|(column, _)| column.iter().copied().fold(f64::NEG_INFINITY, f64::max)).collect();
        maxima.sort_by(f64::total_cmp);
        if maxima.is_empty() { SMALLEST_PSEUDOCOUNT } else { quantile(&maxima, 0.9) }
    };
    let larger = of_group(draws.first, mean_counts.0).max(of_group(draws.second, mean_counts.1));
    (larger / draws.first.ncols() as f64).max(SMALLEST_PSEUDOCOUNT)
}

/// From the outer components of a mixture fitted to the genes' mean fold changes.
fn fit_delta(means: &[f64]) -> f64 {
    let components = gaussian_mixture::means(means, 3);
    let outer = |component: Option<&f64>| component.map_or(0.0, |mean| mean.abs());
    (0.6 * (outer(components.first()) + outer(components.last())) / 2.0).max(SMALLEST_DELTA)
}

impl FoldChange {
    fn of(mut changes: Vec<f64>, levels: &[f64]) -> Self {
        let n = changes.len() as f64;
        let mean = changes.iter().sum::<f64>() / n;
        let std = (changes.iter().map(|change| (change - mean).powi(2)).sum::<f64>() / n).sqrt();
        changes.sort_by(f64::total_cmp);
        let credible = levels.iter().map(|&level| shortest_interval(&changes, level)).collect();
        let (min, max) = (changes[0], changes[changes.len() - 1]);
        Self { mean, median: quantile(&changes, 0.5), std, min, max, credible }
    }
}

/// The shortest interval between two sorted draws that are `floor(level * n)` apart.
fn shortest_interval(sorted: &[f64], level: f64) -> (f64, f64) {
    let apart = ((level * sorted.len() as f64).floor() as usize).min(sorted.len() - 1);
    let width = |i: &usize| sorted[i + apart] - sorted[*i];
    let start = (0..sorted.len() - apart).min_by(|a, b| width(a).total_cmp(&width(b))).unwrap_or(0);
    (sorted[start], sorted[start + apart])
}

/// Quantile with linear interpolation.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let position = share * (sorted.len() - 1) as f64;
    let (below, rest) = (position.floor() as usize, position.fract());
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (sorted[above] - sorted[below]) * rest
}

fn mean(values: ArrayView1<'_, f64>) -> f64 {
    values.sum() / values.len() as f64
}

/// Smallest log2 fold change that counts, unless said otherwise.
const DEFAULT_DELTA: f64 = 0.25;
/// A fitted delta is never below this.
const SMALLEST_DELTA: f64 = 0.1;
/// Keeps log odds finite.
const EPS: f64 = 1e-8;
/// Share of the pseudocount in reported fold changes.
const REPORTED_SHARE: f64 = 1e-3;
/// Mean count below which a gene counts as hardly expressed.
const QUIET_GENE: f64 = 0.01;
/// Floor of an estimated pseudocount.
const SMALLEST_PSEUDOCOUNT: f64 = 1e-10;
