//! From cells to trained conditions: the part of surgery that is the same with and without a coordinator.
//!
//! Each batch becomes a condition `owner/dataset/batch` and is trained by itself, several at a time; batches that share a new name on
//! one of several condition keys are trained together. What was finished earlier is taken from its checkpoint.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
};

use archipelago_anndata::{Array, Column, Csr, Element, align::Alignment};
use archipelago_common::{
    Base, BaseCard, Layout, StateDict,
    condition::{Columns, ConditionKey},
    hash::Digest,
    id::{Name, SiteId},
    part::Member,
    progress::{Continue, EpochReport},
    task::{ConditionMetrics, TrainSpec},
};
use archipelago_models::{
    Blueprint, CellConditions, Cells, CheckpointStore, Compute, Evaluation, Extension, Moments, NoCheckpoints,
    Reference,
    surgery::{JointQuery, JointSurgery, Start, surgery_from},
    train::{Aim, Seeds, TrainPlan},
    zoo,
};
use rand::{SeedableRng as _, seq::index};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::{
    annotations::Annotations,
    checkpoint::{Checkpoints, Inputs},
    data::SiteData,
    egress::Latent,
    error::{Error, Result},
    fit::Fit,
    naming::NameTable,
    network,
    shared_tree::{self, Placed},
};

/// The name of the latent representation in `obsm`.
pub const OBSM_KEY: &str = "X_archipelago";
/// The name of the column in `obs` that says which condition a cell was mapped as.
pub const OBS_KEY: &str = "archipelago_condition";

/// The name of the entry in `uns` that says under which rules cells were mapped.
pub const UNS_KEY: &str = "archipelago_surgery";

/// What the columns in `obs` begin with that say where a tree puts a cell.
pub const TREE_KEY: &str = "tree";

/// Under whose rules a query was mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rules {
    /// Ours: only the query's own columns move, so results can be merged.
    Exact,
    /// The same, but columns are those of the reference's batch that is most like the query's, or start there.
    Shot,
    /// scvi-tools', to the letter: more moves, so the result stands alone.
    Upstream,
}

impl Rules {
    /// What every output says of them.
    pub fn label(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Shot => "shot",
            Self::Upstream => BaseCard::APPROXIMATE.1,
        }
    }
}

/// Who hears of each epoch of a group's training, and may stop it.
pub type OnEpoch<'a> = &'a (dyn Fn(&QueryGroup, &EpochReport) -> Continue + Sync);

/// A frozen base, and where to compute.
#[derive(Clone, Copy, Debug)]
pub struct Surgeon<'a> {
    /// The base.
    pub base: &'a Base,
    /// Its digest.
    pub base_digest: Digest,
    /// What this site adds to the base's model, and keeps.
    pub extension: &'a Extension,
    /// How to train.
    pub train: &'a TrainSpec,
    /// Where and how to compute.
    pub compute: Compute,
    /// Where conditions are kept, finished or on the way, if anywhere.
    pub checkpoints: Option<&'a Checkpoints>,
    /// Members of parts by which the base's model maps, if it does.
    pub parts: &'a BTreeMap<ConditionKey, Member>,
    /// Where columns start, and whether they are trained.
    pub start: Start<'a>,
}

/// Cells that are trained together, ready for surgery: those of one batch, where no new key binds it to others.
#[derive(Clone, Debug)]
pub struct QueryGroup {
    /// Their keys on every axis.
    pub conditions: CellConditions,
    /// Their positions among the cells used.
    pub cells: Vec<usize>,
    /// Their counts, in panel order.
    pub counts: Csr,
    /// What else is known of them.
    pub annotations: Annotations,
    /// Positions in the panel of the genes that were measured.
    pub measured: Arc<[usize]>,
}

/// The keys of a site's cells, and who is trained with whom.
#[derive(Clone, Debug)]
pub struct QueryKeys {
    /// The keys of each cell used.
    pub conditions: CellConditions,
    /// Positions of the cells of each group, in the order of their first conditions.
    pub groups: Vec<Vec<usize>>,
}

