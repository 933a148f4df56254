//! `space export`: an ensemble as files that scArches takes.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use archipelago_anndata::{AnnData, Array, Compression, DataFrame, Matrix};
use archipelago_common::{fs, id::VersionId};
use archipelago_models::zoo::space::{
    ensemble::members_of,
    upstream::{DICT, SavedNetwork},
};
use clap::Args;
use serde::Serialize;

use super::{network_name, open};
use crate::{
    error::{Error, Result},
    existing,
    output::Output,
    results,
};

/// Export an ensemble for scArches 0.6.1.
///
/// Writes for each network `<section>_<partition>.pt`, which PyTorch opens in its restricted mode: `arguments` are those of its
/// `Classifier`, whose `net` loads `state_dict`; and an h5ad file with the graph of genes. Its own files are pickled objects of one
/// release of its libraries, and are not written.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-worker space export ensemble --out saved")]
pub(super) struct ExportArgs {
    /// The directory of the ensemble.
    ensemble: PathBuf,
    /// The folder to write to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// What came of it.
#[derive(Serialize)]
struct Summary {
    out: PathBuf,
    version: VersionId,
    /// Files of networks, each with one of its graph.
    networks: Vec<String>,
}

/// Runs the command.
///
/// # Errors  [`Error::Reference`], [`Error::NotEnsemble`], [`Error::Cells`]
pub(super) fn run(args: &ExportArgs, output: &Output) -> Result<()> {
    let (open, config) = open(&args.ensemble)?;
    let n_genes = open.reference.base.card.genes.len();
    fs::create_dir(&args.out)?;
    existing::begin(&args.out)?;
    let mut networks = Vec::new();
    for (tag, section) in members_of(&open.reference)? {
        for (partition, trained) in &section.networks {
            let name = network_name(&tag, partition);
            let saved = SavedNetwork { config: config.clone(), n_genes, tensors: trained.tensors.clone() };
            saved.write(&args.out.join(format!("{name}.{DICT}")))?;
            write_graph(&args.out.join(format!("{name}.h5ad")), &section.pairs, n_genes)?;
            networks.push(name);
        }
    }
    let summary = Summary { out: args.out.clone(), version: open.dir.version().id(), networks };
    results::write_json(&args.out.join(existing::SUMMARY), &summary)?;
    output.show(&summary);
    Ok(())
}

/// The graph as the matrix that upstream looks for ones in.
fn write_graph(path: &Path, pairs: &[(u32, u32)], n_genes: usize) -> Result<()> {
    let mut adjacency = vec![0.0_f32; n_genes * n_genes];
    for &(a, b) in pairs {
        let (a, b) = (a as usize, b as usize);
        (adjacency[a * n_genes + b], adjacency[b * n_genes + a]) = (1.0, 1.0);
    }
    let numbered = || DataFrame::new((0..n_genes).map(|gene| gene.to_string()));
    let failed = |source| Error::Cells { path: path.into(), source };
    let written = || {
        let adjacency = Matrix::Dense(Array::matrix(n_genes, n_genes, adjacency)?);
        AnnData::new(adjacency, numbered(), numbered())?.write(path, Compression::None)
    };
    written().map_err(failed)
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "folder      {}", self.out.display())?;
        writeln!(f, "version     {}", self.version)?;
        write!(f, "networks    {}", self.networks.join(", "))
    }
}
