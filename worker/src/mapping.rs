//! From cells to trained conditions: the part of surgery that is the same with and without a coordinator.
//!
//! Each batch becomes a condition `owner/dataset/batch` and is trained by itself, several at a time. What was finished
//! earlier is taken from its checkpoint.

use std::{collections::BTreeMap, path::Path, sync::Mutex};

use archipelago_anndata::{Array, Column, Csr, Element};
use archipelago_common::{
    Base, BaseCard, StateDict,
    condition::{Columns, ConditionKey},
    hash::Digest,
    id::{Name, SiteId},
    progress::{Continue, EpochReport},
    task::{ConditionMetrics, TrainSpec},
};
use archipelago_models::{
    Blueprint, CellConditions, Cells, CheckpointStore, Compute, NoCheckpoints, Query, Reference, Surgery, surgery,
    train::{Aim, TrainPlan},
    zoo,
};
use rayon::prelude::*;

use crate::{
    annotations::Annotations,
    checkpoint::{Checkpoints, Inputs},
    data::SiteData,
    egress::Latent,
    error::{Error, Result},
    fit::Fit,
    network,
};

/// The name of the latent representation in `obsm`.
pub const OBSM_KEY: &str = "X_archipelago";
/// The name of the column in `obs` that says which condition a cell was mapped as.
pub const OBS_KEY: &str = "archipelago_condition";

/// The name of the entry in `uns` that says under which rules cells were mapped.
pub const UNS_KEY: &str = "archipelago_surgery";

/// Under whose rules a query was mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rules {
    /// Ours: only the query's own columns move, so results can be merged.
    Exact,
    /// scvi-tools', to the letter: more moves, so the result stands alone.
    Upstream,
}

impl Rules {
    /// What every output says of them.
    pub fn label(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Upstream => BaseCard::APPROXIMATE.1,
        }
    }
}

/// A frozen base, and where to compute.
#[derive(Clone, Copy, Debug)]
pub struct Surgeon<'a> {
    /// The base.
    pub base: &'a Base,
    /// Its digest.
    pub base_digest: Digest,
    /// How to train.
    pub train: &'a TrainSpec,
    /// Where and how to compute.
    pub compute: Compute,
    /// Where conditions are kept, finished or on the way, if anywhere.
    pub checkpoints: Option<&'a Checkpoints>,
}

/// The cells of one batch, ready for surgery.
#[derive(Clone, Debug)]
pub struct QueryBatch {
    /// Their condition.
    pub key: ConditionKey,
    /// Their positions among the cells used.
    pub cells: Vec<usize>,
    /// Their counts, in panel order.
    pub counts: Csr,
    /// What else is known of them.
    pub annotations: Annotations,
}

impl QueryBatch {
    /// Every batch of the data as a condition of this owner's data set, in order of their names, with its counts as
    /// [`SiteData::counts_by_batch`] gives them.
    ///
    /// # Errors  [`Error::Common`] for a batch name that cannot be part of a key
    pub fn all(data: &SiteData, counts: Vec<Csr>, owner: &SiteId, dataset: &Name) -> Result<Vec<Self>> {
        let batches = data.cells_by_batch().into_iter().zip(counts).map(|((batch, cells), counts)| {
            Ok(Self {
                key: ConditionKey::new(owner.clone(), dataset.clone(), batch)?,
                counts,
                annotations: data.annotations().select(&cells),
                cells,
            })
        });
        batches.collect()
    }

    /// Number of cells.
    pub fn n_cells(&self) -> u64 {
        self.cells.len() as u64
    }

    /// Number of donors, where the data names them.
    pub fn n_donors(&self) -> Option<u64> {
        let donors = self.annotations.donors()?;
        Some(donors.iter().flatten().collect::<std::collections::BTreeSet<_>>().len() as u64)
    }

    /// The cells as the model takes them.
    ///
    /// # Errors  [`Error::MissingValues`] for a cell without a label where every cell needs one
    pub fn cells(&self) -> Result<Cells<'_>> {
        self.annotations.cells(&self.counts)
    }
}

