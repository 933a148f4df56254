//! Normalised expression: what the model expects of a cell, free of noise and, where asked for, of its batch.

use ndarray::{Array2, Axis, concatenate};
use tch::Tensor;

use super::{CountResults, asked::stacked};
use crate::{
    data::{Covariates, Minibatch},
    model::{CountModel, LatentDraw},
    nn::{Mode, Pass},
    reference::to_array,
    train::EVALUATION_MINIBATCH,
};

/// Which expression is asked for.
#[derive(Clone, PartialEq, Debug)]
pub struct ExpressionAsk {
    /// Condition codes that cells are decoded as, averaged over; empty decodes every cell as its own.
    pub transform: Vec<i64>,
    /// What a cell's expression of genes adds up to.
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
    fn codes(&self) -> impl Iterator<Item = Option<i64>> {
        let codes: Vec<Option<i64>> =
            if self.transform.is_empty() { vec![None] } else { self.transform.iter().copied().map(Some).collect() };
        let n_draws = codes.len() * self.n_samples.max(1);
        codes.into_iter().cycle().take(n_draws)
    }
}

/// What a cell's expression of genes adds up to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum LibraryAsk {
    /// This number; 1 gives shares.
    Scaled(f64),
    /// The cell's own library size: expected counts.
    Latent,
}

/// Takes draw after draw, with the covariates that it is to be decoded under: a fresh one for every condition and sample.
pub fn each_draw(
    model: &dyn CountModel,
    minibatch: &Minibatch,
    ask: &ExpressionAsk,
    pass: &mut Pass<'_>,
    mut take: impl FnMut(&LatentDraw, &Covariates, &mut Pass<'_>),
) {
    for code in ask.codes() {
        let draw = model.draw(minibatch, pass);
        let transformed = code.map(|code| minibatch.covariates.with_condition(code));
        take(&draw, transformed.as_ref().unwrap_or(&minibatch.covariates), pass);
    }
}

/// Expression of some cells, `[n, n_features]` for each block, in order; a fresh draw for every condition and sample.
pub fn expression_of_blocks(
    model: &dyn CountModel,
    minibatch: &Minibatch,
    ask: &ExpressionAsk,
    pass: &mut Pass<'_>,
) -> Vec<Tensor> {
    let mut means: Vec<Mean> = model.blocks().iter().map(|_| Mean::default()).collect();
    each_draw(model, minibatch, ask, pass, |draw, covariates, pass| {
        let blocks = model.decode(draw, minibatch, covariates, pass);
        means.iter_mut().zip(blocks).for_each(|(mean, block)| mean.add(block.expression(ask.library)));
    });
    means.into_iter().map(Mean::value).collect()
}

/// Expression of the genes of some cells, `[n, n_genes]`.
pub fn expression_of(
    model: &dyn CountModel,
    minibatch: &Minibatch,
    ask: &ExpressionAsk,
    pass: &mut Pass<'_>,
) -> Tensor {
    expression_of_blocks(model, minibatch, ask, pass).swap_remove(0)
}

impl CountResults<'_> {
    /// Normalised expression of the genes of every cell, `[n_cells, n_genes]`.
    pub fn expression(&self, ask: &ExpressionAsk) -> Array2<f32> {
        self.asked.by_chunk("expression", |minibatch, pass| expression_of(self.model(), minibatch, ask, pass))
    }

    /// Normalised expression of some cells, a cell as often as it is named: the features of all blocks beside each other.
    pub(super) fn expression_of_cells(&self, cells: &[usize], ask: &ExpressionAsk, purpose: &str) -> Array2<f32> {
        let _guard = tch::no_grad_guard();
        let mut noise = self.asked.noise(purpose);
        let chunk = |cells: &[usize]| {
            let mut pass = Pass { mode: Mode::Evaluation, noise: &mut noise };
            let blocks = expression_of_blocks(self.model(), &self.asked.minibatch(cells), ask, &mut pass);
            let blocks: Vec<Array2<f32>> = blocks.iter().map(to_array).collect();
            let views: Vec<_> = blocks.iter().map(|block| block.view()).collect();
            concatenate(Axis(1), &views).expect("all blocks have a row per cell")
        };
        stacked(&cells.chunks(EVALUATION_MINIBATCH).map(chunk).collect::<Vec<_>>())
    }
}

/// A mean that grows.
#[derive(Default)]
pub struct Mean {
    sum: Option<Tensor>,
    n: f64,
}

impl Mean {
    /// Adds a value.
    pub fn add(&mut self, value: Tensor) {
        self.sum = Some(match self.sum.take() {
            Some(sum) => sum + value,
            None => value,
        });
        self.n += 1.0;
    }

    /// The mean. Panics without a value.
    pub fn value(self) -> Tensor {
        self.sum.expect("there is at least one draw") / self.n
    }
}
