//! Posterior predictive samples: counts drawn from what the model says about each cell.

use std::path::PathBuf;

use archipelago_anndata::{AnnData, Csr, DataFrame, Matrix};
use archipelago_models::results::{CountResults, NamedBlock, Sample};
use clap::Args;

use super::{Asked, Written};
use crate::{
    commands::known::KnownCells,
    error::{Error, Result},
    output::Output,
    table::{CsvTable, TableFormat, write_h5ad},
};

/// Counts drawn from the posterior predictive distribution, of genes and what else the model decodes.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
    archipelago-worker results predictive reference cells.h5ad --n-samples 5 --out drawn.h5ad")]
pub(super) struct PredictiveArgs {
    #[command(flatten)]
    asked: Asked,
    /// The file to write: h5ad (the first sample as `X`, each as layer `sample_1`…, others than genes in obsm, such as
    /// `protein_sample_1`…) or csv (cell, gene, sample, count; zeros left out; a protein is the gene `<protein>_protein`).
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Draws per cell and gene.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    n_samples: u32,
}

pub(super) fn run(args: &PredictiveArgs, output: &Output) -> Result<()> {
    let format = TableFormat::of(&args.out)?;
    let known = args.asked.known.open(output)?;
    let results = known.count_results(args.asked.seed)?;
    let samples = results.posterior_predictive(args.n_samples as usize)?;
    match format {
        TableFormat::Csv => table(&known, &results, &samples).write(&args.out)?,
        TableFormat::H5ad => {
            let adata = annotated(&known, &results, samples);
            write_h5ad(&args.out, &adata.map_err(|source| Error::Cells { path: args.out.clone(), source })?)?;
        }
    }
    output.show(&Written {
        out: args.out.clone(),
        version: known.open.dir.version().id(),
        what: "drawn",
        n_rows: known.data.n_cells(),
        n_columns: results.n_features(),
    });
    Ok(())
}

fn table(known: &KnownCells, results: &CountResults<'_>, samples: &[Sample]) -> CsvTable {
    let names = results.feature_names();
    let mut table = CsvTable::new(["cell", "gene", "sample", "count"]);
    for (number, sample) in (1..).zip(samples) {
        for (row, cell) in known.data.cell_names().enumerate() {
            let mut start = 0;
            for block in sample {
                let (features, counts) = block.row(row);
                for (&feature, count) in features.iter().zip(counts) {
                    let name = crate::results::csv_field(&names[start + feature as usize]);
                    table.row(cell, [name, i32::to_string(&number), count.to_string()]);
                }
                start += block.n_cols();
            }
        }
    }
    table
}

fn annotated(
    known: &KnownCells,
    results: &CountResults<'_>,
    samples: Vec<Sample>,
) -> archipelago_anndata::Result<AnnData> {
    let [genes, others @ ..] = results.blocks() else { unreachable!("a model that decodes has a block") };
    let first: Csr = samples[0][0].clone();
    let mut adata = AnnData::new(first, known.data.obs(), DataFrame::new(genes.names.iter().cloned()))?;
    for (number, sample) in (1..).zip(samples) {
        let mut blocks = sample.into_iter();
        adata.layers.extend(blocks.next().map(|counts| (format!("sample_{number}"), Matrix::from(counts))));
        for (NamedBlock { card, names }, counts) in others.iter().zip(blocks) {
            let mut frame = DataFrame::new(adata.obs_names().to_vec());
            for (feature, name) in (0..).zip(names) {
                let column: Vec<f32> = (0..counts.n_rows()).map(|cell| counts.value(cell, feature)).collect();
                frame.insert(name.clone(), column)?;
            }
            adata.obsm.insert(format!("{}_sample_{number}", card.feature), frame.into());
        }
    }
    Ok(adata)
}
