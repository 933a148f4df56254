//! Observed labels beside others.

use std::path::PathBuf;

use archipelago_analysis::{
    metrics::Confusion,
    plot::{Heatmap, Sankey, ShareTable},
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
    archipelago-worker plot confusion labelled.h5ad --observed cell_type --predicted cell_type_transferred_label --out confusion.png\n  \
    archipelago-worker plot confusion placed.h5ad --observed cell_type --predicted tree_label --observed-order B,T,NK --out tree.png")]
pub(super) struct ConfusionArgs {
    #[command(flatten)]
    columns: ColumnArgs,
    /// Observed labels to show, in this order, separated by commas; one that no cell has is a row of zeros [default: all that
    /// occur, by name]
    #[arg(long, value_name = "LABELS", value_delimiter = ',')]
    observed_order: Vec<String>,
    /// Predicted labels to show, in the same way.
    #[arg(long, value_name = "LABELS", value_delimiter = ',')]
    predicted_order: Vec<String>,
    /// Show observed labels as columns.
    #[arg(long)]
    transpose: bool,
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
        let (confusion, theme) = (Confusion::new(&truth, &found)?, args.picture.theme());
        if args.observed_order.is_empty() && args.predicted_order.is_empty() && !args.transpose {
            return Ok(Heatmap { title: &title, confusion: &confusion }.panel(&theme)?);
        }
        let chosen = |order: &[String]| if order.is_empty() { confusion.labels.clone() } else { order.to_vec() };
        let (rows, columns) = (chosen(&args.observed_order), chosen(&args.predicted_order));
        let place = |label: &String| confusion.labels.iter().position(|known| known == label);
        let count = |row: &String, column: &String| {
            place(row).zip(place(column)).map_or(0, |(row, column)| confusion.counts[row][column])
        };
        let counts: Vec<Vec<u64>> =
            rows.iter().map(|row| columns.iter().map(|column| count(row, column)).collect()).collect();
        let subtitle = match args.transpose {
            false => "share of each observed label (row) by predicted label (column)",
            true => "share of each observed label (column) by predicted label (row)",
        };
        let of_row = |row: &String| place(row).map_or(0, |row| confusion.counts[row].iter().sum());
        let totals: Vec<u64> = rows.iter().map(of_row).collect();
        let (rows, columns) = (&rows[..], &columns[..]);
        let table = ShareTable { title: &title, subtitle, rows, columns, counts: &counts, totals: &totals };
        Ok(if args.transpose { table.transposed(&theme)? } else { table.panel(&theme)? })
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
