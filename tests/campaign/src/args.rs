//! What the campaign can be told.

use std::{collections::BTreeMap, path::PathBuf};

use archipelago_common::{NodeId, SiteId};
use clap::{Parser, Subcommand, ValueEnum};

/// Kills, stops and cuts off real processes of a consortium and audits what was acknowledged.
#[derive(Parser, Debug)]
#[command(version)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run a campaign: three coordinators, several sites, and a seeded schedule of faults.
    Run(RunArgs),
    /// Be one of its sites; the campaign starts these.
    #[command(hide = true)]
    Site(SiteArgs),
}

/// Options of a campaign.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example:\n  archipelago-campaign run --kills 100 --seed 1 --out campaign-out\n\n\
    OUT/summary.json has the figures. A run that failed leaves every log, journal and data folder in OUT.")]
pub struct RunArgs {
    /// Processes to kill (-9) before the campaign ends; stops and cuts come beside them.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub kills: u32,
    /// Seed of the schedule.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Sites.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(2..=32))]
    pub sites: u16,
    /// Folder for everything the campaign makes; an earlier run there is replaced.
    #[arg(long, default_value = "campaign-out")]
    pub out: PathBuf,
    /// An earlier build of the coordinator: it founds the consortium and runs all of it at first, and afterwards every second start of a
    /// node takes it, the others this build. So nodes are upgraded one by one under load, and some go back.
    #[arg(long, value_name = "PROGRAM")]
    pub earlier: Option<PathBuf>,
    /// How processes are cut off from one another.
    #[arg(long, value_enum, default_value_t = NetworkChoice::Auto)]
    pub network: NetworkChoice,
    /// Every firewall drops UDP: whoever dials comes by TCP in the end. Needs namespaces, and `nft`.
    #[arg(long)]
    pub drop_udp: bool,
    /// Also measure how soon a site that died is noticed and its task offered again; takes half a minute.
    #[arg(long)]
    pub worker_death: bool,
    /// Keep the data of a run that went well, too.
    #[arg(long)]
    pub keep: bool,
}

/// How processes are cut off from one another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum NetworkChoice {
    /// Namespaces where the machine allows them, else loopback.
    Auto,
    /// Each coordinator in a network namespace of its own; needs `unshare`, `nsenter` and `ip`.
    Namespaces,
    /// All on loopback; nobody is cut off.
    Loopback,
}

/// Options of a site.
#[derive(clap::Args, Clone, Debug)]
pub struct SiteArgs {
    /// Its name.
    #[arg(long)]
    pub site: SiteId,
    /// Its folder: credentials, journal, downloads.
    #[arg(long)]
    pub dir: PathBuf,
    /// The coordinators: `1=host:port,2=host:port`.
    #[arg(long, value_parser = addresses)]
    pub coordinators: BTreeMap<NodeId, String>,
    /// Seed of its columns.
    #[arg(long)]
    pub seed: u64,
}

fn addresses(text: &str) -> Result<BTreeMap<NodeId, String>, String> {
    let one = |part: &str| {
        let (node, address) = part.split_once('=').ok_or_else(|| format!("`{part}` is not `<node>=<host>:<port>`"))?;
        Ok((node.parse().map_err(|e: archipelago_common::Error| e.to_string())?, address.to_owned()))
    };
    text.split(',').map(one).collect()
}
