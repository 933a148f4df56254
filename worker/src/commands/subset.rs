//! `subset`: some of the cells and genes of a file.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    path::PathBuf,
};

use archipelago_anndata::{AnnData, names};
use archipelago_common::fs;
use clap::Args;
use serde::Serialize;

use super::file::FileArgs;
use crate::{
    error::{Error, Result},
    lists,
    output::Output,
};

/// Keep some of the cells or genes of an h5ad file, with everything that belongs to them.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    archipelago-worker subset cells.h5ad --obs cell_type=B,NK --out lymphocytes.h5ad\n  \
    archipelago-worker subset cells.h5ad --not-obs batch=10x_5p --genes CD3D,LYZ,MS4A1 --out markers.h5ad")]
pub struct SubsetArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Keep cells whose obs column has one of the values: `column=a,b`. Several conditions must all hold.
    #[arg(long, value_name = "COLUMN=VALUES", value_parser = parse_condition)]
    obs: Vec<Condition>,
    /// Leave out cells whose obs column has one of the values: `column=a,b`.
    #[arg(long, value_name = "COLUMN=VALUES", value_parser = parse_condition)]
    not_obs: Vec<Condition>,
    /// Keep these genes, in this order, separated by commas.
    #[arg(long, conflicts_with = "genes_file")]
    genes: Vec<String>,
    /// Keep the genes of this file, one per line, in its order.
    #[arg(long, value_name = "FILE")]
    genes_file: Option<PathBuf>,
    /// Keep genes whose var column is true, such as `highly_variable`.
    #[arg(long, value_name = "COLUMN")]
    var: Option<String>,
}

/// A column and some of its values, as they were typed.
#[derive(Clone, Debug)]
struct Condition {
    column: String,
    values: String,
}

/// What came of it.
#[derive(Serialize)]
struct Summary {
    out: PathBuf,
    n_cells: [usize; 2],
    n_genes: [usize; 2],
}

/// Runs the command.
///
/// # Errors  [`Error::Cells`], [`Error::UnknownValue`], [`Error::NothingLeft`]
pub fn run(args: &SubsetArgs, output: &Output) -> Result<()> {
    let adata = args.file.read(output)?;
    let (n_cells, n_genes) = (adata.n_obs(), adata.n_vars());
    let adata = args.select(adata, output).map_err(|error| args.file.within(error))?;
    let out = args.file.write(&adata, output)?;
    output.show(&Summary { out, n_cells: [n_cells, adata.n_obs()], n_genes: [n_genes, adata.n_vars()] });
    Ok(())
}

impl SubsetArgs {
    fn select(&self, adata: AnnData, output: &Output) -> Result<AnnData> {
        let mut kept = vec![true; adata.n_obs()];
        for (condition, wanted) in self.obs.iter().map(|c| (c, true)).chain(self.not_obs.iter().map(|c| (c, false))) {
            let holds = condition.holds(&adata, output)?;
            kept.iter_mut().zip(holds).for_each(|(kept, holds)| *kept &= holds == wanted);
        }
        let rows: Vec<usize> = (0..kept.len()).filter(|&row| kept[row]).collect();
        if rows.is_empty() {
            return Err(Error::NothingLeft { what: "cell", n: adata.n_obs(), step: "subset" });
        }
        let adata = if rows.len() < adata.n_obs() { adata.select_obs(&rows)? } else { adata };
        match self.columns(&adata)? {
            Some(columns) if columns.is_empty() => {
                Err(Error::NothingLeft { what: "gene", n: adata.n_vars(), step: "subset" })
            }
            Some(columns) => Ok(adata.select_vars(&columns)?),
            None => Ok(adata),
        }
    }

    fn columns(&self, adata: &AnnData) -> Result<Option<Vec<usize>>> {
        let position: HashMap<&str, usize> = adata.var_names().iter().map(String::as_str).zip(0..).collect();
        let mut genes = lists::among(&self.genes, |gene| position.contains_key(gene).then(|| gene.to_owned()));
        if let Some(path) = &self.genes_file {
            let bytes = fs::read_bounded(path, GENES_BYTES)?;
            let text = String::from_utf8_lossy(&bytes);
            genes.extend(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned));
        }
        let mut columns = None;
        if !genes.is_empty() {
            let missing: Vec<&String> = genes.iter().filter(|gene| !position.contains_key(gene.as_str())).collect();
            if let Some(gene) = missing.first() {
                return Err(Error::NoGene { gene: (*gene).clone(), n_missing: missing.len() });
            }
            // A name of several genes would choose one of them.
            let asked: HashSet<&str> = genes.iter().map(String::as_str).collect();
            let named = adata.var_names().iter().filter(|gene| asked.contains(gene.as_str()));
            let (n_duplicated, examples) = names::repeated(named);
            if n_duplicated > 0 {
                return Err(
                    archipelago_anndata::Error::DuplicateGenes { of: "the file", n_duplicated, examples }.into()
                );
            }
            columns = Some(genes.iter().map(|gene| position[gene.as_str()]).collect::<Vec<_>>());
        }
        if let Some(name) = &self.var {
            let column = adata.var.column(name)?;
            let is_true = column.to_f64().ok_or_else(|| archipelago_anndata::Error::Kind {
                name: name.clone(),
                found: column.kind(),
                expected: "true and false",
            })?;
            let chosen = columns.unwrap_or_else(|| (0..adata.n_vars()).collect());
            columns = Some(chosen.into_iter().filter(|&gene| is_true[gene] > 0.0).collect());
        }
        Ok(columns)
    }
}

impl Condition {
    /// Whether each cell has one of the values. What was read as one value although it has a comma is said.
    fn holds(&self, adata: &AnnData, output: &Output) -> Result<Vec<bool>> {
        let values = adata.obs.column(&self.column)?.to_strings();
        let asked = lists::of_column(std::slice::from_ref(&self.values), &self.column, &values)?;
        for value in asked.iter().filter(|value| value.contains(',')) {
            output.note(format_args!("note: `{value}` is one value of `{}`", self.column));
        }
        Ok(values.iter().map(|value| value.as_ref().is_some_and(|value| asked.contains(value))).collect())
    }
}

/// `column=a,b`.
fn parse_condition(text: &str) -> Result<Condition, String> {
    let (column, values) = text.split_once('=').ok_or("expected `column=value,value`")?;
    Ok(Condition { column: column.to_owned(), values: values.to_owned() })
}

/// A list of every gene of a genome is a megabyte.
const GENES_BYTES: u64 = 16 << 20;

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "written     {}", self.out.display())?;
        writeln!(f, "cells       {} of {}", self.n_cells[1], self.n_cells[0])?;
        write!(f, "genes       {} of {}", self.n_genes[1], self.n_genes[0])
    }
}
