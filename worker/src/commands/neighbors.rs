//! `neighbors`: the graph of nearest cells.

use std::{fmt, path::PathBuf};

use archipelago_analysis::{
    graph::connectivities,
    neighbours::{Method, nearest_others},
};
use archipelago_anndata::AnnData;
use clap::{Args, ValueEnum};
use serde::Serialize;

use super::file::FileArgs;
use crate::{
    cells::embedding,
    error::{Error, Result},
    graph_file::{self, GraphOptions},
    output::Output,
};

/// Find the nearest cells of each cell and weigh them, as `scanpy.pp.neighbors` does.
///
/// Writes `obsp['distances']`, `obsp['connectivities']` and `uns['neighbors']`, where `umap` and `leiden`, here and in scanpy, look
/// for them.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
    archipelago-worker neighbors mapped/mapped.h5ad --use-rep X_archipelago --n-neighbors 15 --in-place")]
pub struct NeighborsArgs {
    #[command(flatten)]
    file: FileArgs,
    #[command(flatten)]
    graph: GraphArgs,
}

/// How a graph of cells is made.
#[derive(Args, Debug)]
pub struct GraphArgs {
    /// The element of obsm to take distances in, or X [default: X_archipelago, else X_pca]
    #[arg(long, value_name = "OBSM")]
    pub use_rep: Option<String>,
    /// Size of a neighbourhood, the cell itself included.
    #[arg(long, default_value_t = 15)]
    pub n_neighbors: usize,
    /// How neighbours are looked for.
    #[arg(long, value_enum, default_value_t = MethodArg::Auto)]
    pub method: MethodArg,
    /// Seed of everything that is drawn.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// How neighbours are looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum MethodArg {
    /// Exactly, but approximately for more than 300,000 cells in more than 20 dimensions.
    Auto,
    /// All of them are found.
    Exact,
    /// Nearly all of them are found; the seed decides which.
    Approximate,
}

/// What came of it.
#[derive(Serialize)]
struct Summary {
    out: PathBuf,
    use_rep: String,
    n_cells: usize,
    n_neighbors: usize,
    n_edges: usize,
    is_exact: bool,
}

/// Runs the command.
///
/// # Errors  [`Error::Cells`], [`Error::NoEmbedding`], [`Error::Analysis`]
pub fn run(args: &NeighborsArgs, output: &Output) -> Result<()> {
    let mut adata = args.file.read(output)?;
    let made = args.graph.add_to(&mut adata, output).map_err(|error| args.file.within(error))?;
    let out = args.file.write(&adata, output)?;
    let Made { use_rep, n_edges, is_exact } = made;
    let n_neighbors = args.graph.n_neighbors;
    output.show(&Summary { out, use_rep, n_cells: adata.n_obs(), n_neighbors, n_edges, is_exact });
    Ok(())
}

/// A graph that was made.
pub struct Made {
    /// The embedding that distances were taken in.
    pub use_rep: String,
    /// Weights, once per direction.
    pub n_edges: usize,
    /// Whether all neighbours were found.
    pub is_exact: bool,
}

impl GraphArgs {
    /// Makes the graph and writes it into the cells.
    ///
    /// # Errors  [`Error::Anndata`], [`Error::NoEmbedding`], [`Error::Analysis`]
    pub fn add_to(&self, adata: &mut AnnData, output: &Output) -> Result<Made> {
        if self.n_neighbors < 2 {
            let (found, expected) = (self.n_neighbors.to_string(), "at least 2: a cell counts as one of its own");
            return Err(Error::Setting { what: "--n-neighbors", found, expected });
        }
        let use_rep = self.use_rep.clone().map_or_else(|| graph_file::default_rep(adata), Ok)?;
        let x = embedding(adata, &use_rep)?;
        let method = match self.method {
            MethodArg::Auto => Method::for_size(x.nrows(), x.ncols(), self.seed),
            MethodArg::Exact => Method::Exact,
            MethodArg::Approximate => Method::Approximate { seed: self.seed },
        };
        let work = output.work("finding neighbours");
        let neighbours = nearest_others(x.view(), self.n_neighbors - 1, method, &|share| work.share(share))?;
        drop(work);
        let edges = connectivities(&neighbours);
        let options = GraphOptions { n_neighbors: self.n_neighbors, use_rep: use_rep.clone(), seed: self.seed };
        graph_file::write(adata, &neighbours, &edges, &options)?;
        Ok(Made { use_rep, n_edges: edges.len(), is_exact: method == Method::Exact })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "written     {}", self.out.display())?;
        let kind = if self.is_exact { "exact" } else { "approximate" };
        writeln!(f, "neighbours  {} of {} cells in {}, {kind}", self.n_neighbors, self.n_cells, self.use_rep)?;
        write!(f, "edges       {}", self.n_edges)
    }
}
