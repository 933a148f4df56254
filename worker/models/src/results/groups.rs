//! Differential expression between two groups of cells: draws from the model, then the decision.

use std::collections::BTreeMap;

use archipelago_anndata::Csr;
use ndarray::{Array2, Axis, concatenate, s};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{
    CountResults, ExpressionAsk, NamedBlock,
    differential_expression::{Decision, DifferentialExpression, Draws, decide},
};
use crate::error::{Error, Result};

/// Two groups of cells and how they are compared.
#[derive(Clone, PartialEq, Debug)]
pub struct GroupAsk {
    /// Cells of the first group.
    pub first: Vec<usize>,
    /// Cells of the second group.
    pub second: Vec<usize>,
    /// Condition codes that cells of both groups are decoded as; empty decodes every cell as its own.
    pub transform: Vec<i64>,
    /// Draws per group; upstream takes 5,000.
    pub n_draws: usize,
    /// How a difference is decided.
    pub decision: Decision,
}

/// Raw statistics of one feature in one group.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RawStatistics {
    /// Mean count.
    pub mean: f64,
    /// Share of cells with a count.
    pub non_zero: f64,
    /// Mean after scaling each cell to 10,000 counts.
    pub normalised_mean: f64,
}

impl CountResults<'_> {
    /// Compares two groups of cells feature by feature, block after block.
    ///
    /// # Errors  [`Error::TooFewCells`] for an empty group, [`Error::Shape`] for a cell that is not there
    pub fn differential_expression(&self, ask: &GroupAsk) -> Result<DifferentialExpression> {
        self.check_groups(ask)?;
        if matches!(&ask.decision, Decision::Change(change) if change.pseudocount.is_none()) {
            self.only_of_counts("raw counts to fit a pseudocount to; name one with `--pseudocount`")?;
        }
        let first = self.draws(&ask.first, ask, "first group");
        let second = self.draws(&ask.second, ask, "second group");
        let means = |cells: &[usize]| -> Vec<f64> { self.raw_statistics(cells).iter().map(|raw| raw.mean).collect() };
        let draws = Draws { first: first.view(), second: second.view() };
        decide(draws, (&means(&ask.first), &means(&ask.second)), &ask.decision)
    }

    fn check_groups(&self, ask: &GroupAsk) -> Result<()> {
        for (what, cells) in [("the first group", &ask.first), ("the second group", &ask.second)] {
            if cells.is_empty() {
                return Err(Error::TooFewCells { what: what.to_owned(), found: 0, expected: 1 });
            }
            if let Some(&cell) = cells.iter().find(|&&cell| cell >= self.asked.dataset().n_cells()) {
                let (found, expected) = (cell + 1, self.asked.dataset().n_cells());
                return Err(Error::Shape { part: what.to_owned(), axis: "cells", found, expected });
            }
        }
        Ok(())
    }

    /// Draws of expression from cells taken at random, condition by condition where cells are transformed, so that rows of both
    /// groups are paired within one condition.
    fn draws(&self, cells: &[usize], ask: &GroupAsk, purpose: &str) -> Array2<f64> {
        let mut rng = ChaCha8Rng::from_seed(self.asked.seeds().of(purpose, 0));
        let mut taken = |n: usize| -> Vec<usize> { (0..n).map(|_| cells[rng.random_range(0..cells.len())]).collect() };
        if ask.transform.is_empty() {
            return self.compared(&taken(ask.n_draws.max(1)), &ExpressionAsk::default(), purpose);
        }
        let per_condition = (ask.n_draws / ask.transform.len()).max(2);
        let mut parts = Vec::new();
        for &code in &ask.transform {
            let one = ExpressionAsk { transform: vec![code], ..ExpressionAsk::default() };
            parts.push(self.compared(&taken(per_condition), &one, &format!("{purpose}, condition {code}")));
        }
        let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
        concatenate(Axis(0), &views).expect("all parts have a column per feature")
    }

    /// Expression as it is compared: with what each block adds to its own.
    fn compared(&self, cells: &[usize], ask: &ExpressionAsk, purpose: &str) -> Array2<f64> {
        let mut expression = self.expression_of_cells(cells, ask, purpose);
        let mut start = 0;
        for NamedBlock { card, names } in &self.blocks {
            let end = start + names.len();
            expression.slice_mut(s![.., start..end]).mapv_inplace(|value| value + card.prior_expression);
            start = end;
        }
        expression.mapv(f64::from)
    }

    /// Raw statistics of every feature over some cells, block after block. Only genes have a normalised mean; that of others is
    /// not a number.
    pub fn raw_statistics(&self, cells: &[usize]) -> Vec<RawStatistics> {
        let dataset = self.asked.dataset();
        let of_block = |block: &NamedBlock| match block.card.slot {
            None => statistics(dataset.counts, cells),
            Some(slot) => {
                let without_library = |raw| RawStatistics { normalised_mean: f64::NAN, ..raw };
                statistics(dataset.matrix(slot), cells).into_iter().map(without_library).collect()
            }
        };
        self.blocks.iter().flat_map(of_block).collect()
    }
}

/// Statistics of every column over some rows.
fn statistics(counts: &Csr, cells: &[usize]) -> Vec<RawStatistics> {
    let mut sums: BTreeMap<u32, (f64, f64, f64)> = BTreeMap::new();
    for &cell in cells {
        let (genes, values) = counts.row(cell);
        let total: f64 = values.iter().map(|&v| f64::from(v)).sum();
        for (&gene, &value) in genes.iter().zip(values).filter(|(_, v)| **v > 0.0) {
            let sum = sums.entry(gene).or_default();
            sum.0 += f64::from(value);
            sum.1 += 1.0;
            sum.2 += f64::from(value) / total * NORMALISED_TOTAL;
        }
    }
    let n = cells.len().max(1) as f64;
    let statistics = |gene: u32| {
        let (mean, non_zero, normalised) = sums.get(&gene).copied().unwrap_or_default();
        RawStatistics { mean: mean / n, non_zero: non_zero / n, normalised_mean: normalised / n }
    };
    (0..counts.n_cols() as u32).map(statistics).collect()
}

/// Counts that cells are scaled to.
const NORMALISED_TOTAL: f64 = 10_000.0;