impl QueryKeys {
    /// Every batch of the data as a condition of this owner's data set, and every name of further axes as a key: the reference's
    /// where its card shares the name.
    ///
    /// # Errors  [`Error::Models`] for a name that cannot be part of a key, and for keys that look mixed up
    pub fn new(data: &SiteData, owner: &SiteId, dataset: &Name, layout: &Layout) -> Result<Self> {
        let conditions = data.cell_names_on_axes().of_query(owner, dataset, layout)?;
        let groups = conditions.groups(layout);
        Ok(Self { conditions, groups })
    }
}

impl QueryGroup {
    /// The groups of the data, with their counts as [`SiteData::counts_by_group`] gives them and how the genes met the panel.
    pub fn all(data: &SiteData, keys: &QueryKeys, counts: Vec<Csr>, alignment: &Alignment) -> Vec<Self> {
        let measured: Arc<[usize]> = alignment.found().into();
        let groups = keys.groups.iter().zip(counts).map(|(cells, counts)| Self {
            conditions: keys.conditions.select_cells(cells),
            counts,
            annotations: data.annotations().select(cells),
            cells: cells.clone(),
            measured: measured.clone(),
        });
        groups.collect()
    }

    /// Some of the cells, this share of them and at least one, drawn by a seed.
    #[must_use]
    pub fn sample(&self, share: f64, seed: u64) -> Self {
        let n_cells = self.cells.len();
        let n_drawn = ((share * n_cells as f64).ceil() as usize).clamp(1, n_cells);
        let mut rng = ChaCha8Rng::from_seed(Seeds::new(seed, self.name()).of("sample", 0));
        let mut drawn = index::sample(&mut rng, n_cells, n_drawn).into_vec();
        drawn.sort_unstable();
        self.select(&drawn)
    }

    /// Some of the cells, by their positions in the group.
    #[must_use]
    pub fn select(&self, rows: &[usize]) -> Self {
        Self {
            conditions: self.conditions.select_cells(rows),
            cells: rows.iter().map(|&row| self.cells[row]).collect(),
            counts: self.counts.select_rows(rows),
            annotations: self.annotations.select(rows),
            measured: self.measured.clone(),
        }
    }

    /// What people call it: its conditions.
    pub fn name(&self) -> String {
        self.conditions.keys().iter().map(ToString::to_string).collect::<Vec<_>>().join(" + ")
    }

    /// The same with the names that its keys stand for at this site.
    pub fn name_at_home(&self, names: &NameTable) -> String {
        self.conditions.keys().iter().map(|key| names.or_key(key).to_string()).collect::<Vec<_>>().join(" + ")
    }

    /// Number of cells.
    pub fn n_cells(&self) -> u64 {
        self.cells.len() as u64
    }

    /// The cells of each of its own keys, on every axis, by their positions in the group.
    pub fn cells_of_keys(&self, layout: &Layout) -> BTreeMap<ConditionKey, Vec<usize>> {
        self.conditions.cells_of_own_keys(layout)
    }

    /// Number of donors of some cells, where the data names them.
    pub fn n_donors(&self, cells: &[usize]) -> Option<u64> {
        self.annotations.n_donors(cells)
    }

    /// The cells as the model takes them.
    ///
    /// # Errors  [`Error::MissingValues`] for a cell without a label where every cell needs one
    pub fn cells(&self) -> Result<Cells<'_>> {
        Ok(self.annotations.cells(&self.counts)?.measuring(&self.measured))
    }
}

