//! `aggregate`: a reference that says where its cells lie.

use std::{fmt, path::PathBuf};

use archipelago_common::{fs, id::VersionId, reference_dir::ReferenceDir};
use archipelago_models::Compute;
use clap::Args;
use serde::Serialize;

use super::{EngineArg, known::KnownCellArgs};
use crate::{error::Result, existing, output::Output, results};

/// Keep in a reference where its cells lie, so that surgery can draw a query's cells there.
///
/// For a reference that was imported, or trained before references kept this; `train` does it by itself. What is kept is a table of at most 100
/// clusters of cells, of five cells or more each: mean and variance in the latent space. It is part of the new version's base: publish that
/// one, and map onto it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    archipelago-worker import my_scvi_model/ --out imported\n  \
    archipelago-worker aggregate imported cells.h5ad --out reference\n  \
    archipelago-worker map reference query.h5ad --out mapped")]
pub struct AggregateArgs {
    #[command(flatten)]
    known: KnownCellArgs,
    /// Who computes.
    #[arg(long, value_enum, default_value_t = EngineArg::Fast)]
    engine: EngineArg,
    /// The directory to write the reference to.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Seed of the clusters.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// What came of it.
#[derive(Serialize)]
struct Summary {
    out: PathBuf,
    version: VersionId,
    parent: VersionId,
    n_cells: usize,
    n_clusters: usize,
}

/// Runs the command.
///
/// # Errors  [`crate::Error::Reference`], [`crate::Error::Cells`], [`crate::Error::NoCondition`], [`crate::Error::Models`] for a model that surgery draws nowhere, or too
/// few cells
pub fn run(args: &AggregateArgs, output: &Output) -> Result<()> {
    let known = args.known.open(output)?;
    let compute = Compute { device: known.device, engine: args.engine.into() };
    let mut reference = known.reference().clone();
    let n_clusters = reference.aggregate(&known.cells()?, &known.conditions, args.seed, compute)?;
    fs::create_dir(&args.out)?;
    existing::begin(&args.out)?;
    let dir = ReferenceDir::write_with_parts(&args.out, &reference.base, &reference.columns, &reference.parts)?;
    let summary = Summary {
        out: args.out.clone(),
        version: dir.version().id(),
        parent: known.open.dir.version().id(),
        n_cells: known.data.n_cells(),
        n_clusters,
    };
    results::write_json(&args.out.join(existing::SUMMARY), &summary)?;
    output.show(&summary);
    Ok(())
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "reference   {}", self.out.display())?;
        writeln!(f, "version     {}", self.version)?;
        writeln!(f, "made of     {}", self.parent)?;
        write!(f, "kept        {} clusters of {} cells", self.n_clusters, self.n_cells)
    }
}
