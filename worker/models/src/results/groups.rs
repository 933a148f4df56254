//! Differential expression between two groups of cells: draws from the model, then the decision.

use std::collections::BTreeMap;

use ndarray::Array2;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{
    CountResults, ExpressionAsk,
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

/// Draws expression of cells, a row for each time one is named; the text is what the draw is for.
pub(super) type Expression<'a> = dyn Fn(&[usize], &ExpressionAsk, &str) -> Array2<f32> + 'a;

/// Raw statistics of one gene in one group.
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
    /// Compares two groups of cells gene by gene.
    ///
    /// # Errors  [`Error::TooFewCells`] for an empty group, [`Error::Shape`] for a cell that is not there
    pub fn differential_expression(&self, ask: &GroupAsk) -> Result<DifferentialExpression> {
        self.check_groups(ask)?;
        let expression =
            |cells: &[usize], ask: &ExpressionAsk, purpose: &str| self.expression_of_cells(cells, ask, purpose);
        let first = self.draws(&ask.first, ask, "first group", &expression);
        let second = self.draws(&ask.second, ask, "second group", &expression);
        let means = |cells: &[usize]| -> Vec<f64> { self.raw_statistics(cells).iter().map(|gene| gene.mean).collect() };
        let draws = Draws { first: first.view(), second: second.view() };
        decide(draws, (&means(&ask.first), &means(&ask.second)), &ask.decision)
    }

    pub(super) fn check_groups(&self, ask: &GroupAsk) -> Result<()> {
        for (what, cells) in [("the first group", &ask.first), ("the second group", &ask.second)] {
            if cells.is_empty() {
                return Err(Error::TooFewCells { what: what.to_owned(), found: 0, expected: 1 });
            }
            if let Some(&cell) = cells.iter().find(|&&cell| cell >= self.dataset.n_cells()) {
                let (found, expected) = (cell + 1, self.dataset.n_cells());
                return Err(Error::Shape { part: what.to_owned(), axis: "cells", found, expected });
            }
        }
        Ok(())
    }

    /// Draws of expression from cells taken at random, condition by condition where cells are transformed, so that rows of both
    /// groups are paired within one condition.
    pub(super) fn draws(
        &self,
        cells: &[usize],
        ask: &GroupAsk,
        purpose: &str,
        expression: &Expression<'_>,
    ) -> Array2<f64> {
        let mut rng = ChaCha8Rng::from_seed(self.seeds.of(purpose, 0));
        let mut taken = |n: usize| -> Vec<usize> { (0..n).map(|_| cells[rng.random_range(0..cells.len())]).collect() };
        if ask.transform.is_empty() {
            let own = ExpressionAsk::default();
            return expression(&taken(ask.n_draws.max(1)), &own, purpose).mapv(f64::from);
        }
        let per_condition = (ask.n_draws / ask.transform.len()).max(2);
        let mut parts = Vec::new();
        for &code in &ask.transform {
            let one = ExpressionAsk { transform: vec![code], ..ExpressionAsk::default() };
            let purpose = format!("{purpose}, condition {code}");
            parts.push(expression(&taken(per_condition), &one, &purpose).mapv(f64::from));
        }
        let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
        ndarray::concatenate(ndarray::Axis(0), &views).expect("all parts have a column per gene")
    }

    /// Raw statistics of every gene over some cells.
    pub fn raw_statistics(&self, cells: &[usize]) -> Vec<RawStatistics> {
        let counts = self.dataset.counts;
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
}

/// Counts that cells are scaled to.
const NORMALISED_TOTAL: f64 = 10_000.0;
