//! A module and cells, ready to be asked.

use std::collections::BTreeMap;

use archipelago_anndata::Csr;
use archipelago_common::{ConditionKey, Name, Section, pool::Pool};
use ndarray::{Array2, Axis, concatenate};
use tch::Tensor;

use super::{Answer, Given, to_vec};
use crate::{
    blueprint::Blueprint,
    data::{CellConditions, Cells, Dataset, Minibatch},
    device::Device,
    error::{Error, Result},
    model::Module,
    nn::{Mode, Pass, SeededNoise},
    parts::Parts,
    reference::{Reference, to_array},
    train::{EVALUATION_MINIBATCH, Seeds},
};

/// A trained module with cells and a seed: what every question is asked of.
pub struct Asked<'a> {
    module: Box<dyn Module>,
    dataset: Dataset<'a>,
    keys: Vec<ConditionKey>,
    seeds: Seeds,
    model: String,
    genes: Vec<String>,
    blueprint: Blueprint,
    parts: Parts,
    pooled: BTreeMap<Name, Pool>,
}

impl<'a> Asked<'a> {
    /// Conditions of the reference that no cell has can be decoded as, too.
    ///
    /// # Errors  conditions or data that the reference does not know
    pub fn new(
        reference: &Reference,
        cells: &Cells<'a>,
        conditions: &CellConditions,
        seed: u64,
        device: Device,
    ) -> Result<Self> {
        let card = &reference.base.card;
        let dataset = reference.encode(cells, conditions)?;
        let mut keys = conditions.all_keys();
        let others: Vec<ConditionKey> = reference.columns.keys().filter(|key| !keys.contains(key)).cloned().collect();
        keys.extend(others);
        let module = reference.module(&keys, device)?;
        keys.retain(|key| *key.section() == Section::Condition);
        let (blueprint, seeds) = (Blueprint::of_card(card)?, Seeds::new(seed, "results"));
        let (model, genes, parts) = (card.model.clone(), card.genes.clone(), reference.known_parts());
        let pooled = pools(reference)?;
        Ok(Self { module, dataset, keys, seeds, model, genes, blueprint, parts, pooled })
    }

    /// A reference with all its conditions, for questions that are not about cells; `nothing` has no row and a column per gene.
    ///
    /// # Errors  a reference that cannot be built
    pub fn without_cells(reference: &Reference, nothing: &'a Csr, seed: u64, device: Device) -> Result<Self> {
        let card = &reference.base.card;
        let (dataset, keys) = (Dataset::new(nothing, vec![]), reference.columns.keys().cloned().collect::<Vec<_>>());
        let module = reference.module(&keys, device)?;
        let keys = keys.into_iter().filter(|key| *key.section() == Section::Condition).collect();
        let (blueprint, seeds) = (Blueprint::of_card(card)?, Seeds::new(seed, "results"));
        let (model, genes, parts) = (card.model.clone(), card.genes.clone(), reference.known_parts());
        let pooled = pools(reference)?;
        Ok(Self { module, dataset, keys, seeds, model, genes, blueprint, parts, pooled })
    }

    /// The answer to one of the model's own questions.
    ///
    /// # Errors  [`Error::NotAnswered`], and those of the answer
    pub fn answer(&self, question: &str, given: &Given) -> Result<Answer> {
        self.module.answer(question, self, given)
    }

    /// The module.
    pub fn module(&self) -> &dyn Module {
        self.module.as_ref()
    }

