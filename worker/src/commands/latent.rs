//! `latent`: positions of cells that a reference already knows the batches of.

use std::{
    fmt::{self, Write as _},
    path::{Path, PathBuf},
};

use archipelago_anndata::{Array, Column, Compression, Element};
use archipelago_common::{
    condition::ConditionKey,
    fs,
    id::{Name, SiteId, VersionId},
};
use archipelago_models::{Categorical, CellConditions, Cells, Latent, Reference};
use clap::Args;
use serde::Serialize;

use super::{CellArgs, DeviceArg, OpenReference};
use crate::{
    data::SiteData,
    error::{Error, Result},
    mapping::{OBS_KEY, OBSM_KEY},
    output::Output,
    results::csv_field,
};

/// Compute the latent representation of cells whose batches are conditions of the reference.
///
/// A batch is found by its name among the reference's conditions; `--owner` and `--dataset` choose where several have it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    archipelago-worker latent reference cells.h5ad --batches 10x_3pv1 --out latent.h5ad\n  \
    archipelago-worker latent reference cells.h5ad --out latent.csv")]
pub struct LatentArgs {
    /// The reference directory.
    reference: PathBuf,
    /// The h5ad file.
    file: PathBuf,
    /// The file to write: h5ad (the cells with `obsm['X_archipelago']`) or csv (mean and variance).
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The obs column that names the batch [default: as in the reference]
    #[arg(long)]
    batch_key: Option<String>,
    #[command(flatten)]
    cells: CellArgs,
    /// Look for the batches among the conditions of this owner.
    #[arg(long)]
    owner: Option<SiteId>,
    /// Look for the batches among the conditions of this data set.
    #[arg(long)]
    dataset: Option<Name>,
    /// Where to compute.
    #[arg(long, value_enum, default_value_t = DeviceArg::Auto)]
    device: DeviceArg,
}

/// What came of it.
#[derive(Serialize)]
struct Summary {
    out: PathBuf,
    version: VersionId,
    n_cells: usize,
    n_latent: usize,
    elbo: f64,
    reconstruction: f64,
}

/// Runs the command.
///
/// # Errors  [`Error::Reference`], [`Error::Cells`], [`Error::NoCondition`], [`Error::AmbiguousBatch`]
pub fn run(args: &LatentArgs, output: &Output) -> Result<()> {
    let OpenReference { dir, reference } = OpenReference::open(&args.reference)?;
    let card = &reference.base.card;
    let batch_key = args.batch_key.as_deref().unwrap_or(&card.batch_key);
    let data = SiteData::open(args.cells.spec(&args.file, batch_key, Some(card)))?;
    let aligned = data.counts(&card.genes)?;
    let mut cells = Cells::new(&aligned.counts);
    let labels = data.labels().and_then(|labels| labels.iter().cloned().collect::<Option<Vec<_>>>());
    cells.labels = labels.map(|labels| Categorical::from_values(&labels));
    let conditions = args.conditions(&data, &reference)?;
    let latent = reference.latent(&cells, &conditions, args.device.into())?;
    let fit = reference.evaluate(&cells, &conditions, 0, args.device.into())?;
    if args.out.extension().is_some_and(|extension| extension == "csv") {
        fs::write_atomic(&args.out, csv(&data, &latent).as_bytes())?;
    } else {
        write_h5ad(&args.out, &data, &conditions, &latent)?;
    }
    output.show(&Summary {
        out: args.out.clone(),
        version: dir.version().id(),
        n_cells: data.n_cells(),
        n_latent: latent.mean.ncols(),
        elbo: -fit.negative_elbo,
        reconstruction: fit.reconstruction,
    });
    Ok(())
}

impl LatentArgs {
    fn conditions(&self, data: &SiteData, reference: &Reference) -> Result<CellConditions> {
        let batches = Categorical::from_values(data.batches());
        let mut keys = Vec::new();
        for batch in batches.names() {
            keys.push((batch.as_str(), self.key_of(batch, reference)?));
        }
        let key_of =
            |batch: &str| Ok(keys.iter().find(|(name, _)| *name == batch).expect("every batch has a key").1.clone());
        Ok(CellConditions::from_batches(&batches, key_of)?)
    }

    fn key_of(&self, batch: &str, reference: &Reference) -> Result<ConditionKey> {
        let fits = |key: &&ConditionKey| {
            key.batch() == batch
                && self.owner.as_ref().is_none_or(|owner| owner == key.owner())
                && self.dataset.as_ref().is_none_or(|dataset| dataset == key.dataset())
        };
        let list = |keys: &[&ConditionKey]| keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
        let found: Vec<&ConditionKey> = reference.columns.keys().filter(fits).collect();
        match found.as_slice() {
            [key] => Ok((*key).clone()),
            [] => {
                let available = list(&reference.columns.keys().collect::<Vec<_>>());
                Err(Error::NoCondition { batch: batch.to_owned(), available })
            }
            several => Err(Error::AmbiguousBatch { batch: batch.to_owned(), candidates: list(several) }),
        }
    }
}

fn write_h5ad(path: &Path, data: &SiteData, conditions: &CellConditions, latent: &Latent) -> Result<()> {
    let failed = |source| Error::Cells { path: path.into(), source };
    let mut adata = data.read_cells()?;
    let positions: Vec<f32> = latent.mean.iter().copied().collect();
    let positions = Array::matrix(data.n_cells(), latent.mean.ncols(), positions).map_err(failed)?;
    adata.obsm.insert(OBSM_KEY.to_owned(), Element::Array(positions));
    let keys: Vec<String> =
        conditions.codes().iter().map(|&code| conditions.keys()[code as usize].to_string()).collect();
    adata.obs.insert(OBS_KEY, Column::categorical(&keys)).map_err(failed)?;
    adata.write(path, Compression::Gzip(4)).map_err(failed)
}

fn csv(data: &SiteData, latent: &Latent) -> String {
    let columns = |name: &str| (1..=latent.mean.ncols()).map(|i| format!(",{name}_{i}")).collect::<String>();
    let mut text = format!("cell{}{}\n", columns("mean"), columns("var"));
    for ((cell, mean), var) in data.cell_names().zip(latent.mean.rows()).zip(latent.var.rows()) {
        text += &csv_field(cell);
        for value in mean.iter().chain(var) {
            write!(text, ",{value}").expect("text takes text");
        }
        text.push('\n');
    }
    text
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "latent      {}", self.out.display())?;
        writeln!(f, "version     {}", self.version)?;
        writeln!(f, "cells       {} × {} dimensions", self.n_cells, self.n_latent)?;
        writeln!(f, "ELBO        {:.3} per cell", self.elbo)?;
        write!(f, "likelihood  {:.3} per cell (negative log)", self.reconstruction)
    }
}
