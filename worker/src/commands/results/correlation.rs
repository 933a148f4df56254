//! Correlation of features over denoised draws.

use std::path::PathBuf;

use archipelago_anndata::DataFrame;
use archipelago_models::results::{Correlation, CorrelationAsk};
use clap::{Args, ValueEnum};

use super::{Asked, Written, features::positions};
use crate::{error::Result, output::Output, table::NamedMatrix};

/// Correlation of each gene with each, free of noise and library size, and of what else the model decodes.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    archipelago-worker results correlation reference cells.h5ad --genes CD3D,CD3E,LYZ --out correlation.csv\n  \
    archipelago-worker results correlation reference cite.h5ad --genes CD3E,CD3_protein --log --out correlation.csv")]
pub(super) struct CorrelationArgs {
    #[command(flatten)]
    asked: Asked,
    /// The file to write: h5ad (features × features as `X`) or csv.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Decode every cell as if it came from these batches of the reference, and average over them [default: its own]
    #[arg(long)]
    transform_batch: Vec<String>,
    /// Draws per cell.
    #[arg(long, default_value_t = 10)]
    n_samples: usize,
    /// How genes are compared.
    #[arg(long, value_enum, default_value_t = Kind::Spearman)]
    kind: Kind,
    /// Compare logarithms of the draws.
    #[arg(long)]
    log: bool,
    /// Write these genes, and others such as `CD3_protein`, separated by commas [default: all of the panels]
    #[arg(long)]
    genes: Vec<String>,
}

/// How genes are compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Kind {
    /// By ranks.
    Spearman,
    /// By values.
    Pearson,
}

pub(super) fn run(args: &CorrelationArgs, output: &Output) -> Result<()> {
    let known = args.asked.known.open(output)?;
    let results = known.count_results(args.asked.seed)?;
    let features = results.feature_names();
    let chosen = positions(&features, &args.genes)?;
    let transform = known.codes(&args.asked, &results, &args.transform_batch)?;
    let kind = match args.kind {
        Kind::Spearman => Correlation::Spearman,
        Kind::Pearson => Correlation::Pearson,
    };
    let ask = CorrelationAsk { transform, n_samples: args.n_samples, kind, log: args.log };
    let matrix = results.feature_correlation(&ask);
    let pairs = chosen.iter().flat_map(|&row| chosen.iter().map(move |&column| (row, column)));
    let values: Vec<f32> = pairs.map(|(row, column)| matrix[[row, column]] as f32).collect();
    let names: Vec<String> = chosen.iter().map(|&feature| features[feature].clone()).collect();
    let rows = DataFrame::new(names.iter().cloned());
    NamedMatrix { rows_are: "gene", rows: &rows, columns: &names, values: &values }.write(&args.out)?;
    output.show(&Written {
        out: args.out.clone(),
        version: known.open.dir.version().id(),
        what: "correlation",
        n_rows: names.len(),
        n_columns: names.len(),
    });
    Ok(())
}