impl Surgeon<'_> {
    /// Epochs that a condition of so many cells will take.
    ///
    /// # Errors  [`Error::Models`] for training settings that make no sense
    pub fn n_epochs(&self, n_cells: usize) -> Result<u32> {
        match self.start {
            Start::Asked | Start::At(_) => Ok(self.plan(n_cells)?.n_epochs),
            Start::Untrained(_) => Ok(0),
        }
    }

    /// How a condition of so many cells is trained: what this base's model does by itself, and what was asked.
    fn plan(&self, n_cells: usize) -> Result<TrainPlan> {
        let model = zoo::model(&self.base.card.model)?;
        Ok(TrainPlan::new(model, Aim::ExactSurgery, self.train, n_cells)?)
    }

    /// Trains every group, as many at a time as there are cores. `progress` hears of each epoch and may stop the work.
    ///
    /// # Errors  [`Error::Models`], the first in order of the groups
    pub fn map_all(&self, groups: &[QueryGroup], progress: OnEpoch<'_>) -> Result<Vec<JointSurgery>> {
        groups.par_iter().map(|group| self.map(group, progress)).collect::<Vec<_>>().into_iter().collect()
    }

    fn map(&self, group: &QueryGroup, progress: OnEpoch<'_>) -> Result<JointSurgery> {
        let query = JointQuery { conditions: group.conditions.clone(), cells: group.cells()? };
        let mut report = |report: &EpochReport| progress(group, report);
        let mut train = |checkpoints: &mut dyn CheckpointStore| -> Result<JointSurgery> {
            let onto = (self.base, self.extension);
            Ok(surgery_from(self.start, onto, &query, self.train, self.compute, &mut report, checkpoints)?)
        };
        let Some(checkpoints) = self.checkpoints else {
            return train(&mut NoCheckpoints);
        };
        let blueprint = Blueprint::of_card(&self.base.card)?;
        let cells = blueprint.encode(&query.cells, &query.conditions)?.digest();
        let (plan, init) = (self.plan(group.cells.len())?, (self.train.init, self.train.seed));
        let (base, keys, extension, start) = (self.base_digest, &query.conditions, self.extension, self.start);
        let genes = (query.cells.measured(), self.train.missing_genes);
        let name = Inputs { base, keys, plan: &plan, init, start, cells, genes, extension }.digest();
        if let Some(finished) = checkpoints.load(&name) {
            tracing::info!(conditions = group.name(), "taken from its checkpoint");
            for report in &finished.history {
                progress(group, report);
            }
            return Ok(finished);
        }
        let mut training = checkpoints.training(&name);
        let surgery = match train(&mut training) {
            Err(Error::Models(archipelago_models::Error::Checkpoint { detail })) => {
                let path = training.path().display();
                tracing::warn!(%path, detail, "a checkpoint is damaged and discarded; its condition is trained anew");
                training.discard();
                train(&mut training)?
            }
            trained => trained?,
        };
        checkpoints.store(&name, &surgery)?;
        Ok(surgery)
    }

    /// The cells of a group among those of the reference, seen through these columns and what the site keeps; rows without a number
    /// for a model that gives cells no place.
    ///
    /// # Errors  [`Error::Models`]
    pub fn latent(
        &self,
        group: &QueryGroup,
        columns: BTreeMap<ConditionKey, Columns>,
        local: &StateDict,
    ) -> Result<Latent> {
        let mut reference = Reference::of_base(self.base.clone())?;
        reference.columns.extend(columns);
        reference.local = group.conditions.keys().iter().map(|key| (key.clone(), local.clone())).collect();
        reference.parts.clone_from(self.parts);
        match reference.mapped(&group.cells()?, &group.conditions, Moments::Mean, self.compute) {
            // Its cells are mapped by what sites contribute, and not by an encoder.
            Err(archipelago_models::Error::NotEmbedder { .. }) => Ok(Latent { n_latent: 0, values: Vec::new() }),
            mapped => Ok(mapped?.into()),
        }
    }
}

impl From<archipelago_models::Latent> for Latent {
    fn from(latent: archipelago_models::Latent) -> Self {
        Self { n_latent: latent.mean.ncols(), values: latent.mean.iter().copied().collect() }
    }
}

