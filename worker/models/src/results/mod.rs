//! What is asked of a trained model, and numbers drawn from it.
//!
//! Start at [`CountResults`]: a reference, cells and a seed. The same seed gives the same numbers. What only one model can be
//! asked is a [`QuestionCard`] in its folder.

mod asked;
mod block;
mod correlation;
pub mod differential_expression;
mod expression;
mod groups;
mod likelihood;
mod predictive;
mod question;

use tch::Tensor;

pub use asked::Asked;
pub use block::{Block, BlockCard, CountBlock, ValueBlock, gamma, poisson};
pub use correlation::{Correlation, CorrelationAsk};
pub use expression::{ExpressionAsk, LibraryAsk, Mean, each_draw, expression_of, expression_of_blocks};
pub use groups::{GroupAsk, RawStatistics};
pub use predictive::Sample;
pub use question::{Answer, Argument, ArgumentKind, Column, Frame, Given, QuestionCard, Value};

use crate::{
    data::{CellConditions, Cells, Values, slot::Matrix},
    device::Device,
    error::{Error, Result},
    model::CountModel,
    reference::Reference,
};

/// Asks a trained model that decodes its latent states about cells.
pub struct CountResults<'a> {
    asked: Asked<'a>,
    blocks: Vec<NamedBlock>,
}

/// The features of a block.
#[derive(Clone, PartialEq, Debug)]
pub struct NamedBlock {
    /// The block.
    pub card: BlockCard,
    /// Names of its features.
    pub names: Vec<String>,
}

impl<'a> CountResults<'a> {
    /// Results for these cells. Conditions of the reference that no cell has can be decoded as, too.
    ///
    /// # Errors  conditions or data that the reference does not know, [`Error::NotCountModel`]
    pub fn new(
        reference: &Reference,
        cells: &Cells<'a>,
        conditions: &CellConditions,
        seed: u64,
        device: Device,
    ) -> Result<Self> {
        Self::of(Asked::new(reference, cells, conditions, seed, device)?)
    }

    /// Results of a module and cells that are ready to be asked.
    ///
    /// # Errors  [`Error::NotCountModel`]
    pub fn of(asked: Asked<'a>) -> Result<Self> {
        let model = asked.module().as_count_model();
        let cards = model.ok_or_else(|| Error::NotCountModel { model: asked.model().to_owned() })?.blocks();
        let registry = &asked.blueprint().registry;
        let named = |card: BlockCard| {
            let panel = card.slot.and_then(|_| registry.remembered::<Matrix>(card.field));
            let names = panel.map_or(asked.genes(), |panel| &panel.names).to_vec();
            NamedBlock { card, names }
        };
        let blocks = cards.into_iter().map(named).collect();
        Ok(Self { asked, blocks })
    }

    /// What is asked.
    pub fn asked(&self) -> &Asked<'a> {
        &self.asked
    }

    /// The blocks that the model decodes, in order; the first is gene expression.
    pub fn blocks(&self) -> &[NamedBlock] {
        &self.blocks
    }

    /// Names of the features of all blocks, in order. Those of further blocks end in what they are, such as `CD3_protein`.
    pub fn feature_names(&self) -> Vec<String> {
        let of_block = |(at, NamedBlock { card, names }): (usize, &NamedBlock)| {
            let name = |name: &String| if at == 0 { name.clone() } else { format!("{name}_{}", card.feature) };
            names.iter().map(name).collect::<Vec<_>>()
        };
        self.blocks.iter().enumerate().flat_map(of_block).collect()
    }

    /// Number of features of all blocks.
    pub fn n_features(&self) -> usize {
        self.blocks.iter().map(|block| block.names.len()).sum()
    }

    /// The pseudocount that upstream compares groups of cells with, where it does not fit one.
    pub fn usual_pseudocount(&self) -> Option<f64> {
        self.blocks.iter().find_map(|block| block.card.pseudocount)
    }

    /// Refuses what only counts have.
    ///
    /// # Errors  [`Error::NotOfValues`]
    fn only_of_counts(&self, what: &'static str) -> Result<()> {
        match self.blocks.iter().find(|block| block.card.values != Values::Counts) {
            None => Ok(()),
            Some(_) => Err(Error::NotOfValues { model: self.asked.model().to_owned(), what }),
        }
    }

    /// Mean of the library size of each cell: the total count, or the mean of the log-normal posterior.
    ///
    /// # Errors  [`Error::NotOfValues`]
    pub fn library_size(&self) -> Result<Vec<f32>> {
        self.only_of_counts("library sizes")?;
        Ok(self.asked.number_by_chunk("library", |minibatch, pass| {
            match (self.model().library(minibatch, pass), &minibatch.minified) {
                (Some(posterior), _) => (posterior.mean + posterior.var / 2.0).exp(),
                (None, Some(kept)) => kept.library.shallow_clone(),
                (None, None) => minibatch.x.sum_dim_intlist([1_i64].as_slice(), true, tch::Kind::Float),
            }
        }))
    }

    fn model(&self) -> &dyn CountModel {
        self.asked.module().as_count_model().expect("the constructor checked it")
    }
}

/// Values of a tensor of 32-bit floats, row by row.
pub fn to_vec(tensor: &Tensor) -> Vec<f32> {
    crate::nn::from_tch(tensor).to_f32("results").expect("models compute in 32-bit floats")
}
