//! Marker genes by label.

use std::path::PathBuf;

use archipelago_analysis::plot::DotPlot;
use archipelago_anndata::AnnData;
use clap::Args;

use super::PictureArgs;
use crate::{
    cells::{gene_position, labels, view},
    colours::MISSING,
    commands::file::{read, within},
    error::{Error, Result},
    expression, lists,
    output::Output,
};

/// Genes by category: the share of cells with the gene as area, its mean as colour.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
    archipelago-worker plot dots clean.h5ad --genes MS4A1,CD3D,LYZ,GNLY --groupby cell_type --out markers.svg")]
pub(super) struct DotsArgs {
    /// The h5ad file.
    file: PathBuf,
    /// The genes, separated by commas.
    #[arg(long, required = true)]
    genes: Vec<String>,
    /// The obs column of the category.
    #[arg(long, value_name = "COLUMN")]
    groupby: String,
    /// The layer that holds expression [default: X]
    #[arg(long)]
    layer: Option<String>,
    #[command(flatten)]
    picture: PictureArgs,
}

pub(super) fn dots(args: &DotsArgs, output: &Output) -> Result<()> {
    args.picture.check()?;
    let adata = read(&args.file, output)?;
    let draw = || {
        let genes = positions(&adata, &args.genes)?;
        let groups = labels(&adata.obs, &args.groupby, MISSING)?;
        let expression = expression::log_normalised(&adata, args.layer.as_deref(), output)?;
        let expression = view(&expression)?;
        let plot = DotPlot { title: &args.groupby, expression, labels: &groups, genes: &genes };
        Ok(plot.panel(&args.picture.theme())?)
    };
    let panel = draw().map_err(|error| within(&args.file, error))?;
    args.picture.write(&[panel], output)
}

fn positions(adata: &AnnData, genes: &[String]) -> Result<Vec<(String, usize)>> {
    let is_known = |name: &str| adata.var_names().iter().any(|gene| gene == name);
    let genes = lists::among(genes, |name| is_known(name).then(|| name.to_owned()));
    let found = genes.iter().map(|gene| gene_position(adata, gene)).collect::<Result<Vec<_>>>()?;
    let missing: Vec<&String> = genes.iter().zip(&found).filter(|(_, at)| at.is_none()).map(|(gene, _)| gene).collect();
    if let Some(gene) = missing.first() {
        return Err(Error::NoGene { gene: (*gene).clone(), n_missing: missing.len() });
    }
    Ok(genes.into_iter().zip(found.into_iter().flatten()).collect())
}
