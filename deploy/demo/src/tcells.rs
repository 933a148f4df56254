//! T cells with receptors, for a model that takes some: real ones, since none are generated.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use archipelago_processes::run;

use crate::{
    args::Args,
    cells::{self, Cells},
};

/// What a reference takes of T cells when they have been prepared here.
pub(crate) const FIELDS: [&str; 2] = ["receptor=obs/receptor_alpha", "receptor=obs/receptor_beta"];

/// The T cells of blood and lung, those with both chains, normalised; two patients become sites.
///
/// # Errors  the file is not there
pub(crate) fn prepare(args: &Args, worker: &Path, dir: &Path) -> Result<Cells> {
    let shared = std::env::var_os("ARCHIPELAGO_SHARED").map_or_else(|| PathBuf::from("../shared"), PathBuf::from);
    let source = shared.join("data").join(FILE);
    let source = source.canonicalize().with_context(|| {
        format!(
            "the model takes receptors, and `{}` is not there: set ARCHIPELAGO_SHARED, or give --data and --field",
            source.display()
        )
    })?;
    let (complete, prepared) = (dir.join("complete.h5ad"), dir.join("tcells.h5ad"));
    let [source, complete_at, prepared_at] = [&source, &complete, &prepared].map(|path| path.display().to_string());
    let columns = ["--receptor", "obs/TRA_cdr3", "--receptor", "obs/TRB_cdr3"];
    run(worker, &[&["receptors", &source, "--out", &complete_at], &columns[..]].concat())?;
    run(worker, &["preprocess", &complete_at, "--normalize", "--out", &prepared_at])?;
    let query: Vec<String> = match args.query.is_empty() {
        true => SITES.map(str::to_owned).into(),
        false => args.query.clone(),
    };
    let cells = cells::split(&prepared, dir, BATCH_KEY, LABELS_KEY, None, &query)?;
    Ok(Cells { train: ["--max-tcr-length", LENGTH].map(str::to_owned).into(), ..cells })
}

/// Amino acids of a chain that the model looks at: the patients of the sites have longer ones than those of the reference.
const LENGTH: &str = "30";

/// Cells of patients with acute respiratory distress.
const FILE: &str = "tcr_lung_blood.h5ad";
const BATCH_KEY: &str = "donor";
const LABELS_KEY: &str = "source";
/// Patients whose cells stay at a site of their own.
const SITES: [&str; 2] = ["P17", "P18"];
