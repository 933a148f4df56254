//! Measurements, ours beside the field's own package: the same cells, options, minibatches, epochs and threads.
//!
//! `suite` makes the data, runs both sides alternately in processes of their own, and writes one table and `summary.json`. The other
//! commands are its parts: what one process of ours measures, the machine's rate of dense products, how cost grows.

mod cases;
mod growth;
mod large;
mod machine;
mod measure;
mod report;
mod space;
mod suite;
mod trees;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Measures training, surgery and embedding.
#[derive(Parser, Debug)]
#[command(
    name = "archipelago-bench",
    version,
    after_help = "Example:\n  archipelago-bench suite --peer .venv-peers/bin/python --out bench-out"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run all cases on both sides; write a table and `summary.json`.
    Suite(suite::SuiteArgs),
    /// Measure one folder of data in this process and print JSON.
    Measure(measure::MeasureArgs),
    /// Map files whose counts do not fit into the memory that they may take; add to `summary.json`.
    Large(large::LargeArgs),
    /// Print the machine's rate of dense products, GFLOP/s.
    Gemm {
        /// Threads.
        #[arg(long, default_value_t = 2)]
        threads: usize,
    },
    /// Make the files of a synthetic case.
    Generate {
        /// The folder to write to.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Cells.
        #[arg(long, default_value_t = 10_000)]
        cells: usize,
        /// Genes.
        #[arg(long, default_value_t = 2_000)]
        genes: usize,
        /// Mean total count of a cell over 2,000 genes: 350 makes 12 % non-zeros.
        #[arg(long, default_value_t = 350.0)]
        library: f64,
    },
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Suite(args) => suite::run(&args),
        Command::Measure(args) => measure::run(&args),
        Command::Large(args) => large::run(&args),
        Command::Gemm { threads } => report::say(&format!("{:.1}", machine::gemm_rate(threads)? / 1e9)),
        Command::Generate { out, cells, genes, library } => cases::write_synthetic(&out, cells, genes, library),
    }
}
