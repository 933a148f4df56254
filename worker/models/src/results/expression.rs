//! Normalised expression: what the model expects a cell to express, free of noise and, where asked for, of its batch.

use ndarray::{Array2, Axis, concatenate};
use tch::Tensor;

use super::CountResults;
use crate::{
    data::Minibatch,
    model::CountModel,
    nn::{Mode, Pass},
    reference::to_array,
};

/// Which expression is asked for.
#[derive(Clone, PartialEq, Debug)]
pub struct ExpressionAsk {
    /// Condition codes that cells are decoded as, averaged over; empty decodes every cell as its own.
    pub transform: Vec<i64>,
    /// What a cell's expression adds up to.
    pub library: LibraryAsk,
    /// Draws per cell that are averaged, at least 1.
    pub n_samples: usize,
}

impl Default for ExpressionAsk {
    fn default() -> Self {
        Self { transform: Vec::new(), library: LibraryAsk::Scaled(1.0), n_samples: 1 }
    }
}

impl ExpressionAsk {
    /// The condition of each draw, or none for the cells' own.
    pub(super) fn codes(&self) -> impl Iterator<Item = Option<i64>> {
        let codes: Vec<Option<i64>> =
            if self.transform.is_empty() { vec![None] } else { self.transform.iter().copied().map(Some).collect() };
        let n_draws = codes.len() * self.n_samples.max(1);
        codes.into_iter().cycle().take(n_draws)
    }
}

/// What a cell's expression adds up to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum LibraryAsk {
    /// This number; 1 gives shares.
    Scaled(f64),
    /// The cell's own library size: expected counts.
    Latent,
}

/// Expression of some cells, `[n, n_genes]`; a fresh draw for every condition and sample.
pub fn expression_of(
    model: &dyn CountModel,
    minibatch: &Minibatch,
    ask: &ExpressionAsk,
    pass: &mut Pass<'_>,
) -> Tensor {
    let n_draws = ask.codes().count();
    let mut sum: Option<Tensor> = None;
    for code in ask.codes() {
        let draw = model.draw(minibatch, pass);
        let transformed = code.map(|code| minibatch.covariates.with_condition(code));
        let decoded = model.decode(&draw, minibatch, transformed.as_ref().unwrap_or(&minibatch.covariates), pass);
        let expression = match ask.library {
            LibraryAsk::Scaled(size) => decoded.scale * size,
            LibraryAsk::Latent => decoded.counts.rate,
        };
        sum = Some(match sum {
            Some(sum) => sum + expression,
            None => expression,
        });
    }
    sum.expect("there is at least one draw") / n_draws as f64
}

impl CountResults<'_> {
    /// Normalised expression of every cell, `[n_cells, n_genes]`.
    pub fn expression(&self, ask: &ExpressionAsk) -> Array2<f32> {
        let cells: Vec<usize> = (0..self.dataset.n_cells()).collect();
        self.expression_of_cells(&cells, ask, "expression")
    }

    /// Normalised expression of some cells, a cell as often as it is named.
    pub(super) fn expression_of_cells(&self, cells: &[usize], ask: &ExpressionAsk, purpose: &str) -> Array2<f32> {
        let _guard = tch::no_grad_guard();
        let mut noise = self.noise(purpose);
        let chunk = |cells: &[usize]| {
            let mut pass = Pass { mode: Mode::Evaluation, noise: &mut noise };
            to_array(&expression_of(self.model(), &self.minibatch(cells), ask, &mut pass))
        };
        let chunks: Vec<Array2<f32>> = cells.chunks(super::EVALUATION_MINIBATCH).map(chunk).collect();
        let views: Vec<_> = chunks.iter().map(|part| part.view()).collect();
        concatenate(Axis(0), &views).expect("all chunks have a column per gene")
    }
}
