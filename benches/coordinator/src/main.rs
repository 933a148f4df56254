//! Measures real coordinators: processes of this machine, real TLS, real files, fsync on. The load comes from this process, so
//! both share the machine's cores; figures are what one machine does, not what a coordinator with its own would.
//!
//! Each part prints its rows beside the goals of the design; all of them go to `coordinator.json`. No part asserts anything.

mod bare;
mod cluster;
mod commands;
mod failover;
mod fanout;
mod process_stats;
mod sessions;
mod state;
mod table;
mod transfer;
mod years;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

use table::Table;

/// Measures coordinators under load.
#[derive(Parser, Debug)]
#[command(version, after_help = "Example:\n  archipelago-bench-coordinator --only transfer,commands --out bench-out")]
struct Args {
    /// Parts to run [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Folder for coordinator.json.
    #[arg(long, default_value = "bench-out")]
    out: PathBuf,
    /// Folder for the coordinators' data and the blobs, on the disk to be measured; needs 12 GB for `fanout` [default: OUT]
    #[arg(long)]
    scratch: Option<PathBuf>,
    /// Sizes and numbers divided by this: to see that the parts run.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100))]
    scale_down: u64,
    #[command(subcommand)]
    command: Option<Inner>,
}

#[derive(Subcommand, Debug)]
enum Inner {
    /// The receiving end of the bare loop; started by `transfer`.
    #[command(hide = true)]
    BareServer,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Part {
    /// 1,000 idle sites and 200 submissions at once on one node.
    Sessions,
    /// Blob transfer over loopback beside a bare quinn loop.
    Transfer,
    /// A 3.35 GB blob to six sites.
    Fanout,
    /// Acknowledged commands per second on three nodes.
    Commands,
    /// From the death of the leader to the next acknowledged write.
    Failover,
    /// What commands take after 2,000 tasks with 300 sites.
    Years,
    /// The largest state there can be: made, written, restored.
    State,
}

/// What every part is given.
pub(crate) struct Setting {
    scratch: PathBuf,
    scale_down: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match args.command {
        Some(Inner::BareServer) => bare::serve(),
        None => run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            table::report_error(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    std::fs::create_dir_all(&args.out)?;
    let scratch = args.scratch.clone().unwrap_or_else(|| args.out.clone());
    std::fs::create_dir_all(&scratch)?;
    let setting = Setting { scratch: scratch.canonicalize()?, scale_down: args.scale_down };
    let runtime = tokio::runtime::Runtime::new()?;
    let mut table = Table::new(args.scale_down);
    let is_wanted = |part: Part| args.only.is_empty() || args.only.contains(&part);
    runtime.block_on(async {
        if is_wanted(Part::Transfer) {
            transfer::measure(&setting, &mut table).await?;
        }
        if is_wanted(Part::Commands) {
            commands::measure(&setting, &mut table).await?;
        }
        if is_wanted(Part::Failover) {
            failover::measure(&setting, &mut table).await?;
        }
        if is_wanted(Part::Sessions) {
            sessions::measure(&setting, &mut table).await?;
        }
        if is_wanted(Part::Fanout) {
            fanout::measure(&setting, &mut table).await?;
        }
        if is_wanted(Part::Years) {
            years::measure(&setting, &mut table).await?;
        }
        if is_wanted(Part::State) {
            state::measure(&setting, &mut table)?;
        }
        table.write(&args.out.join("coordinator.json"))
    })?;
    table.print();
    Ok(())
}