impl Surgeon<'_> {
    /// Epochs that a condition of so many cells will take.
    ///
    /// # Errors  [`Error::Models`] for training settings that make no sense
    pub fn n_epochs(&self, n_cells: usize) -> Result<u32> {
        Ok(self.plan(n_cells)?.n_epochs)
    }

    /// How a condition of so many cells is trained: what this base's model does by itself, and what was asked.
    fn plan(&self, n_cells: usize) -> Result<TrainPlan> {
        let model = zoo::model(&self.base.card.model)?;
        Ok(TrainPlan::new(model, Aim::ExactSurgery, self.train, n_cells)?)
    }

    /// Trains every batch, as many at a time as there are cores. `progress` hears of each epoch and may stop the work.
    ///
    /// # Errors  [`Error::Models`], the first in order of the batches
    pub fn map_all(
        &self,
        batches: &[QueryBatch],
        progress: &(dyn Fn(&ConditionKey, &EpochReport) -> Continue + Sync),
    ) -> Result<Vec<Surgery>> {
        batches.par_iter().map(|batch| self.map(batch, progress)).collect::<Vec<_>>().into_iter().collect()
    }

    fn map(
        &self,
        batch: &QueryBatch,
        progress: &(dyn Fn(&ConditionKey, &EpochReport) -> Continue + Sync),
    ) -> Result<Surgery> {
        let query = Query { key: batch.key.clone(), cells: batch.cells()? };
        let Some(checkpoints) = self.checkpoints else {
            return self.train(&query, progress, &mut NoCheckpoints);
        };
        let blueprint = Blueprint::of_card(&self.base.card)?;
        let cells = blueprint.registry.encode(&query.cells, &vec![0; batch.cells.len()], blueprint.n_genes)?.digest();
        let (plan, start) = (self.plan(batch.cells.len())?, (self.train.init, self.train.seed));
        let name = Inputs { base: self.base_digest, key: &batch.key, plan: &plan, start, cells }.digest();
        if let Some(finished) = checkpoints.load(&name) {
            tracing::info!(condition = %batch.key, "taken from its checkpoint");
            for report in &finished.history {
                progress(&batch.key, report);
            }
            return Ok(finished);
        }
        let mut training = checkpoints.training(&name);
        let surgery = match self.train(&query, progress, &mut training) {
            Err(Error::Models(archipelago_models::Error::Checkpoint { detail })) => {
                let path = training.path().display();
                tracing::warn!(%path, detail, "a checkpoint is damaged and discarded; its condition is trained anew");
                training.discard();
                self.train(&query, progress, &mut training)?
            }
            trained => trained?,
        };
        checkpoints.store(&name, &surgery)?;
        Ok(surgery)
    }

    fn train(
        &self,
        query: &Query<'_>,
        progress: &(dyn Fn(&ConditionKey, &EpochReport) -> Continue + Sync),
        checkpoints: &mut dyn CheckpointStore,
    ) -> Result<Surgery> {
        let mut report = |report: &EpochReport| progress(&query.key, report);
        Ok(surgery(self.base, query, self.train, self.compute, &mut report, checkpoints)?)
    }

    /// The cells of a batch in the latent space, seen through these columns and what the site keeps.
    ///
    /// # Errors  [`Error::Models`]
    pub fn latent(&self, batch: &QueryBatch, columns: &Columns, local: &StateDict) -> Result<Latent> {
        let conditions = CellConditions::single(batch.key.clone(), batch.cells.len());
        let columns = BTreeMap::from([(batch.key.clone(), columns.clone())]);
        let local = BTreeMap::from([(batch.key.clone(), local.clone())]);
        let reference = Reference { base: self.base.clone(), columns, parts: BTreeMap::new(), local };
        Ok(reference.latent(&batch.cells()?, &conditions, self.compute)?.into())
    }
}

impl From<archipelago_models::Latent> for Latent {
    fn from(latent: archipelago_models::Latent) -> Self {
        Self { n_latent: latent.mean.ncols(), values: latent.mean.iter().copied().collect() }
    }
}

/// The figures of a finished condition that may leave, if the policy lets them.
pub fn metrics(card: &BaseCard, surgery: &Surgery, gene_coverage: f64) -> ConditionMetrics {
    ConditionMetrics {
        n_cells: surgery.n_cells as u64,
        epochs: surgery.history.len() as u32,
        gene_coverage,
        figures: Fit::new(card, &surgery.fit).into_values(),
        training_ms: surgery.history.last().map_or(0, |report| report.elapsed_ms),
        deterministic: surgery.deterministic,
    }
}

/// A place where several trainings report to one display.
pub fn shared<T>(
    display: &Mutex<T>,
    epoch: impl Fn(&mut T, &ConditionKey, &EpochReport) -> Continue + Sync,
) -> impl Fn(&ConditionKey, &EpochReport) -> Continue + Sync
where
    T: Send,
{
    move |key, report| epoch(&mut display.lock().unwrap_or_else(|e| e.into_inner()), key, report)
}

/// Writes the cells of these batches, with everything the file holds about them, their conditions in `obs`, the rules they
/// were mapped under and the base they were mapped onto in `uns`, and one or more sets of positions (one `Latent` per batch) in `obsm`.
///
/// # Errors  [`Error::Cells`] where the file cannot be read or written
pub fn write_mapped(
    path: &Path,
    data: &SiteData,
    batches: &[QueryBatch],
    positions: &[(&str, Vec<Latent>)],
    (rules, base): (Rules, &Digest),
) -> Result<()> {
    // In the order of the file, whatever batch a cell is of.
    let mut cells: Vec<(usize, usize, usize)> = Vec::new();
    for (batch_idx, batch) in batches.iter().enumerate() {
        cells.extend(batch.cells.iter().enumerate().map(|(row, &cell)| (cell, batch_idx, row)));
    }
    cells.sort_unstable();
    data.write_cells(cells.iter().map(|&(cell, ..)| cell), path, |adata| {
        for (name, latents) in positions {
            let n_latent = latents.first().map_or(0, |latent| latent.n_latent);
            let rows: Vec<f32> =
                cells.iter().flat_map(|&(_, batch, row)| latents[batch].row(row).iter().copied()).collect();
            let latent = Array::matrix(cells.len(), n_latent, rows)?;
            adata.obsm.insert((*name).to_owned(), Element::Array(latent));
        }
        let keys: Vec<String> = batches.iter().map(|batch| batch.key.to_string()).collect();
        let conditions: Vec<&str> = cells.iter().map(|&(_, batch, _)| keys[batch].as_str()).collect();
        adata.obs.insert(OBS_KEY, Column::categorical(&conditions))?;
        adata.uns.insert(UNS_KEY.to_owned(), Element::Array(Array::text(rules.label())));
        network::remember(adata, base);
        Ok(())
    })
}
