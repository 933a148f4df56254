//! Posterior predictive samples: counts drawn from what the model says about each cell.

use std::path::PathBuf;

use archipelago_anndata::{AnnData, DataFrame, Matrix};
use clap::Args;

use super::{Asked, Written};
use crate::{
    error::{Error, Result},
    output::Output,
    table::{CsvTable, TableFormat, write_h5ad},
};

/// Counts drawn from the posterior predictive distribution.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
    archipelago-worker results predictive reference cells.h5ad --n-samples 5 --out drawn.h5ad")]
pub(super) struct PredictiveArgs {
    #[command(flatten)]
    asked: Asked,
    /// The file to write: h5ad (the first sample as `X`, each as layer `sample_1`…) or csv (cell, gene, sample, count; zeros
    /// left out).
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Draws per cell and gene.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    n_samples: u32,
}

pub(super) fn run(args: &PredictiveArgs, output: &Output) -> Result<()> {
    let format = TableFormat::of(&args.out)?;
    let known = args.asked.known.open()?;
    let samples = known.count_results(args.asked.seed)?.posterior_predictive(args.n_samples as usize)?;
    let genes = &known.reference().base.card.genes;
    match format {
        TableFormat::Csv => {
            let mut table = CsvTable::new(["cell", "gene", "sample", "count"]);
            for (number, sample) in (1..).zip(&samples) {
                for (row, cell) in known.data.cell_names().enumerate() {
                    let (drawn, counts) = sample.row(row);
                    for (&gene, count) in drawn.iter().zip(counts) {
                        let gene = crate::results::csv_field(&genes[gene as usize]);
                        table.row(cell, [gene, i32::to_string(&number), count.to_string()]);
                    }
                }
            }
            table.write(&args.out)?;
        }
        TableFormat::H5ad => {
            let failed = |source| Error::Cells { path: args.out.clone(), source };
            let (obs, var) = (known.data.obs(), DataFrame::new(genes.iter().cloned()));
            let mut adata = AnnData::new(samples[0].clone(), obs, var).map_err(failed)?;
            for (number, sample) in (1..).zip(samples) {
                adata.layers.insert(format!("sample_{number}"), Matrix::from(sample));
            }
            write_h5ad(&args.out, &adata)?;
        }
    }
    output.show(&Written {
        out: args.out.clone(),
        version: known.open.dir.version().id(),
        what: "drawn",
        n_rows: known.data.n_cells(),
        n_columns: genes.len(),
    });
    Ok(())
}
