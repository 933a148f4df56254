//! Cells in the plane, and distributions of numbers.

use std::path::PathBuf;

use archipelago_analysis::{
    Labels,
    plot::{Colouring, Palette, Panel, Scatter, Theme, Violin},
};
use archipelago_anndata::{AnnData, Column};
use clap::Args;

use super::PictureArgs;
use crate::{
    cells::{embedding as embedding_of, gene_position, labels},
    colours::{self, MISSING},
    commands::file::{read, within},
    error::{Error, Result},
    expression, lists,
    output::Output,
};

/// Cells in the plane, one panel per column of obs or gene.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
    archipelago-worker plot embedding cells.h5ad --basis X_umap --color cell_type,total_counts,CD3D --out umap.png\n  \
    archipelago-worker plot embedding cite.h5ad --color protein_expression:CD3 --out proteins.png")]
pub(super) struct EmbeddingArgs {
    /// The h5ad file.
    file: PathBuf,
    /// The element of obsm to draw; its first two dimensions are taken, or two that are named (`scores:TERM_1,TERM_2`).
    #[arg(long, value_name = "OBSM", default_value = "X_umap")]
    basis: String,
    /// What colours the cells, separated by commas: obs columns (by category or by number), genes, and columns of tables in
    /// obsm (`protein_expression:CD3`).
    #[arg(long, required = true)]
    color: Vec<String>,
    /// The layer that holds expression [default: X]
    #[arg(long)]
    layer: Option<String>,
    #[command(flatten)]
    picture: PictureArgs,
}

/// Distributions of numbers or genes by category, one panel each.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
    archipelago-worker plot violin clean.h5ad --values total_counts,pct_counts_mt,LYZ --groupby cell_type --out violin.png")]
pub(super) struct ViolinArgs {
    /// The h5ad file.
    file: PathBuf,
    /// Obs columns of numbers, genes, and columns of tables in obsm (`protein_expression:CD3`), separated by commas.
    #[arg(long, required = true)]
    values: Vec<String>,
    /// The obs column of the category.
    #[arg(long, value_name = "COLUMN")]
    groupby: String,
    /// The layer that holds expression [default: X]
    #[arg(long)]
    layer: Option<String>,
    #[command(flatten)]
    picture: PictureArgs,
}

/// What a name means in a file.
enum Shown {
    Categories { labels: Labels, palette: Palette },
    Numbers(Vec<f32>),
}

pub(super) fn embedding(args: &EmbeddingArgs, output: &Output) -> Result<()> {
    args.picture.check()?;
    let adata = read(&args.file, output)?;
    let draw = |name: &String| {
        let shown = shown(&adata, name, args.layer.as_deref(), output)?;
        scatter(&adata, &args.basis, name, &shown, &args.picture.theme())
    };
    let panels =
        named(&adata, &args.color).iter().map(draw).collect::<Result<Vec<_>>>().map_err(|e| within(&args.file, e))?;
    args.picture.write(&panels, output)
}

pub(super) fn violin(args: &ViolinArgs, output: &Output) -> Result<()> {
    args.picture.check()?;
    let adata = read(&args.file, output)?;
    let draw = || {
        let groups = labels(&adata.obs, &args.groupby, MISSING)?;
        let palette = colours::palette(&adata, &args.groupby)?;
        let panel = |name: &String| match shown(&adata, name, args.layer.as_deref(), output)? {
            Shown::Numbers(values) => {
                let is_gene = adata.obs.column(name).is_err() && adata.var_names().contains(name);
                let y_label = if is_gene { "log-normalised expression" } else { "" };
                let violin = Violin { title: name, y_label, values: &values, labels: &groups, palette: &palette };
                Ok(violin.panel(&args.picture.theme())?)
            }
            Shown::Categories { .. } => {
                let found = "categories".to_owned();
                Err(archipelago_anndata::Error::Kind { name: name.clone(), found, expected: "numbers" }.into())
            }
        };
        named(&adata, &args.values).iter().map(panel).collect::<Result<Vec<_>>>()
    };
    let panels = draw().map_err(|error| within(&args.file, error))?;
    args.picture.write(&panels, output)
}

/// What a list names in a file: columns, columns of tables, genes.
fn named(adata: &AnnData, asked: &[String]) -> Vec<String> {
    let is_of_table = |name: &str| of_table(adata, name).is_ok_and(|values| values.is_some());
    let is_known = |name: &str| {
        adata.obs.column(name).is_ok() || is_of_table(name) || adata.var_names().iter().any(|gene| gene == name)
    };
    lists::among(asked, |name| is_known(name).then(|| name.to_owned()))
}

