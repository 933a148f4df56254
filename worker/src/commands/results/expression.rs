//! Normalised expression: what the model expects of each cell and gene, free of noise.

use std::{path::PathBuf, str::FromStr};

use archipelago_models::results::{ExpressionAsk, LibraryAsk};
use clap::Args;

use super::{Asked, Written, features::positions};
use crate::{error::Result, output::Output, table::NamedMatrix};

/// Normalised expression of each cell.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
    archipelago-worker results expression reference cells.h5ad --genes CD3D,LYZ --library-size 10000 --out x.csv")]
pub(super) struct ExpressionArgs {
    #[command(flatten)]
    asked: Asked,
    /// The file to write: h5ad (as `X`) or csv.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Decode every cell as if it came from these batches of the reference, and average over them [default: its own]
    #[arg(long)]
    transform_batch: Vec<String>,
    /// Draws per cell that are averaged.
    #[arg(long, default_value_t = 1)]
    n_samples: usize,
    /// What a cell's expression adds up to: a number, or `latent` for its own library size.
    #[arg(long, default_value = "1")]
    library_size: LibrarySize,
    /// Write these genes only, separated by commas [default: all of the panel]
    #[arg(long)]
    genes: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
struct LibrarySize(LibraryAsk);

impl FromStr for LibrarySize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "latent" {
            return Ok(Self(LibraryAsk::Latent));
        }
        match text.parse() {
            Ok(size) if f64::is_finite(size) && size > 0.0 => Ok(Self(LibraryAsk::Scaled(size))),
            _ => Err("expected a number above 0, or `latent`".to_owned()),
        }
    }
}

pub(super) fn run(args: &ExpressionArgs, output: &Output) -> Result<()> {
    let known = args.asked.known.open(output)?;
    let genes = positions(&known.reference().base.card.genes, &args.genes)?;
    let results = known.count_results(args.asked.seed)?;
    let ask = ExpressionAsk {
        transform: known.codes(&args.asked, &results, &args.transform_batch)?,
        library: args.library_size.0,
        n_samples: args.n_samples,
    };
    let expression = results.expression(&ask);
    let values: Vec<f32> =
        expression.rows().into_iter().flat_map(|row| genes.iter().map(|&gene| row[gene]).collect::<Vec<_>>()).collect();
    let panel = &known.reference().base.card.genes;
    let columns: Vec<String> = genes.iter().map(|&gene| panel[gene].clone()).collect();
    let rows = known.data.obs();
    NamedMatrix { rows_are: "cell", rows: &rows, columns: &columns, values: &values }.write(&args.out)?;
    output.show(&Written {
        out: args.out.clone(),
        version: known.open.dir.version().id(),
        what: "expression",
        n_rows: rows.n_rows(),
        n_columns: columns.len(),
    });
    Ok(())
}
