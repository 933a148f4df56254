//! One file per command: its flags, its work, its result.

use std::path::Path;

use archipelago_anndata::align::Duplicates;
use archipelago_common::{BaseCard, reference_dir::ReferenceDir};
use archipelago_models::{Blueprint, Compute, Device, Engine, Reference};
use clap::{Args, ValueEnum};

use crate::{
    data::DataSpec,
    error::{Error, Result},
    fields::FieldArgs,
};

pub mod aggregate;
pub mod approve;
mod archived;
pub mod audit;
pub mod completions;
pub mod concat;
pub mod decline;
pub mod defaults;
pub mod doctor;
pub mod export;
pub mod file;
pub mod generate;
pub mod import;
pub mod inspect;
pub mod join;
pub mod known;
pub mod latent;
pub mod ledger;
pub mod leiden;
pub mod map;
pub mod metrics;
pub mod models;
pub mod names;
mod native;
pub mod neighbors;
pub mod obs;
pub mod organize;
pub mod pca;
pub mod placed;
pub mod plot;
pub mod predict;
pub mod preprocess;
pub mod receptors;
pub mod report;
pub mod results;
pub mod search;
pub mod serve;
pub mod space;
pub mod subset;
pub mod tasks;
pub mod train;
pub mod transfer;
pub mod tree;
pub mod tsne;
pub mod umap;
pub mod unpack;

/// Which cells of a file.
#[derive(Args, Debug)]
pub struct CellArgs {
    #[command(flatten)]
    fields: FieldArgs,
    /// Use these batches only, separated by commas [default: all]
    #[arg(long)]
    pub batches: Vec<String>,
    /// What to do with a gene that the file names more than once.
    #[arg(long, value_enum, default_value_t = DuplicateGenes::Refuse)]
    pub duplicate_genes: DuplicateGenes,
    /// Take expression that is no whole numbers for counts, such as what is left when ambient RNA was taken out; as upstream, with a warning.
    #[arg(long)]
    pub fractional_counts: bool,
}

impl CellArgs {
    /// These cells of a file whose batches are named by `batch_key`.
    pub fn spec(&self, path: &Path, batch_key: &str) -> DataSpec {
        DataSpec {
            fields: self.fields.sources(),
            batches: self.batches.clone(),
            duplicate_genes: match self.duplicate_genes {
                DuplicateGenes::Refuse => Duplicates::Refuse,
                DuplicateGenes::Sum => Duplicates::Sum,
            },
            fractional_counts: self.fractional_counts,
            ..DataSpec::new(path, batch_key)
        }
    }

    /// These cells as a reference sees them: with the fields that it took, and its labels where the file has them. Without
    /// `batch_key` the batches are named by the reference's column.
    ///
    /// # Errors  [`Error::UnknownField`], and those of [`DataSpec::seen_through`]
    pub fn seen_through(&self, path: &Path, batch_key: Option<&str>, card: &BaseCard) -> Result<DataSpec> {
        let spec = self.spec(path, batch_key.unwrap_or(&card.batch_key));
        DataSpec { takes: Blueprint::of_card(card)?.model.fields(), ..spec.clone() }.check_names(&card.model)?;
        spec.seen_through(card)
    }
}

/// What to do with repeated genes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum DuplicateGenes {
    /// It is an error.
    Refuse,
    /// Add their counts.
    Sum,
}

/// Where to compute.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum DeviceArg {
    /// A CUDA device where there is one.
    Auto,
    /// The processor: repeated runs give the same bits.
    Cpu,
}

impl From<DeviceArg> for Device {
    fn from(device: DeviceArg) -> Self {
        match device {
            DeviceArg::Auto => Self::best(),
            DeviceArg::Cpu => Self::Cpu,
        }
    }
}

/// Where and how to compute.
#[derive(Args, Clone, Copy, Debug)]
pub struct ComputeArgs {
    /// Where to compute.
    #[arg(long, value_enum, default_value_t = DeviceArg::Auto)]
    pub device: DeviceArg,
    /// Who computes losses and gradients.
    #[arg(long, value_enum, default_value_t = EngineArg::Fast)]
    pub engine: EngineArg,
}

/// Who computes losses and gradients.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum EngineArg {
    /// Kernels of our own on the processor, for the models and options they know; else autograd.
    Fast,
    /// libtorch's autograd, the reference implementation: slower, the same up to rounding.
    Autograd,
}

impl From<EngineArg> for Engine {
    fn from(engine: EngineArg) -> Self {
        match engine {
            EngineArg::Fast => Self::Fast,
            EngineArg::Autograd => Self::Autograd,
        }
    }
}

impl From<ComputeArgs> for Compute {
    fn from(args: ComputeArgs) -> Self {
        Self { device: args.device.into(), engine: args.engine.into() }
    }
}

/// A reference directory, opened and verified, with what it holds.
pub struct OpenReference {
    /// The directory.
    pub dir: ReferenceDir,
    /// The reference.
    pub reference: Reference,
}

impl OpenReference {
    /// Opens a directory that `train`, `map` or `reference fetch` wrote.
    ///
    /// # Errors  [`Error::Reference`]
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |source| Error::Reference { path: path.into(), source };
        let dir = ReferenceDir::open(path).map_err(failed)?;
        let (base, columns) = (dir.base().map_err(failed)?, dir.columns().map_err(failed)?);
        let parts = dir.parts(&base.card.layout).map_err(failed)?;
        let reference = Reference { base, columns, parts, local: crate::local::read(path)? };
        Ok(Self { dir, reference })
    }
}
