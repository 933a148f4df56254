//! `import` and `export` for models whose package saves one archive, which says nothing of genes and conditions: the cells do.

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
};

use archipelago_anndata::H5adFile;
use archipelago_common::{condition::ConditionKey, fs, id::VersionId, reference_dir::ReferenceDir};
use archipelago_models::{
    Reference,
    formats::archive::SavedArchive,
    upstream::{DataAtHand, Namespace, archived, reference_to_archive},
};
use clap::Args;
use serde::Serialize;

use crate::{
    error::{Error, Result},
    existing,
    output::Output,
    results,
};

/// What a file lacks that names neither genes nor conditions.
#[derive(Args, Debug)]
pub(super) struct CellsAtHand {
    /// The h5ad file that the model was trained on, for a file that names neither genes nor conditions.
    #[arg(long, value_name = "FILE")]
    cells: Option<PathBuf>,
    /// The obs column of its conditions [default: as the file says]
    #[arg(long, requires = "cells")]
    batch_key: Option<String>,
}

/// What came of it.
#[derive(Serialize)]
struct Summary {
    out: PathBuf,
    version: VersionId,
    model: String,
    saved_by: &'static str,
    n_genes: usize,
    conditions: Vec<ConditionKey>,
}

/// What was exported.
#[derive(Serialize)]
struct Exported {
    out: PathBuf,
    version: VersionId,
    package: &'static str,
    n_tensors: usize,
    conditions: Vec<String>,
}

/// Writes the reference that an archive is.
///
/// # Errors  [`Error::Setting`] without the cells, [`Error::Cells`], [`Error::Models`]
pub(super) fn import(
    saved: &SavedArchive,
    at_hand: &CellsAtHand,
    namespace: &Namespace,
    out: &Path,
    output: &Output,
) -> Result<()> {
    let model = archived(saved)?;
    let data = at_hand.data(model.condition_column(saved))?;
    let reference = model.to_reference(saved, &data, namespace)?;
    fs::create_dir(out)?;
    existing::begin(out)?;
    let dir = ReferenceDir::write(out, &reference.base, &reference.columns)?;
    let summary = Summary {
        out: out.to_owned(),
        version: dir.version().id(),
        model: reference.base.card.model.clone(),
        saved_by: model.package(),
        n_genes: reference.base.card.genes.len(),
        conditions: reference.columns.keys().cloned().collect(),
    };
    results::write_json(&out.join(existing::SUMMARY), &summary)?;
    output.show(&summary);
    Ok(())
}

/// Writes a reference as an archive; whether it is of a model whose package saves one.
///
/// # Errors  [`Error::Models`]
pub(super) fn export(dir: &ReferenceDir, reference: &Reference, out: &Path, output: &Output) -> Result<bool> {
    let Some((saved, package)) = reference_to_archive(reference)? else { return Ok(false) };
    let (n_tensors, conditions) = (saved.tensors.len(), reference.columns.keys().map(ToString::to_string).collect());
    let out = saved.write(out)?;
    output.show(&Exported { out, version: dir.version().id(), package, n_tensors, conditions });
    Ok(true)
}

impl CellsAtHand {
    fn data(&self, column: Option<String>) -> Result<DataAtHand> {
        let Some(path) = &self.cells else {
            let (found, expected) = ("nothing".to_owned(), "the cells that the model was trained on");
            return Err(Error::Setting { what: "--cells", found, expected });
        };
        let failed = |source| Error::Cells { path: path.clone(), source };
        let file = H5adFile::open(path).map_err(failed)?;
        let (batch_key, names) = match self.batch_key.clone().or(column) {
            Some(key) => {
                let names = file.obs().column(&key).map_err(failed)?.to_strings();
                (key, names.into_iter().flatten().collect::<BTreeSet<String>>())
            }
            // A model without conditions: all its cells are of one.
            None => (String::new(), BTreeSet::from([ALL.to_owned()])),
        };
        Ok(DataAtHand { genes: file.var().index().to_vec(), batch_key, batches: names.into_iter().collect() })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "reference   {}", self.out.display())?;
        writeln!(f, "version     {}", self.version)?;
        writeln!(f, "model       {}, saved by {}", self.model, self.saved_by)?;
        writeln!(f, "genes       {}", self.n_genes)?;
        writeln!(f, "conditions  {}", self.conditions.len())?;
        self.conditions.iter().try_for_each(|key| writeln!(f, "  {key}"))
    }
}

impl fmt::Display for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "file        {}", self.out.display())?;
        writeln!(f, "package     {}", self.package)?;
        writeln!(f, "tensors     {}", self.n_tensors)?;
        write!(f, "conditions  {}", self.conditions.join(", "))
    }
}

/// The condition of cells that have none.
const ALL: &str = "all";
