//! Cells whose batches are conditions of a reference: what latent spaces, predictions and results are asked for.

use std::path::PathBuf;

use archipelago_anndata::{Csr, names};
use archipelago_common::{
    BaseCard, Section,
    condition::ConditionKey,
    id::{Name, SiteId},
};
use archipelago_models::{
    Categorical, CellConditions, Cells, Device, Reference,
    data::{FieldKind, Minified},
};
use clap::Args;

use super::{CellArgs, DeviceArg, OpenReference};
use crate::{
    data::SiteData,
    error::{Error, Result},
    memory::MemoryArgs,
    naming::NameTable,
    output::Output,
};

/// A reference and cells that it knows the batches of.
#[derive(Args, Debug)]
pub struct KnownCellArgs {
    /// The reference directory.
    pub reference: PathBuf,
    /// The h5ad file.
    pub file: PathBuf,
    /// The obs column that names the batch [default: as in the reference]
    #[arg(long)]
    pub batch_key: Option<String>,
    #[command(flatten)]
    pub(super) cells: CellArgs,
    #[command(flatten)]
    pub(super) among: ConditionArgs,
    /// Where to compute.
    #[arg(long, value_enum, default_value_t = DeviceArg::Auto)]
    pub device: DeviceArg,
    #[command(flatten)]
    memory: MemoryArgs,
}

/// Where to look for batches among the conditions of a reference.
#[derive(Args, Debug, Default)]
pub struct ConditionArgs {
    /// Look for the batches among the conditions of this owner.
    #[arg(long)]
    pub owner: Option<SiteId>,
    /// Look for the batches among the conditions of this data set.
    #[arg(long)]
    pub dataset: Option<Name>,
    /// The site's table of what its ids stand for, where the reference has its batches under ids: `state/names.json`.
    #[arg(long, value_name = "FILE", value_parser = NameTable::given)]
    pub names: Option<NameTable>,
}

/// Opened cells, as a reference sees them.
pub struct KnownCells {
    /// The reference and its directory.
    pub open: OpenReference,
    /// The cells.
    pub data: SiteData,
    /// Their counts in panel order; zeros for cells that have none left.
    pub counts: Csr,
    /// What is known of cells that have no counts left.
    pub minified: Option<Minified>,
    /// The condition of each cell.
    pub conditions: CellConditions,
    /// Where to compute.
    pub device: Device,
}

impl KnownCellArgs {
    /// Opens reference and cells.
    ///
    /// # Errors  [`Error::Reference`], [`Error::Cells`], [`Error::NoCondition`], [`Error::AmbiguousBatch`]
    pub fn open(&self, output: &Output) -> Result<KnownCells> {
        self.open_for(output, |_| Ok(()))
    }

    /// The same, if the reference is one that `check` lets pass: before any cell is looked at.
    ///
    /// # Errors  those of `check`, and as [`Self::open`]
    pub fn open_for(&self, output: &Output, check: impl FnOnce(&BaseCard) -> Result<()>) -> Result<KnownCells> {
        let open = OpenReference::open(&self.reference)?;
        let card = &open.reference.base.card;
        check(card)?;
        let spec = self.cells.seen_through(&self.file, self.batch_key.as_deref(), card)?;
        spec.check_batch_key(self.batch_key.as_deref())?;
        let data = SiteData::open(spec)?;
        let data = data.handled(self.memory.handling(output));
        let minified = data.minified()?;
        let counts = match &minified {
            None => data.counts(&card.genes)?.counts,
            Some(_) => Csr::zeros(data.n_cells(), card.genes.len()),
        };
        let conditions = self.among.conditions(&data, &open.reference)?;
        Ok(KnownCells { open, data, counts, minified, conditions, device: self.device.into() })
    }
}

impl KnownCells {
    /// The reference.
    pub fn reference(&self) -> &Reference {
        &self.open.reference
    }

    /// The cells as the reference's model takes them. Labels are there only for a model that computes with them: what
    /// others make of a cell does not depend on its label.
    ///
    /// # Errors  [`Error::MissingValues`]
    pub fn cells(&self) -> Result<Cells<'_>> {
        let mut cells = self.data.annotations().cells(&self.counts)?.minified(self.minified.clone());
        for field in &self.data.spec().takes {
            if matches!(field.kind, FieldKind::Labels { unlabelled: Some(_) }) {
                cells = cells.without(&field.name);
            }
        }
        Ok(cells)
    }

    /// The key of each cell's condition.
    pub fn condition_names(&self) -> Vec<String> {
        let names: Vec<String> = self.conditions.keys().iter().map(ToString::to_string).collect();
        self.conditions.codes().iter().map(|&code| names[code as usize].clone()).collect()
    }
}

