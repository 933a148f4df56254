//! `concat`: several files of cells as one.

use std::{fmt, path::PathBuf};

use archipelago_anndata::{AnnData, Column, Join, concat};
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::file;
use crate::{
    error::{Error, Result},
    lists,
    output::Output,
};

/// Lay the cells of several h5ad files below each other, as `anndata.concat` does.
///
/// Layers, and elements of obsm, are kept where all files have them; var columns where all files agree about them.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
    archipelago-worker concat lab1.h5ad lab2.h5ad --join inner --label lab --keys north,south --out both.h5ad")]
pub struct ConcatArgs {
    /// The h5ad files.
    #[arg(required = true, num_args = 2..)]
    files: Vec<PathBuf>,
    /// The h5ad file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Which genes and obs columns the result has.
    #[arg(long, value_enum, default_value_t = JoinArg::Inner)]
    join: JoinArg,
    /// Write an obs column of this name that says which file a cell is from.
    #[arg(long, value_name = "COLUMN")]
    label: Option<String>,
    /// Names of the files in that column, separated by commas, or one flag each [default: the names of the files]
    #[arg(long)]
    keys: Vec<String>,
    /// Append `-` and the file's key to the name of each cell.
    #[arg(long)]
    index_unique: bool,
}

/// Which genes and columns are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum JoinArg {
    /// Those that all files have.
    Inner,
    /// Those that any file has; missing measurements are zero.
    Outer,
}

/// What came of it.
#[derive(Serialize)]
struct Summary {
    out: PathBuf,
    n_files: usize,
    n_cells: usize,
    n_genes: usize,
}

/// Runs the command.
///
/// # Errors  [`Error::Cells`], [`Error::Setting`] for another number of keys than files
pub fn run(args: &ConcatArgs, output: &Output) -> Result<()> {
    let keys = args.keys()?;
    let mut parts: Vec<AnnData> = Vec::with_capacity(args.files.len());
    for (path, key) in args.files.iter().zip(&keys) {
        let mut part = file::read(path, output)?;
        if let Some(label) = &args.label {
            part.obs.insert(label.as_str(), Column::categorical(&vec![key; part.n_obs()]))?;
        }
        if args.index_unique {
            part.obs.rename_rows(part.obs_names().iter().map(|cell| format!("{cell}-{key}")).collect())?;
        }
        parts.push(part);
    }
    let join = match args.join {
        JoinArg::Inner => Join::Inner,
        JoinArg::Outer => Join::Outer,
    };
    let all = concat(&parts, join)?;
    file::write(&args.out, &all, output)?;
    let (n_files, n_cells, n_genes) = (parts.len(), all.n_obs(), all.n_vars());
    output.show(&Summary { out: args.out.clone(), n_files, n_cells, n_genes });
    Ok(())
}

impl ConcatArgs {
    fn keys(&self) -> Result<Vec<String>> {
        if self.keys.is_empty() {
            let stem = |path: &PathBuf| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            return Ok(self.files.iter().map(stem).collect());
        }
        if self.keys.len() == self.files.len() {
            return Ok(self.keys.clone());
        }
        let keys = lists::split(&self.keys);
        if keys.len() != self.files.len() {
            let (found, expected) = (format!("{} names", keys.len()), "one name per file");
            return Err(Error::Setting { what: "--keys", found, expected });
        }
        Ok(keys)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "written     {}", self.out.display())?;
        write!(f, "data        {} cells × {} genes of {} files", self.n_cells, self.n_genes, self.n_files)
    }
}
