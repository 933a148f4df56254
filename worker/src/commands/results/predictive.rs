//! Posterior predictive samples: counts drawn from what the model says about each cell.

use std::path::PathBuf;

use archipelago_anndata::{AnnData, Csr, DataFrame, Matrix};
use archipelago_models::results::JointSample;
use clap::Args;
use ndarray::Array2;

use super::{Asked, Written, features::Features};
use crate::{
    commands::known::KnownCells,
    error::{Error, Result},
    output::Output,
    table::{CsvTable, TableFormat, write_h5ad},
};

/// Counts drawn from the posterior predictive distribution; of proteins too where the model takes them.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
    archipelago-worker results predictive reference cells.h5ad --n-samples 5 --out drawn.h5ad")]
pub(super) struct PredictiveArgs {
    #[command(flatten)]
    asked: Asked,
    /// The file to write: h5ad (the first sample as `X`, each as layer `sample_1`…, proteins in obsm `protein_sample_1`…) or
    /// csv (cell, gene, sample, count; zeros left out; a protein is the gene `<protein>_protein`).
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Draws per cell and gene.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    n_samples: u32,
}

pub(super) fn run(args: &PredictiveArgs, output: &Output) -> Result<()> {
    let format = TableFormat::of(&args.out)?;
    let known = args.asked.known.open(output)?;
    let features = Features::of(&known)?;
    let (results, n_samples) = (known.count_results(args.asked.seed)?, args.n_samples as usize);
    let samples = if features.with_proteins() {
        results.joint_predictive(n_samples)?
    } else {
        let no_proteins = || Array2::zeros((known.data.n_cells(), 0));
        let samples = results.posterior_predictive(n_samples)?.into_iter();
        samples.map(|rna| JointSample { rna, proteins: no_proteins() }).collect()
    };
    match format {
        TableFormat::Csv => table(&known, &features, &samples).write(&args.out)?,
        TableFormat::H5ad => {
            let adata = annotated(&known, &features, samples);
            write_h5ad(&args.out, &adata.map_err(|source| Error::Cells { path: args.out.clone(), source })?)?;
        }
    }
    output.show(&Written {
        out: args.out.clone(),
        version: known.open.dir.version().id(),
        what: "drawn",
        n_rows: known.data.n_cells(),
        n_columns: features.names.len(),
    });
    Ok(())
}

fn table(known: &KnownCells, features: &Features, samples: &[JointSample]) -> CsvTable {
    let mut table = CsvTable::new(["cell", "gene", "sample", "count"]);
    for (number, sample) in (1..).zip(samples) {
        for (row, cell) in known.data.cell_names().enumerate() {
            let genes = sample.rna.row(row);
            let genes = genes.0.iter().map(|&gene| gene as usize).zip(genes.1.iter().copied());
            let proteins = (features.n_genes..).zip(sample.proteins.row(row)).map(|(at, &count)| (at, count));
            for (feature, count) in genes.chain(proteins.filter(|(_, count)| *count > 0.0)) {
                let name = crate::results::csv_field(&features.names[feature]);
                table.row(cell, [name, i32::to_string(&number), count.to_string()]);
            }
        }
    }
    table
}

fn annotated(
    known: &KnownCells,
    features: &Features,
    samples: Vec<JointSample>,
) -> archipelago_anndata::Result<AnnData> {
    let genes = features.names[..features.n_genes].iter().cloned();
    let first: Csr = samples[0].rna.clone();
    let mut adata = AnnData::new(first, known.data.obs(), DataFrame::new(genes))?;
    for (number, sample) in (1..).zip(samples) {
        adata.layers.insert(format!("sample_{number}"), Matrix::from(sample.rna));
        if features.with_proteins() {
            let mut frame = DataFrame::new(adata.obs_names().to_vec());
            for (protein, counts) in features.proteins.iter().zip(sample.proteins.columns()) {
                frame.insert(protein.clone(), counts.to_vec())?;
            }
            adata.obsm.insert(format!("protein_sample_{number}"), frame.into());
        }
    }
    Ok(adata)
}
