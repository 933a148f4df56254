//! Observed labels beside others.

use std::path::PathBuf;

use archipelago_analysis::{
    metrics::Confusion,
    plot::{Heatmap, Sankey},
};
use clap::Args;

use super::PictureArgs;
use crate::{
    cells::labels,
    colours::{self, MISSING},
    commands::file::{read, within},
    error::Result,
    output::Output,
};

/// Where the cells of each observed label went, as a matrix of shares.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
    archipelago-worker plot confusion labelled.h5ad --observed cell_type --predicted cell_type_transferred_label --out confusion.png")]
pub(super) struct ConfusionArgs {
    #[command(flatten)]
    columns: ColumnArgs,
    #[command(flatten)]
    picture: PictureArgs,
}

/// Where the cells of each observed label went, as a flow.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
    archipelago-worker plot sankey labelled.h5ad --observed cell_type --predicted cell_type_transferred_label --out flow.svg")]
pub(super) struct SankeyArgs {
    #[command(flatten)]
    columns: ColumnArgs,
    #[command(flatten)]
    picture: PictureArgs,
}

#[derive(Args, Debug)]
struct ColumnArgs {
    /// The h5ad file.
    file: PathBuf,
    /// The obs column of the observed labels.
    #[arg(long, value_name = "COLUMN")]
    observed: String,
    /// The obs column of the predicted labels.
    #[arg(long, value_name = "COLUMN")]
    predicted: String,
}

pub(super) fn confusion(args: &ConfusionArgs, output: &Output) -> Result<()> {
    args.picture.check()?;
    let ColumnArgs { file, observed, predicted } = &args.columns;
    let adata = read(file, output)?;
    let draw = || {
        let (truth, found) = (labels(&adata.obs, observed, MISSING)?, labels(&adata.obs, predicted, MISSING)?);
        let title = format!("{observed} by {predicted}");
        Ok(Heatmap { title: &title, confusion: &Confusion::new(&truth, &found)? }.panel(&args.picture.theme())?)
    };
    let panel = draw().map_err(|error| within(file, error))?;
    args.picture.write(&[panel], output)
}

pub(super) fn sankey(args: &SankeyArgs, output: &Output) -> Result<()> {
    args.picture.check()?;
    let ColumnArgs { file, observed, predicted } = &args.columns;
    let adata = read(file, output)?;
    let draw = || {
        let (left, right) = (labels(&adata.obs, observed, MISSING)?, labels(&adata.obs, predicted, MISSING)?);
        let palette = colours::joint_palette(&adata, &[observed, predicted])?;
        let subtitle = format!("{observed} → {predicted}");
        let sankey = Sankey { title: "Labels", subtitle: &subtitle, left: &left, right: &right, palette: &palette };
        Ok(sankey.panel(&args.picture.theme())?)
    };
    let panel = draw().map_err(|error| within(file, error))?;
    args.picture.write(&[panel], output)
}
