//! `leiden`: clusters of the neighbour graph.

use std::{fmt, path::PathBuf};

use archipelago_analysis::leiden::Communities;
use archipelago_anndata::{AnnData, Array, Categorical, Column, Dict, Element};
use clap::Args;
use serde::Serialize;

use super::{file::FileArgs, neighbors::GraphArgs};
use crate::{error::Result, output::Output};

/// Cluster the neighbour graph, as `scanpy.tl.leiden` does.
///
/// Takes the neighbour graph that the file holds, else makes one (`neighbors`). Writes the obs column `leiden`; cluster 0 is the
/// largest. The best of four starts is kept.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-worker leiden mapped/mapped.h5ad --resolution 0.8 --in-place")]
pub struct LeidenArgs {
    #[command(flatten)]
    file: FileArgs,
    #[command(flatten)]
    graph: GraphArgs,
    /// The higher, the more clusters.
    #[arg(long, default_value_t = 1.0)]
    resolution: f64,
    /// The obs column to write.
    #[arg(long, value_name = "COLUMN", default_value = "leiden")]
    key_added: String,
}

/// What came of it.
#[derive(Serialize)]
struct Summary {
    out: PathBuf,
    key_added: String,
    /// Cells in each cluster.
    clusters: Vec<usize>,
}

/// Runs the command.
///
/// # Errors  [`crate::Error::Cells`], [`crate::Error::NoEmbedding`], [`crate::Error::Analysis`]
pub fn run(args: &LeidenArgs, output: &Output) -> Result<()> {
    let mut adata = args.file.read(output)?;
    let clusters = args.cluster(&mut adata, output).map_err(|error| args.file.within(error))?;
    let out = args.file.write(&adata, output)?;
    output.show(&Summary { out, key_added: args.key_added.clone(), clusters });
    Ok(())
}

impl LeidenArgs {
    fn cluster(&self, adata: &mut AnnData, output: &Output) -> Result<Vec<usize>> {
        let (edges, _) = self.graph.of(adata, output)?;
        let work = output.work("clustering");
        let graph = Communities::new(&edges, adata.n_obs())?;
        let clusters = graph.leiden(self.resolution, self.graph.seed, &|share| work.share(share))?;
        drop(work);
        let n_clusters = clusters.iter().max().map_or(0, |&last| last as usize + 1);
        let mut sizes = vec![0; n_clusters];
        clusters.iter().for_each(|&cluster| sizes[cluster as usize] += 1);
        let names: Vec<String> = (0..n_clusters).map(|cluster| cluster.to_string()).collect();
        let codes = clusters.iter().map(|&cluster| cluster as i32).collect();
        let column = Column::Categorical(Categorical::new(codes, names, false)?);
        adata.obs.insert(self.key_added.as_str(), column)?;
        let params = Dict::from([
            ("resolution".to_owned(), Element::Array(Array::float(self.resolution))),
            ("random_state".to_owned(), Element::Array(Array::int(self.graph.seed as i64))),
        ]);
        let entry = Dict::from([("params".to_owned(), Element::Dict(params))]);
        adata.uns.insert(self.key_added.clone(), Element::Dict(entry));
        Ok(sizes)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "written     {}", self.out.display())?;
        let sizes = self.clusters.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        write!(f, "{:<11} {} clusters of {sizes} cells", self.key_added, self.clusters.len())
    }
}
