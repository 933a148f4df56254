//! `report`: one page about a mapping.

use std::{fmt, path::PathBuf};

use archipelago_common::fs;
use clap::Args;
use serde::Serialize;

use crate::{
    error::{Error, Result},
    output::Output,
    report::{self, Subject},
};

/// Write one self-contained HTML page about a mapping.
///
/// It shows what was mapped onto what, the genes found, the loss, UMAPs of the query and of reference and query, labels
/// from the reference with their uncertainty, the field's figures beside the unintegrated data, and what left the site. The
/// page needs no network, is light or dark as the reader likes, and holds the pictures in both.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    archipelago-worker latent reference cells.h5ad --batches a,b --out reference_cells.h5ad\n  \
    archipelago-worker report mapped --reference-cells reference_cells.h5ad --labels-key cell_type\n  \
    archipelago-worker report mapped --audit state/audit.jsonl --out mapping.html")]
pub struct ReportArgs {
    /// The directory that `map` wrote.
    mapped: PathBuf,
    /// The page to write [default: report.html in the directory]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The reference's cells with their positions, as `latent` wrote them.
    #[arg(long, value_name = "FILE")]
    reference_cells: Option<PathBuf>,
    /// The obs column of the labels, in the reference's cells, the query, or both [default: as in the reference]
    #[arg(long)]
    labels_key: Option<String>,
    /// The site's log of what left it.
    #[arg(long, value_name = "FILE")]
    audit: Option<PathBuf>,
    /// The layer with counts or log-normalised expression, for the data before integration [default: X]
    #[arg(long)]
    layer: Option<String>,
    /// Reference cells that vote for a query cell.
    #[arg(long, default_value_t = 50)]
    n_neighbors: usize,
    /// Labels of a higher uncertainty are called Unknown.
    #[arg(long, default_value_t = 0.2)]
    max_uncertainty: f64,
    /// Seed of pictures and clusterings.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// What came of it.
#[derive(Serialize)]
struct Summary {
    out: PathBuf,
    bytes: usize,
}

/// Runs the command.
///
/// # Errors  [`Error::Reference`], [`Error::Cells`], [`Error::OtherSpace`], [`Error::AuditBroken`], [`Error::Analysis`]
pub fn run(args: &ReportArgs, output: &Output) -> Result<()> {
    if !(0.0..=1.0).contains(&args.max_uncertainty) {
        let (found, expected) = (args.max_uncertainty.to_string(), "a share from 0 to 1");
        return Err(Error::Setting { what: "--max-uncertainty", found, expected });
    }
    let subject = Subject {
        mapped: args.mapped.clone(),
        reference_cells: args.reference_cells.clone(),
        labels_key: args.labels_key.clone(),
        audit: args.audit.clone(),
        layer: args.layer.clone(),
        n_neighbors: args.n_neighbors,
        max_uncertainty: args.max_uncertainty,
        seed: args.seed,
    };
    let out = args.out.clone().unwrap_or_else(|| args.mapped.join("report.html"));
    output.existing.check_file(&out)?;
    let page = report::page(&subject, output)?;
    fs::write_atomic(&out, page.as_bytes())?;
    output.show(&Summary { out, bytes: page.len() });
    Ok(())
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "report      {} ({:.1} MB)", self.out.display(), self.bytes as f64 / 1e6)
    }
}
