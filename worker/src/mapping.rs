//! From cells to trained conditions: the part of surgery that is the same with and without a coordinator.
//!
//! Each batch becomes a condition `owner/dataset/batch` and is trained by itself, several at a time. What was finished
//! earlier is taken from its checkpoint.

use std::{collections::BTreeMap, path::Path, sync::Mutex};

use archipelago_anndata::{Array, Column, Compression, Csr, Element};
use archipelago_common::{
    Base,
    condition::{Columns, ConditionKey},
    hash::Digest,
    id::{Name, SiteId},
    progress::{Continue, EpochReport},
    task::{ConditionMetrics, TrainSpec},
};
use archipelago_models::{
    Categorical, CellConditions, Cells, Device, NoCheckpoints, Query, Reference, Surgery, surgery, train::TrainPlan,
};
use rayon::prelude::*;

use crate::{
    checkpoint::{Checkpoints, Inputs},
    data::{AlignedCounts, SiteData},
    egress::Latent,
    error::{Error, Result},
};

/// The name of the latent representation in `obsm`.
pub const OBSM_KEY: &str = "X_archipelago";
/// The name of the column in `obs` that says which condition a cell was mapped as.
pub const OBS_KEY: &str = "archipelago_condition";

/// A frozen base, and where to compute.
#[derive(Clone, Copy, Debug)]
pub struct Surgeon<'a> {
    /// The base.
    pub base: &'a Base,
    /// Its digest.
    pub base_digest: Digest,
    /// How to train.
    pub train: &'a TrainSpec,
    /// Where to compute.
    pub device: Device,
    /// Where finished conditions are kept, if anywhere.
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
    /// Their labels, where the data has them.
    pub labels: Option<Vec<Option<String>>>,
    /// Their donors, where the data names them.
    pub donors: Option<Vec<Option<String>>>,
}

impl QueryBatch {
    /// Every batch of the data as a condition of this owner's data set, in order of their names.
    ///
    /// # Errors  [`Error::Common`] for a batch name that cannot be part of a key
    pub fn all(data: &SiteData, aligned: &AlignedCounts, owner: &SiteId, dataset: &Name) -> Result<Vec<Self>> {
        let batches = data.cells_by_batch().into_iter().map(|(batch, cells)| {
            let take = |values: &[Option<String>]| cells.iter().map(|&cell| values[cell].clone()).collect();
            Ok(Self {
                key: ConditionKey::new(owner.clone(), dataset.clone(), batch)?,
                counts: aligned.counts.select_rows(&cells),
                labels: data.labels().map(take),
                donors: data.donors().map(take),
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
        let donors = self.donors.as_ref()?;
        Some(donors.iter().flatten().collect::<std::collections::BTreeSet<_>>().len() as u64)
    }

    /// The cells as a model takes them; labels only for a model that uses them.
    fn cells(&self, base: &Base) -> Cells<'_> {
        let mut cells = Cells::new(&self.counts);
        if !base.card.labels.is_empty() {
            let named = self.labels.as_ref().and_then(|labels| labels.iter().cloned().collect::<Option<Vec<_>>>());
            cells.labels = named.map(|labels| Categorical::from_values(&labels));
        }
        cells
    }
}

impl Surgeon<'_> {
    /// Epochs that a condition of so many cells will take.
    ///
    /// # Errors  [`Error::Models`] for training settings that make no sense
    pub fn n_epochs(&self, n_cells: usize) -> Result<u32> {
        Ok(TrainPlan::of_spec(self.train, n_cells)?.n_epochs)
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
        let query = Query { key: batch.key.clone(), cells: batch.cells(self.base) };
        let inputs = Inputs {
            base: self.base_digest,
            key: &batch.key,
            train: self.train,
            counts: &batch.counts,
            labels: query.cells.labels.as_ref(),
        };
        let name = inputs.digest();
        if let Some(finished) = self.checkpoints.and_then(|checkpoints| checkpoints.load(&name)) {
            tracing::info!(condition = %batch.key, "taken from its checkpoint");
            for report in &finished.history {
                progress(&batch.key, report);
            }
            return Ok(finished);
        }
        let mut report = |report: &EpochReport| progress(&batch.key, report);
        let surgery = surgery(self.base, &query, self.train, self.device, &mut report, &mut NoCheckpoints)?;
        if let Some(checkpoints) = self.checkpoints {
            checkpoints.store(&name, &surgery)?;
        }
        Ok(surgery)
    }

    /// The cells of a batch in the latent space, seen through these columns.
    ///
    /// # Errors  [`Error::Models`]
    pub fn latent(&self, batch: &QueryBatch, columns: &Columns) -> Result<Latent> {
        let conditions = CellConditions::single(batch.key.clone(), batch.cells.len());
        let columns = BTreeMap::from([(batch.key.clone(), columns.clone())]);
        let reference = Reference { base: self.base.clone(), columns };
        Ok(reference.latent(&batch.cells(self.base), &conditions, self.device)?.into())
    }
}

impl From<archipelago_models::Latent> for Latent {
    fn from(latent: archipelago_models::Latent) -> Self {
        Self { n_latent: latent.mean.ncols(), values: latent.mean.iter().copied().collect() }
    }
}

/// The figures of a finished condition that may leave, if the policy lets them.
pub fn metrics(surgery: &Surgery, gene_coverage: f64) -> ConditionMetrics {
    ConditionMetrics {
        n_cells: surgery.n_cells as u64,
        epochs: surgery.history.len() as u32,
        gene_coverage,
        elbo: surgery.elbo,
        reconstruction: surgery.reconstruction,
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

/// Writes the cells of these batches, with everything the file holds about them, their conditions in `obs`, and one or more
/// sets of positions (one `Latent` per batch) in `obsm`.
///
/// # Errors  [`Error::Cells`] where the file cannot be read or written
pub fn write_mapped(
    path: &Path,
    data: &SiteData,
    batches: &[QueryBatch],
    positions: &[(&str, Vec<Latent>)],
) -> Result<()> {
    // In the order of the file, whatever batch a cell is of.
    let mut cells: Vec<(usize, usize, usize)> = Vec::new();
    for (batch_idx, batch) in batches.iter().enumerate() {
        cells.extend(batch.cells.iter().enumerate().map(|(row, &cell)| (cell, batch_idx, row)));
    }
    cells.sort_unstable();
    let failed = |source| Error::Cells { path: path.into(), source };
    let chosen: Vec<usize> = cells.iter().map(|&(cell, ..)| cell).collect();
    let mut adata = data.read_cells()?.select_obs(&chosen).map_err(failed)?;
    for (name, latents) in positions {
        let n_latent = latents.first().map_or(0, |latent| latent.n_latent);
        let rows: Vec<f32> =
            cells.iter().flat_map(|&(_, batch, row)| latents[batch].row(row).iter().copied()).collect();
        let latent = Array::matrix(chosen.len(), n_latent, rows).map_err(failed)?;
        adata.obsm.insert((*name).to_owned(), Element::Array(latent));
    }
    let conditions: Vec<String> = cells.iter().map(|&(_, batch, _)| batches[batch].key.to_string()).collect();
    adata.obs.insert(OBS_KEY, Column::categorical(&conditions)).map_err(failed)?;
    adata.write(path, Compression::Gzip(4)).map_err(failed)
}
