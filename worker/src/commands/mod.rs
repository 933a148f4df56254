//! One file per command: its flags, its work, its result.

use std::path::Path;

use archipelago_anndata::align::Duplicates;
use archipelago_common::{BaseCard, reference_dir::ReferenceDir};
use archipelago_models::{Compute, Device, Engine, Reference, model::Model, zoo};
use clap::{Args, ValueEnum};

use crate::{
    data::DataSpec,
    error::{Error, Result},
    proteins::ProteinSource,
};

pub mod audit;
pub mod completions;
pub mod concat;
pub mod export;
pub mod file;
pub mod generate;
pub mod import;
pub mod inspect;
pub mod known;
pub mod latent;
pub mod leiden;
pub mod map;
pub mod metrics;
pub mod models;
pub mod neighbors;
pub mod pca;
pub mod placed;
pub mod plot;
pub mod predict;
pub mod preprocess;
pub mod report;
pub mod results;
pub mod serve;
pub mod subset;
pub mod train;
pub mod transfer;
pub mod tsne;
pub mod umap;

/// Which cells of a file.
#[derive(Args, Debug)]
pub struct CellArgs {
    /// The layer that holds raw counts [default: X]
    #[arg(long)]
    pub layer: Option<String>,
    /// The obs column that names cell types.
    #[arg(long)]
    pub labels_key: Option<String>,
    /// The obs column of size factors, for a model that takes them [default: as in the reference]
    #[arg(long)]
    pub size_factor_key: Option<String>,
    #[command(flatten)]
    pub(super) proteins: ProteinArgs,
    /// Use these batches only, separated by commas [default: all]
    #[arg(long, value_delimiter = ',')]
    pub batches: Vec<String>,
    /// What to do with a gene that the file names more than once.
    #[arg(long, value_enum, default_value_t = DuplicateGenes::Refuse)]
    pub duplicate_genes: DuplicateGenes,
}

impl CellArgs {
    /// These cells of a file whose batches are named by `batch_key`.
    pub fn spec(&self, path: &Path, batch_key: &str) -> DataSpec {
        DataSpec {
            layer: self.layer.clone(),
            labels_key: self.labels_key.clone(),
            size_factor_key: self.size_factor_key.clone(),
            proteins: self.proteins.source(),
            without_proteins: self.proteins.without_proteins,
            modality: self.proteins.rna_modality.clone(),
            batches: self.batches.clone(),
            duplicate_genes: match self.duplicate_genes {
                DuplicateGenes::Refuse => Duplicates::Refuse,
                DuplicateGenes::Sum => Duplicates::Sum,
            },
            ..DataSpec::new(path, batch_key)
        }
    }

    /// These cells as a reference sees them: with its covariates, and its labels where the file has them. Without
    /// `batch_key` the batches are named by the reference's column.
    ///
    /// # Errors  [`Error::Models`] if the reference's card cannot be read
    pub fn seen_through(&self, path: &Path, batch_key: Option<&str>, card: &BaseCard) -> Result<DataSpec> {
        self.proteins.check(zoo::model(&card.model)?)?;
        self.spec(path, batch_key.unwrap_or(&card.batch_key)).seen_through(card)
    }
}

/// Where proteins are, for a model that takes them.
#[derive(Args, Debug)]
pub struct ProteinArgs {
    /// The key of obsm that holds protein counts [default: as in the reference]
    #[arg(long)]
    pub protein_obsm_key: Option<String>,
    /// The key of uns that holds the proteins' names [default: the names of the columns]
    #[arg(long, requires = "protein_obsm_key")]
    pub protein_names_uns_key: Option<String>,
    /// The modality of an h5mu file that holds protein counts [default: as in the reference]
    #[arg(long, conflicts_with = "protein_obsm_key")]
    pub protein_modality: Option<String>,
    /// The modality of an h5mu file that holds RNA counts [default: rna]
    #[arg(long)]
    pub rna_modality: Option<String>,
    /// The cells have no proteins: all of the reference's are missing, and can be imputed.
    #[arg(long, conflicts_with_all = ["protein_obsm_key", "protein_modality"])]
    pub without_proteins: bool,
}

impl ProteinArgs {
    fn source(&self) -> Option<ProteinSource> {
        let (key, names) = (self.protein_obsm_key.clone(), self.protein_names_uns_key.clone());
        let obsm = key.map(|key| ProteinSource::Obsm { key, names });
        obsm.or_else(|| self.protein_modality.clone().map(ProteinSource::Modality))
    }

    /// Refuses what a model is told in vain.
    ///
    /// # Errors  [`Error::Setting`] for proteins of a model that takes none
    pub fn check(&self, model: &dyn Model) -> Result<()> {
        let given = self.protein_obsm_key.as_ref().or(self.protein_modality.as_ref());
        match given.filter(|_| !model.takes_proteins()) {
            None => Ok(()),
            Some(found) => Err(Error::Setting {
                what: "--protein-obsm-key",
                found: format!("`{found}`"),
                expected: "nothing: the model does not take proteins",
            }),
        }
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
        let reference = Reference { base: dir.base().map_err(failed)?, columns: dir.columns().map_err(failed)? };
        Ok(Self { dir, reference })
    }
}
