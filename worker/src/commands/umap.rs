//! `umap`: cells in the plane by their neighbour graph.

use archipelago_analysis::umap::{Umap, umap_of_graph};
use archipelago_anndata::AnnData;
use clap::Args;
use ndarray::Array2;

use super::{file::FileArgs, neighbors::GraphArgs, placed::place};
use crate::{cells::embedding, error::Result, graph_file, output::Output};

/// Place cells in the plane, as `scanpy.tl.umap` does.
///
/// Takes the neighbour graph that the file holds, else makes one (`neighbors`). Starts from the first two principal components
/// of the graph's embedding. Writes `obsm['X_umap']`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
    archipelago-worker umap mapped/mapped.h5ad --use-rep X_archipelago --in-place")]
pub struct UmapArgs {
    #[command(flatten)]
    file: FileArgs,
    #[command(flatten)]
    graph: GraphArgs,
    /// How close points may lie.
    #[arg(long, default_value_t = 0.5)]
    min_dist: f64,
    /// Scale of the picture.
    #[arg(long, default_value_t = 1.0)]
    spread: f64,
    /// Passes over the graph [default: 500, or 200 beyond 10,000 cells]
    #[arg(long)]
    maxiter: Option<usize>,
}

/// Runs the command.
///
/// # Errors  [`crate::Error::Cells`], [`crate::Error::NoEmbedding`], [`crate::Error::Analysis`]
pub fn run(args: &UmapArgs, output: &Output) -> Result<()> {
    place(&args.file, "X_umap", |adata| args.place(adata, output), output)
}

impl UmapArgs {
    fn place(&self, adata: &mut AnnData, output: &Output) -> Result<(Array2<f32>, String)> {
        let (edges, use_rep) = self.graph.of(adata, output)?;
        let x = embedding(adata, &use_rep)?;
        let options = Umap {
            n_neighbors: self.graph.n_neighbors,
            min_dist: self.min_dist,
            spread: self.spread,
            n_epochs: self.maxiter,
            seed: self.graph.seed,
        };
        let work = output.work("placing cells");
        let placed = umap_of_graph(x.view(), &edges, options, &|share| work.share(share))?;
        Ok((placed, use_rep))
    }
}

impl GraphArgs {
    /// The graph of the file where it has one of the embedding asked for, else a new one; with the embedding's name.
    ///
    /// # Errors  as [`GraphArgs::add_to`]
    pub fn of(&self, adata: &mut AnnData, output: &Output) -> Result<(Vec<archipelago_analysis::graph::Edge>, String)> {
        if let Some((edges, of_rep)) = graph_file::read(adata)? {
            let rep = of_rep.map_or_else(|| graph_file::default_rep(adata), Ok)?;
            if self.use_rep.as_ref().is_none_or(|asked| *asked == rep) {
                return Ok((edges, rep));
            }
        }
        let made = self.add_to(adata, output)?;
        let (edges, _) = graph_file::read(adata)?.expect("the graph was written just now");
        Ok((edges, made.use_rep))
    }
}
