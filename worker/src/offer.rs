//! What a person at the site is shown of a task before saying yes or no: who asks for what, and what would leave of which cells.
//!
//! Everything shown is in the digest of an [`Offer`], and a decision is about that digest. What a coordinator says of the reference
//! here is compared with its card once that is at the site.

use std::collections::BTreeMap;

use archipelago_common::{
    blob::BlobRef,
    condition::ConditionKey,
    hash::Digest,
    id::{Name, TaskId},
    policy::EmbeddingRelease,
    record::{ReferenceHead, TaskHead},
    state_dict::TensorSpec,
    task::{Asks, SurgeryTask},
};
use serde::Serialize;

use crate::{data::SiteData, error::Result, holding::Holding};

/// A task as a person is shown it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Offer {
    /// The task.
    pub task: TaskId,
    /// The operator who published it.
    pub publisher: Name,
    /// What it maps onto.
    pub reference: OfferedReference,
    /// What is asked, every word of it.
    pub asked: SurgeryTask,
    /// What would leave of each data set that has a part in it.
    pub data: Vec<OfferedData>,
}

/// What would leave of a data set.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct OfferedData {
    /// Its name.
    pub dataset: Name,
    /// What would leave.
    pub leaves: Leaving,
    /// Of which cells.
    pub cells: Vec<OfferedCells>,
}

/// What a task maps onto.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct OfferedReference {
    /// Its name: whoever may fetch it gets what leaves.
    pub name: Name,
    /// The operator who published it.
    pub publisher: Name,
    /// Its model.
    pub model: String,
    /// Size of its gene panel.
    pub n_genes: u64,
    /// Its base.
    pub base: BlobRef,
}

/// What of a task's wishes the policy grants.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Leaving {
    /// Trained columns.
    pub columns: bool,
    /// Places of cells.
    pub embeddings: EmbeddingRelease,
    /// Figures, rounded.
    pub metrics: bool,
    /// Contributions that are no columns.
    pub parts: bool,
}

/// Cells of one condition, and the size of the columns that would leave of them. Of a reference with further condition keys, those of
/// the batch.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct OfferedCells {
    /// Their key.
    pub condition: ConditionKey,
    /// How many.
    pub n_cells: u64,
    /// Numbers in their columns.
    pub numbers: u64,
    /// The same for each cell.
    pub numbers_per_cell: f64,
    /// Bytes of these numbers.
    pub bytes: u64,
}

impl Offer {
    /// A task to these data sets of a site, as their policies and their cells are now.
    ///
    /// # Errors  those of opening the cells
    pub fn new<'a>(
        holdings: impl IntoIterator<Item = &'a Holding>,
        record: &TaskHead,
        reference: &ReferenceHead,
    ) -> Result<Self> {
        let data = holdings.into_iter().map(|holding| OfferedData::new(holding, record, reference));
        Ok(Self {
            task: record.id,
            publisher: record.publisher.clone(),
            reference: OfferedReference {
                name: reference.name.clone(),
                publisher: reference.publisher.clone(),
                model: reference.summary.model.clone(),
                n_genes: reference.summary.n_genes,
                base: reference.base,
            },
            asked: record.task.clone(),
            data: data.collect::<Result<_>>()?,
        })
    }

    /// The cells of all of its data sets.
    pub fn cells(&self) -> impl Iterator<Item = &OfferedCells> {
        self.data.iter().flat_map(|data| &data.cells)
    }

    /// What a decision is about.
    pub fn digest(&self) -> Digest {
        Digest::of(&serde_json::to_vec(self).expect("an offer is JSON"))
    }
}

impl OfferedData {
    fn new(holding: &Holding, record: &TaskHead, reference: &ReferenceHead) -> Result<Self> {
        let (asks, policy) = (record.task.asks, &holding.policy);
        let leaves = Leaving {
            columns: asks.for_columns() && policy.columns,
            embeddings: record.task.embeddings.at_most(policy.embeddings),
            metrics: policy.metrics,
            parts: asks != Asks::Columns && policy.parts.is_some(),
        };
        let columns = reference.summary.columns.values();
        let (numbers, bytes) = match leaves.columns {
            true => columns.fold((0, 0), |(numbers, bytes), spec| {
                let n = n_numbers(spec);
                (n.saturating_add(numbers), n.saturating_mul(spec.dtype.size() as u64).saturating_add(bytes))
            }),
            false => (0, 0),
        };
        let offered = |(condition, n_cells): (ConditionKey, u64)| {
            let numbers_per_cell = numbers as f64 / n_cells.max(1) as f64;
            OfferedCells { condition, n_cells, numbers, numbers_per_cell, bytes }
        };
        let cells = cells(holding, reference)?.into_iter().map(offered).collect();
        Ok(Self { dataset: holding.dataset.clone(), leaves, cells })
    }
}

/// The cells of a data set by condition.
fn cells(holding: &Holding, reference: &ReferenceHead) -> Result<BTreeMap<ConditionKey, u64>> {
    let data = SiteData::open(holding.spec.clone())?;
    let layout = reference.summary.layout();
    let keys = holding.naming.keys(&data, &layout)?;
    let cells = keys.conditions.cells_of_own_keys(&layout);
    Ok(cells.into_iter().map(|(key, cells)| (key, cells.len() as u64)).collect())
}

fn n_numbers(spec: &TensorSpec) -> u64 {
    spec.shape.iter().map(|&n| n as u64).fold(1, u64::saturating_mul)
}
