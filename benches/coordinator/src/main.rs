//! Measures real coordinators: processes of this machine, real TLS, real files, fsync on. The load comes from this process, so
//! both share the machine's cores; figures are what one machine does, not what a coordinator with its own would.
//!
//! Each part prints its rows beside the goals of the design; all of them go to `coordinator.json`. No part asserts anything.

mod bare;
mod cluster;
mod commands;
mod failover;
mod fanout;
mod line;
mod memory;
mod process_stats;
mod sessions;
mod state;
mod table;
mod transfer;
mod years;

use std::{net::IpAddr, path::PathBuf, process::ExitCode};

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
    /// The receiving end of a bare loop; started by `transfer`.
    #[command(hide = true)]
    BareServer {
        /// `quic` or `tcp`.
        way: String,
        /// Where it listens.
        host: IpAddr,
    },
    /// `--only line` inside a network namespace; started by it.
    #[command(hide = true)]
    LineInside,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Part {
    /// 1,000 idle sites and 200 submissions at once on one node.
    Sessions,
    /// Blob transfer over loopback beside a bare loop, over QUIC and over TCP.
    Transfer,
    /// Blob transfer over an emulated line of 1 Gbit/s, 50 ms and 0.5 % loss.
    Line,
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
    let done = match &args.command {
        Some(Inner::BareServer { way, host }) => bare::serve(way, *host),
        Some(Inner::LineInside) | None => run(&args),
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
        if matches!(args.command, Some(Inner::LineInside)) {
            line::measure_inside(&setting, &mut table).await?;
            return table.write(&args.out.join(FIGURES));
        }
        if is_wanted(Part::Transfer) {
            transfer::measure(&setting, &mut table).await?;
        }
        if is_wanted(Part::Line) {
            line::measure(&setting, &mut table)?;
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
        table.write(&args.out.join(FIGURES))
    })?;
    if args.command.is_none() {
        table.print();
    }
    Ok(())
}

/// What is left of a run, in the folder that was named.
const FIGURES: &str = "coordinator.json";
