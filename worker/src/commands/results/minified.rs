//! Minified data: what the encoder says of each cell, and nothing of its genes.

use std::path::PathBuf;

use archipelago_anndata::{AnnData, Array, Column, Csr, DataFrame, Element, Values};
use clap::Args;

use super::{Asked, Written};
use crate::{
    data::{MINIFIED_LIBRARY, MINIFIED_MEAN, MINIFIED_TYPE, MINIFIED_UNS, MINIFIED_VAR},
    error::{Error, Result},
    output::Output,
    table::write_h5ad,
};

/// Cells without their counts: posterior mean and variance, and the total count.
///
/// In the form of scvi-tools. `latent`, `predict` and the other `results` take the file in place of the cells, except for
/// what needs counts: ELBO, reconstruction error, marginal likelihood.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
    archipelago-worker results minified reference cells.h5ad --out small.h5ad\n  \
    archipelago-worker results expression reference small.h5ad --out expression.h5ad")]
pub(super) struct MinifiedArgs {
    #[command(flatten)]
    asked: Asked,
    /// The h5ad file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(super) fn run(args: &MinifiedArgs, output: &Output) -> Result<()> {
    let known = args.asked.known.open(output)?;
    let card = &known.reference().base.card;
    let (mean, var) = known.reference().posterior(&known.cells()?, &known.conditions, known.device)?;
    let library = known.count_results(args.asked.seed)?.library_size()?;
    let failed = |source| Error::Cells { path: args.out.clone(), source };
    let n_cells = known.data.n_cells();
    let (obs, genes) = (known.data.obs(), DataFrame::new(card.genes.iter().cloned()));
    let mut adata = AnnData::new(Csr::zeros(n_cells, card.genes.len()), obs, genes).map_err(failed)?;
    for (name, values) in [(MINIFIED_MEAN, &mean), (MINIFIED_VAR, &var)] {
        let rows: Vec<f32> = values.iter().copied().collect();
        let array = Array::matrix(n_cells, values.ncols(), rows).map_err(failed)?;
        adata.obsm.insert(name.to_owned(), Element::Array(array));
    }
    adata.obs.insert(MINIFIED_LIBRARY, Column::Plain(Values::F32(library))).map_err(failed)?;
    adata.uns.insert(MINIFIED_UNS.to_owned(), Element::Array(Array::text(MINIFIED_TYPE)));
    write_h5ad(&args.out, &adata)?;
    output.show(&Written {
        out: args.out.clone(),
        version: known.open.dir.version().id(),
        what: "minified",
        n_rows: n_cells,
        n_columns: mean.ncols(),
    });
    Ok(())
}