    /// The cells.
    pub fn dataset(&self) -> &Dataset<'a> {
        &self.dataset
    }

    /// The members of a pool added up; none where the reference has no such pool.
    pub fn pooled(&self, part: &Name) -> Option<&Pool> {
        self.pooled.get(part)
    }

    /// Name of the model in the zoo.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Names of the genes.
    pub fn genes(&self) -> &[String] {
        &self.genes
    }

    /// Options and fields of the reference.
    pub fn blueprint(&self) -> &Blueprint {
        &self.blueprint
    }

    /// The parts of the reference.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    /// The conditions, by code: those of the cells, then the others of the reference.
    pub fn conditions(&self) -> &[ConditionKey] {
        &self.keys
    }

    /// The code of a condition, to decode cells as if they were of it.
    ///
    /// # Errors  [`Error::UnknownCondition`], [`Error::SeveralKeys`]
    pub fn code(&self, key: &ConditionKey) -> Result<i64> {
        if !self.dataset.axes.is_empty() {
            return Err(Error::SeveralKeys { key: key.clone() });
        }
        let position = self.keys.iter().position(|known| known == key);
        position.map(|code| code as i64).ok_or_else(|| Error::UnknownCondition { key: key.clone() })
    }

    /// Seeds of draws, by purpose.
    pub fn seeds(&self) -> &Seeds {
        &self.seeds
    }

    /// Noise for a purpose.
    pub fn noise(&self, purpose: &str) -> SeededNoise {
        SeededNoise::new(self.seeds.of(purpose, 0))
    }

    /// Cells in order, a few hundred at a time.
    pub fn chunks(&self) -> Vec<Vec<usize>> {
        let cells: Vec<usize> = (0..self.dataset.n_cells()).collect();
        cells.chunks(EVALUATION_MINIBATCH).map(<[usize]>::to_vec).collect()
    }

    /// Some cells as tensors where the module lives.
    pub fn minibatch(&self, cells: &[usize]) -> Minibatch {
        self.dataset.minibatch(cells, self.module.weights().device())
    }

    /// A row for every cell, computed chunk by chunk without gradients.
    pub fn by_chunk(&self, purpose: &str, rows: impl FnMut(&Minibatch, &mut Pass<'_>) -> Tensor) -> Array2<f32> {
        self.by_chunk_in(Mode::Evaluation, purpose, rows)
    }

    /// The same in a mode. In training all cells are one chunk, of two at least: batch statistics are theirs together.
    pub fn by_chunk_in(
        &self,
        mode: Mode,
        purpose: &str,
        mut rows: impl FnMut(&Minibatch, &mut Pass<'_>) -> Tensor,
    ) -> Array2<f32> {
        let _guard = tch::no_grad_guard();
        let mut noise = self.noise(purpose);
        let chunk = |cells: &Vec<usize>| to_array(&rows(&self.minibatch(cells), &mut Pass { mode, noise: &mut noise }));
        let chunks = match mode {
            Mode::Evaluation => self.chunks(),
            Mode::Training => vec![(0..self.dataset.n_cells()).collect()],
        };
        stacked(&chunks.iter().map(chunk).collect::<Vec<_>>())
    }

    /// A number for every cell, computed chunk by chunk without gradients.
    pub fn number_by_chunk(
        &self,
        purpose: &str,
        mut numbers: impl FnMut(&Minibatch, &mut Pass<'_>) -> Tensor,
    ) -> Vec<f32> {
        let _guard = tch::no_grad_guard();
        let mut noise = self.noise(purpose);
        let mut all = Vec::with_capacity(self.dataset.n_cells());
        for cells in self.chunks() {
            let mut pass = Pass { mode: Mode::Evaluation, noise: &mut noise };
            all.extend(to_vec(&numbers(&self.minibatch(&cells), &mut pass)));
        }
        all
    }
}

/// The members of every pool of a reference added up.
fn pools(reference: &Reference) -> Result<BTreeMap<Name, Pool>> {
    let mut pools = BTreeMap::new();
    for part in reference.base.card.layout.parts.keys() {
        pools.extend(reference.pooled(part)?.map(|pool| (part.clone(), pool)));
    }
    Ok(pools)
}

/// Rows below each other.
pub(super) fn stacked(parts: &[Array2<f32>]) -> Array2<f32> {
    let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
    concatenate(Axis(0), &views).expect("all parts have the same columns")
}