impl ConditionArgs {
    /// The condition of each cell.
    ///
    /// # Errors  [`Error::NoCondition`], [`Error::AmbiguousBatch`]
    pub fn conditions(&self, data: &SiteData, reference: &Reference) -> Result<CellConditions> {
        let batches = Categorical::from_values(data.batches());
        let keys = batches.names().iter().map(|batch| self.key_of(batch, reference)).collect::<Result<Vec<_>>>()?;
        let position = |batch: &str| batches.names().iter().position(|name| name == batch);
        let key_of = |batch: &str| Ok(keys[position(batch).expect("every batch has a key")].clone());
        let mut conditions = CellConditions::from_batches(&batches, key_of)?;
        for (axis, names) in data.cell_names_on_axes().axes {
            let level_of = |cell: usize| {
                let level = &names.names()[names.codes()[cell] as usize];
                self.level_of(&axis, level, conditions.key_of(cell), reference)
            };
            let levels = (0..data.n_cells()).map(level_of).collect::<Result<Vec<_>>>()?;
            conditions = conditions.with_axis(CellConditions::from_keys(&levels));
        }
        Ok(conditions)
    }

    /// The condition of a batch: by its name, or by its whole key.
    ///
    /// # Errors  [`Error::NoCondition`], [`Error::AmbiguousBatch`]
    pub fn key_of(&self, batch: &str, reference: &Reference) -> Result<ConditionKey> {
        let is_among = |key: &&ConditionKey| {
            self.owner.as_ref().is_none_or(|owner| owner == key.owner())
                && self.dataset.as_ref().is_none_or(|dataset| dataset == key.dataset())
        };
        let conditions = || reference.columns.keys().filter(|key| *key.section() == Section::Condition);
        if let Some(key) = conditions().find(|key| key.to_string() == batch) {
            return Ok(key.clone());
        }
        let list = |keys: &[&ConditionKey]| keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
        let keys = || conditions().filter(is_among);
        let called = |key: &ConditionKey| self.readable(key).map(|readable| readable.batch().to_owned());
        let mut found: Vec<&ConditionKey> =
            keys().filter(|key| called(key).map_or(key.batch() == batch, |name| name == batch)).collect();
        if found.is_empty() {
            // A column of floats may have been read by another program.
            found = keys().filter(|key| names::is_same(key.batch(), batch)).collect();
        }
        match found.as_slice() {
            [key] => Ok((*key).clone()),
            // An imported model whose layers hear of no condition has a list of none, and one with several keys does not know which of them went
            // together: its cells are known by each key.
            [] if owns_nothing(reference) && (conditions().next().is_none() || has_further_axes(reference)) => {
                let owner = self.owner.clone().map_or_else(|| "local".parse(), Ok)?;
                let dataset = self.dataset.clone().map_or_else(|| "query".parse(), Ok)?;
                Ok(ConditionKey::new(owner, dataset, batch)?)
            }
            [] => {
                let available = list(&conditions().collect::<Vec<_>>());
                Err(Error::NoCondition { batch: batch.to_owned(), available })
            }
            several => Err(Error::AmbiguousBatch { batch: batch.to_owned(), candidates: list(several) }),
        }
    }

    /// The key on an axis of a cell of this condition: that of the condition's owner, or the one that the reference shares.
    fn level_of(
        &self,
        axis: &Name,
        level: &str,
        condition: &ConditionKey,
        reference: &Reference,
    ) -> Result<ConditionKey> {
        let section = Section::Axis(axis.clone());
        let own = ConditionKey::new(condition.owner().clone(), condition.dataset().clone(), level)?
            .in_section(section.clone());
        let is_own = |key: &&ConditionKey| self.readable(key).as_ref().unwrap_or(key) == &own;
        if let Some(own) = reference.columns.keys().find(is_own) {
            return Ok(own.clone());
        }
        let shared = reference.base.card.layout.axis(&section).and_then(|axis| axis.shared(level));
        shared.cloned().ok_or_else(|| {
            let keys = reference.columns.keys().filter(|key| *key.section() == section).map(|key| format!("`{key}`"));
            Error::NoCondition { batch: level.to_owned(), available: keys.collect::<Vec<_>>().join(", ") }
        })
    }

    fn readable(&self, key: &ConditionKey) -> Option<ConditionKey> {
        self.names.as_ref().and_then(|names| names.readable(key))
    }
}

/// Whether conditions are names and nothing else.
fn owns_nothing(reference: &Reference) -> bool {
    reference.base.card.layout.axis(&Section::Condition).is_none_or(|axis| axis.tensors.is_empty())
}

/// Whether cells are called by several keys.
fn has_further_axes(reference: &Reference) -> bool {
    reference.base.card.layout.axes.iter().any(|axis| matches!(axis.section, Section::Axis(_)))
}
