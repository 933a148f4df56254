//! Membership inference against what leaves a site: given a cell or a person, was it among those that were mapped?
//!
//! The attacker is the strongest that makes sense: has the reference, the cell's own counts, and cells of the same batch to map as
//! often as wanted, by the same code with the same settings. `docs/privacy.md` explains the method and has the figures.

mod attack;
mod experiment;
mod pooled;
mod report;
mod shadows;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;

/// Measure how well membership is told from what leaves a site.
#[derive(Parser)]
#[command(
    name = "archipelago-privacy",
    version,
    after_help = "Example:\n  archipelago-privacy --data ../shared/data --out privacy-out"
)]
pub(crate) struct Args {
    /// The folder with `pbmc_5batch.h5ad` and `tcr_lung_blood.h5ad`.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Where references, `privacy.json` and the table `privacy.md` go.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Mappings for each number of cells; even, as they are drawn in pairs that share no cell.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(16..))]
    shadows: u16,
    /// Cells that are mapped at once.
    #[arg(long, value_delimiter = ',', default_value = "20,50,100,200")]
    cells: Vec<usize>,
    /// Seed of every draw.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

fn main() -> ExitCode {
    match experiment::run(&Args::parse()).and_then(|(found, out)| report::write(&found, &out)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
