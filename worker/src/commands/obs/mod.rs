//! `obs`: what a file says of its cells is changed, and which cells it holds.

mod condition;
mod edit;
mod joined;

use std::{fmt, path::PathBuf};

use clap::Args;
use serde::Serialize;

use self::{
    condition::Condition,
    edit::{Kind, Named},
};
use super::file::FileArgs;
use crate::{
    error::{Error, Result},
    output::Output,
};

/// Change what an h5ad file says of its cells (`obs`), and choose among them. Whatever order the flags have, these are the steps: join,
/// rename, set, paste, map, cast, drop, where, min-cells, sample.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    archipelago-worker obs cells.h5ad --set batch=atlas --out atlas.h5ad\n  \
    archipelago-worker obs cells.h5ad --join donors.csv --join-on donor --paste batch=site,donor --out cells2.h5ad\n  \
    archipelago-worker obs cells.h5ad --map cell_type=coarse.csv --where \"n_counts > 500 and cell_type in (B, NK)\" \\\n      \
    --min-cells cell_type=10 --sample 5000 --seed 1 --in-place")]
pub struct ObsArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Add the columns of a table (CSV, or TSV by its name) whose first column names the cells.
    #[arg(long, value_name = "FILE")]
    join: Vec<PathBuf>,
    /// The tables' first column holds values of this obs column, such as donors, and not names of cells.
    #[arg(long, value_name = "COLUMN", requires = "join")]
    join_on: Option<String>,
    /// Give a column another name.
    #[arg(long, value_name = "OLD=NEW")]
    rename: Vec<Named<String>>,
    /// The same value for every cell, such as one batch.
    #[arg(long, value_name = "COLUMN=VALUE")]
    set: Vec<Named<String>>,
    /// A column of the values of others, with `_` between them.
    #[arg(long, value_name = "COLUMN=A,B")]
    paste: Vec<Named<String>>,
    /// Replace values by a table (CSV or TSV) of old and new ones; those that are not in it stay.
    #[arg(long, value_name = "COLUMN=FILE")]
    map: Vec<Named<PathBuf>>,
    /// Make a column `category`, `text`, `integer`, `number` or `bool`.
    #[arg(long, value_name = "COLUMN=KIND")]
    cast: Vec<Named<Kind>>,
    /// Take columns out.
    #[arg(long, value_name = "COLUMN")]
    drop: Vec<String>,
    /// Keep the cells for which this holds: `=`, `!=`, `<`, `<=`, `>`, `>=`, `in (A, B)`, `is missing`, `and`, `or`, `not`, brackets. Names
    /// and values with spaces stand in double quotes.
    #[arg(long = "where", value_name = "CONDITION")]
    condition: Option<Condition>,
    /// Keep the cells of values that at least so many cells have.
    #[arg(long, value_name = "COLUMN=N")]
    min_cells: Vec<Named<usize>>,
    /// Keep so many cells, drawn at random; a number below 1 is a share.
    #[arg(long, value_name = "N")]
    sample: Option<f64>,
    /// Seed of the draw.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// What came of it.
#[derive(Serialize)]
struct Summary {
    out: PathBuf,
    n_cells: [usize; 2],
    columns: Vec<String>,
    /// Cells that were not in each table.
    not_joined: Vec<usize>,
}

/// Runs the command.
///
/// # Errors  [`Error::Cells`], [`Error::File`], [`Error::Table`], [`Error::NothingLeft`]
pub fn run(args: &ObsArgs, output: &Output) -> Result<()> {
    let mut adata = args.file.read(output)?;
    let n_before = adata.n_obs();
    let not_joined = args.change(&mut adata.obs).map_err(|error| args.file.within(error))?;
    let kept = args.choose(&adata.obs).map_err(|error| args.file.within(error))?;
    if kept.is_empty() {
        return Err(Error::NothingLeft { what: "cell", n: n_before, step: "obs" });
    }
    if kept.len() < n_before {
        adata = adata.select_obs(&kept).map_err(|error| args.file.within(error.into()))?;
    }
    let out = args.file.write(&adata, output)?;
    output.show(&Summary { out, n_cells: [n_before, kept.len()], columns: adata.obs.column_names(), not_joined });
    Ok(())
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "written     {}", self.out.display())?;
        writeln!(f, "cells       {} of {}", self.n_cells[1], self.n_cells[0])?;
        write!(f, "columns     {}", self.columns.join(", "))?;
        for n in self.not_joined.iter().filter(|n| **n > 0) {
            write!(f, "\nnot joined  {n} cells were not in the table, and have no value")?;
        }
        Ok(())
    }
}
