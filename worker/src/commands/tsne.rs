//! `tsne`: cells in the plane by t-SNE.

use archipelago_analysis::tsne::{Tsne, tsne};
use archipelago_anndata::AnnData;
use clap::Args;
use ndarray::Array2;

use super::{file::FileArgs, placed::place};
use crate::{cells::embedding, error::Result, graph_file, output::Output};

/// Place cells in the plane, as `scanpy.tl.tsne` does. Writes `obsm['X_tsne']`.
///
/// Runs on one thread so that one seed gives one picture: some minutes for 50,000 cells.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
    archipelago-worker tsne mapped/mapped.h5ad --use-rep X_archipelago --in-place")]
pub struct TsneArgs {
    #[command(flatten)]
    file: FileArgs,
    /// The element of obsm to take distances in, or X [default: X_archipelago, else X_pca]
    #[arg(long, value_name = "OBSM")]
    use_rep: Option<String>,
    /// Effective number of neighbours, below the number of cells [default: 30; a third of 30 cells and fewer]
    #[arg(long)]
    perplexity: Option<f64>,
    /// Steps of the descent.
    #[arg(long, default_value_t = 1000)]
    maxiter: usize,
    /// Seed of the start.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// Runs the command.
///
/// # Errors  [`crate::Error::Cells`], [`crate::Error::NoEmbedding`], [`crate::Error::Analysis`]
pub fn run(args: &TsneArgs, output: &Output) -> Result<()> {
    place(&args.file, "X_tsne", |adata| args.place(adata, output), output)
}

impl TsneArgs {
    fn place(&self, adata: &AnnData, output: &Output) -> Result<(Array2<f32>, String)> {
        let use_rep = self.use_rep.clone().map_or_else(|| graph_file::default_rep(adata), Ok)?;
        let x = embedding(adata, &use_rep)?;
        let perplexity = self.perplexity.unwrap_or_else(|| Tsne::usual_perplexity(x.nrows()));
        let options = Tsne { perplexity, n_epochs: self.maxiter, seed: self.seed };
        let work = output.work("placing cells");
        let placed = tsne(x.view(), options, &|share| work.share(share))?;
        Ok((placed, use_rep))
    }
}