/// The figures of the conditions of a finished group that may leave, if the policy lets them.
pub fn metrics(
    card: &BaseCard,
    group: &QueryGroup,
    surgery: &JointSurgery,
    gene_coverage: f64,
) -> BTreeMap<ConditionKey, ConditionMetrics> {
    let mut n_cells: BTreeMap<&ConditionKey, u64> = BTreeMap::new();
    (0..group.cells.len()).for_each(|cell| *n_cells.entry(group.conditions.key_of(cell)).or_default() += 1);
    let of_key = |(key, fit): (&ConditionKey, &Evaluation)| {
        let metrics = ConditionMetrics {
            n_cells: n_cells.get(key).copied().unwrap_or_default(),
            epochs: surgery.history.len() as u32,
            gene_coverage,
            figures: Fit::new(card, fit).into_values(),
            training_ms: surgery.history.last().map_or(0, |report| report.elapsed_ms),
            deterministic: surgery.deterministic,
        };
        (key.clone(), metrics)
    };
    surgery.fit.iter().map(of_key).collect()
}

/// A place where several trainings report to one display.
pub fn shared<T>(
    display: &Mutex<T>,
    epoch: impl Fn(&mut T, &QueryGroup, &EpochReport) -> Continue + Sync,
) -> impl Fn(&QueryGroup, &EpochReport) -> Continue + Sync
where
    T: Send,
{
    move |group, report| epoch(&mut display.lock().unwrap_or_else(|e| e.into_inner()), group, report)
}

/// What was found of cells, group by group.
#[derive(Debug)]
pub struct Found<'a> {
    /// Sets of positions by the names that they get in `obsm`.
    pub positions: &'a [(&'a str, Vec<Latent>)],
    /// Where a tree of cell types puts them, where there is one.
    pub placed: Option<&'a [Placed]>,
    /// What keys stand for at this site.
    pub names: &'a NameTable,
}

/// Writes the cells of these groups, with everything the file holds about them, their conditions in `obs`, the rules they
/// were mapped under and the base they were mapped onto in `uns`, their positions in `obsm`, and in `obs` where a tree puts them.
///
/// # Errors  [`Error::Cells`] where the file cannot be read or written
pub fn write_mapped(
    path: &Path,
    data: &SiteData,
    groups: &[QueryGroup],
    found: &Found<'_>,
    (rules, base): (Rules, &Digest),
) -> Result<()> {
    // In the order of the file, whatever group a cell is of.
    let mut cells: Vec<(usize, usize, usize)> = Vec::new();
    for (group_idx, group) in groups.iter().enumerate() {
        cells.extend(group.cells.iter().enumerate().map(|(row, &cell)| (cell, group_idx, row)));
    }
    cells.sort_unstable();
    data.write_cells(cells.iter().map(|&(cell, ..)| cell), path, |adata| {
        for (name, latents) in found.positions {
            let n_latent = latents.first().map_or(0, |latent| latent.n_latent);
            if n_latent == 0 {
                continue;
            }
            let rows: Vec<f32> =
                cells.iter().flat_map(|&(_, group, row)| latents[group].row(row).iter().copied()).collect();
            let latent = Array::matrix(cells.len(), n_latent, rows)?;
            adata.obsm.insert((*name).to_owned(), Element::Array(latent));
        }
        let key_of = |&(_, group, row): &(usize, usize, usize)| {
            found.names.or_key(groups[group].conditions.key_of(row)).to_string()
        };
        adata.obs.insert(OBS_KEY, Column::categorical(&cells.iter().map(key_of).collect::<Vec<_>>()))?;
        if let Some(placed) = found.placed {
            let labels: Vec<&str> = cells.iter().map(|&(_, group, row)| placed[group].labels[row].as_str()).collect();
            let shares: Vec<f64> = cells.iter().map(|&(_, group, row)| placed[group].shares[row]).collect();
            shared_tree::write_placed(adata, TREE_KEY, &labels, shares)?;
        }
        adata.uns.insert(UNS_KEY.to_owned(), Element::Array(Array::text(rules.label())));
        network::remember(adata, base);
        Ok(())
    })
}
