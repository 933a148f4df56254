//! Numbers drawn from a trained count model, and what is decided from them.
//!
//! Start at [`CountResults`]: a reference, cells and a seed. The same seed gives the same numbers.

mod correlation;
pub mod differential_expression;
mod expression;
mod groups;
mod joint;
mod likelihood;
mod predictive;
mod proteins;

use archipelago_common::ConditionKey;
use tch::Tensor;

pub use correlation::Correlation;
pub use expression::{ExpressionAsk, LibraryAsk, expression_of};
pub use groups::{GroupAsk, RawStatistics};
pub use joint::{CorrelationAsk, JointSample};
pub use predictive::CountSamples;
pub use proteins::{JointExpression, ProteinAsk, foreground_probability_of, protein_expression_of};

use crate::{
    data::{CellConditions, Cells, Dataset, Minibatch},
    device::Device,
    error::{Error, Result},
    model::{CountModel, Module},
    nn::{Mode, Pass, SeededNoise},
    reference::Reference,
    train::{EVALUATION_MINIBATCH, Seeds},
};

/// Asks a trained count model about cells.
pub struct CountResults<'a> {
    module: Box<dyn Module>,
    dataset: Dataset<'a>,
    keys: Vec<ConditionKey>,
    seeds: Seeds,
    /// Name of the model in the zoo.
    name: String,
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
        let dataset = reference.encode(cells, conditions)?;
        let mut keys = conditions.keys().to_vec();
        keys.extend(reference.columns.keys().filter(|key| !conditions.keys().contains(key)).cloned());
        let module = reference.module(&keys, device)?;
        if module.as_count_model().is_none() {
            return Err(Error::NotCountModel { model: reference.base.card.model.clone() });
        }
        let name = reference.base.card.model.clone();
        Ok(Self { module, dataset, keys, seeds: Seeds::new(seed, "results"), name })
    }

    /// The code of a condition.
    ///
    /// # Errors  [`Error::UnknownCondition`]
    pub fn code(&self, key: &ConditionKey) -> Result<i64> {
        let position = self.keys.iter().position(|known| known == key);
        position.map(|code| code as i64).ok_or_else(|| Error::UnknownCondition { key: key.clone() })
    }

    fn model(&self) -> &dyn CountModel {
        self.module.as_count_model().expect("the constructor checked it")
    }

    /// Cells in order, a few hundred at a time.
    fn chunks(&self) -> Vec<Vec<usize>> {
        let cells: Vec<usize> = (0..self.dataset.n_cells()).collect();
        cells.chunks(EVALUATION_MINIBATCH).map(<[usize]>::to_vec).collect()
    }

    fn minibatch(&self, cells: &[usize]) -> Minibatch {
        self.dataset.minibatch(cells, self.module.weights().device())
    }

    fn noise(&self, purpose: &str) -> SeededNoise {
        SeededNoise::new(self.seeds.of(purpose, 0))
    }

    /// Mean of the library size of each cell: the total count, or the mean of the log-normal posterior.
    pub fn library_size(&self) -> Vec<f32> {
        let _guard = tch::no_grad_guard();
        let mut noise = self.noise("library");
        let mut sizes = Vec::with_capacity(self.dataset.n_cells());
        for cells in self.chunks() {
            let minibatch = self.minibatch(&cells);
            let mut pass = Pass { mode: Mode::Evaluation, noise: &mut noise };
            let size = match (self.model().library(&minibatch, &mut pass), &minibatch.minified) {
                (Some(posterior), _) => (posterior.mean + posterior.var / 2.0).exp(),
                (None, Some(kept)) => kept.library.shallow_clone(),
                (None, None) => minibatch.x.sum_dim_intlist([1_i64].as_slice(), true, tch::Kind::Float),
            };
            sizes.extend(to_vec(&size));
        }
        sizes
    }
}

/// Values of a tensor of 32-bit floats, row by row.
fn to_vec(tensor: &Tensor) -> Vec<f32> {
    crate::nn::from_tch(tensor).to_f32("results").expect("models compute in 32-bit floats")
}