/// An obs column where there is one of the name, else a column of a table in obsm, else a gene.
fn shown(adata: &AnnData, name: &str, layer: Option<&str>, output: &Output) -> Result<Shown> {
    if let Ok(column) = adata.obs.column(name) {
        let is_number = !matches!(column, Column::Categorical(_)) && !column.kind().contains("bool");
        return match column.to_f64().filter(|_| is_number) {
            Some(numbers) => Ok(Shown::Numbers(numbers.into_iter().map(|number| number as f32).collect())),
            None => {
                let palette = colours::palette(adata, name)?;
                Ok(Shown::Categories { labels: labels(&adata.obs, name, MISSING)?, palette })
            }
        };
    }
    if let Some(values) = of_table(adata, name)? {
        return Ok(Shown::Numbers(values));
    }
    let Some(gene) = gene_position(adata, name)? else {
        return Err(Error::NothingToShow { name: name.to_owned(), columns: adata.obs.column_names().join(", ") });
    };
    let expression = expression::log_normalised(adata, layer, output)?;
    Ok(Shown::Numbers((0..expression.n_rows()).map(|cell| expression.value(cell, gene as u32)).collect()))
}

/// A column of a table in obsm, by a name such as `protein_expression:CD3`; none where the name is no such.
fn of_table(adata: &AnnData, name: &str) -> Result<Option<Vec<f32>>> {
    let Some((key, column)) = name.split_once(':').filter(|(key, _)| adata.obsm.contains_key(*key)) else {
        return Ok(None);
    };
    let table = adata.obsm(key)?.to_table(key)?;
    let columns = table.columns.unwrap_or_else(|| (1..=table.n_cols).map(|number| number.to_string()).collect());
    let Some(at) = columns.iter().position(|known| known == column) else {
        return Err(Error::NothingToShow { name: name.to_owned(), columns: columns.join(", ") });
    };
    Ok(Some(table.values.chunks_exact(table.n_cols).map(|row| row[at]).collect()))
}

impl Shown {
    fn colouring(&self) -> Colouring<'_> {
        match self {
            Self::Categories { labels, palette } => Colouring::Categories { labels, palette },
            Self::Numbers(values) => Colouring::Values(values),
        }
    }
}

/// Cells by two named columns of a table in obsm.
fn named_scatter(
    adata: &AnnData,
    key: &str,
    axes: [&str; 2],
    (title, shown): (&str, &Shown),
    theme: &Theme,
) -> Result<Panel> {
    let column = |name: &str| {
        let name = format!("{key}:{name}");
        let nothing = || Error::NothingToShow {
            name: name.clone(),
            columns: adata.obsm.keys().cloned().collect::<Vec<_>>().join(", "),
        };
        of_table(adata, &name)?.ok_or_else(nothing)
    };
    let (across, upwards) = (column(axes[0])?, column(axes[1])?);
    let pairs: Vec<f32> = across.into_iter().zip(upwards).flat_map(|(x, y)| [x, y]).collect();
    let points = ndarray::ArrayView2::from_shape((pairs.len() / 2, 2), &pairs).expect("two numbers for each cell");
    Ok(Scatter { title, points, axes, colouring: shown.colouring() }.panel(theme)?)
}

fn scatter(adata: &AnnData, basis: &str, title: &str, shown: &Shown, theme: &Theme) -> Result<Panel> {
    if let Some((key, (across, upwards))) =
        basis.split_once(':').and_then(|(key, columns)| Some((key, columns.split_once(',')?)))
    {
        return named_scatter(adata, key, [across.trim(), upwards.trim()], (title, shown), theme);
    }
    let points = embedding_of(adata, basis)?;
    if points.ncols() < 2 {
        let (name, found) = (basis.to_owned(), format!("{} dimensions", points.ncols()));
        return Err(archipelago_anndata::Error::Kind { name, found, expected: "at least two dimensions" }.into());
    }
    let name = basis.strip_prefix("X_").unwrap_or(basis).to_uppercase();
    let axes = [format!("{name} 1"), format!("{name} 2")];
    let colouring = shown.colouring();
    let points = points.slice(ndarray::s![.., ..2]);
    Ok(Scatter { title, points, axes: [&axes[0], &axes[1]], colouring }.panel(theme)?)
}
