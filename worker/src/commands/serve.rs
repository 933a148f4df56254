//! `serve`: takes part in a consortium.

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use super::DeviceArg;
use crate::{
    cli::Setting,
    config::SiteConfig,
    error::{Error, Result},
    ops::{self, Metrics},
    output::Output,
    session::{Site, Until},
};

/// Take a consortium's surgery tasks: train this site's columns, send them and nothing else.
///
/// The worker calls the coordinators and never the other way round. It comes back after every break, goes on after a
/// restart with what was finished, and stops in good order on SIGTERM.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-worker serve --config site.toml\n\n\
    A complete site.toml (paths are relative to it):\n  \
    site = \"north\"\n  \
    state_dir = \"state\"                    # audit log, cache, checkpoints\n  \
    out_dir = \"results\"                    # mapped cells\n  \
    policy = \"policy.toml\"                 # what may leave; default: columns and metrics\n  \
    memory = \"4GiB\"                        # that counts may take; default: half of what is available\n  \
    scratch = \"scratch\"                    # directory for counts beyond that; default: state_dir\n  \
    ops = \"127.0.0.1:9464\"                 # /metrics, /healthz, /readyz; default: closed\n  \
    ca = \"ca.pem\"\n  \
    certificate = \"north.pem\"\n  \
    key = \"north.key\"\n  \
    renew_after = 0.67                     # of its life, the certificate is asked for anew; 1: never\n\n  \
    [coordinators]\n  \
    1 = \"host-a:7101\"\n  \
    2 = \"host-b:7101\"\n  \
    3 = \"host-c:7101\"\n\n  \
    [data]\n  \
    path = \"cells.h5ad\"\n  \
    dataset = \"pbmc\"                       # the middle of each condition key\n  \
    batch_key = \"batch\"\n  \
    batches = [\"10x_5p\"]                   # default: all\n\n  \
    [data.fields]                           # default: where the reference found them\n  \
    rna = \"layers/counts\"                  # default: X\n  \
    labels = \"obs/cell_type\"               # to release label means\n  \
    proteins = \"mod/prot\"                  # or obsm/KEY, or none\n\n\
    A complete policy.toml:\n  \
    columns = true\n  \
    metrics = true\n  \
    min_cells = 20\n  \
    min_donors = 2\n  \
    donor_key = \"donor\"\n  \
    clip_norm = 30.0\n  \
    noise_std = 0.0\n  \
    trusted_operators = [\"alice\"]          # of references and tasks; default: any\n  \
    may_read = [\"cell_type\"]               # columns that a reference may have read, beside those named above\n  \
    new_labels = false                     # whether names of labels leave that the reference does not have\n  \
    facts = true                           # such as which proteins were measured\n  \
    parts = { min_cells = 50, min_donors = 3 }   # contributions that are no columns; default: none\n  \
    embeddings = { label-means = { min_cells = 20, min_donors = 2 } }   # or \"none\", \"full\"\n\n  \
    [tasks]                                # what a task may be: docs/policy.md has all of it\n  \
    approve = \"trusted\"                    # or \"ask\": `archipelago-worker approve` each task\n  \
    unsigned = \"until-signed\"              # what nobody signed; or \"accept\", \"refuse\"\n  \
    models = []                            # names of those that may be run; default: all\n  \
    max_numbers_per_cell = 2.5\n\n  \
    [budget]                               # numbers for each cell, over all tasks\n  \
    columns = 25.0")]
pub struct ServeArgs {
    /// The site's configuration.
    #[arg(long, value_name = "FILE", env = "ARCHIPELAGO_SITE")]
    config: PathBuf,
    /// End when a task was submitted and accepted, or with an error when none of those there are can be done here.
    #[arg(long)]
    once: bool,
    /// Where to compute.
    #[arg(long, value_enum, default_value_t = DeviceArg::Auto)]
    device: DeviceArg,
}

/// Runs the command.
///
/// # Errors  a configuration, identity or data that cannot be used; coordinators that all shut this site out
pub fn run(args: &ServeArgs, _: &Output) -> Result<()> {
    let config = SiteConfig::read(&args.config)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|source| Error::Runtime { source })?;
    let served = runtime.block_on(serve(args, config));
    // A training thread ends with its epoch.
    runtime.shutdown_timeout(LAST_EPOCH);
    served
}

async fn serve(args: &ServeArgs, config: SiteConfig) -> Result<()> {
    let stop = stop_on_signal()?;
    let metrics = Arc::new(Metrics::new()?);
    if let Some(address) = config.ops {
        let address = ops::serve(address, metrics.clone()).await?;
        tracing::info!(%address, "metrics and health");
    }
    let until = if args.once { Until::FirstAccepted } else { Until::Stopped };
    let mut site = Site::open(config, args.device.into(), metrics, stop).await?;
    site.serve(until).await
}

/// The values of the configuration file and where each came from.
///
/// # Errors  [`Error::Config`]
pub fn file_settings(args: &ServeArgs) -> Result<Vec<Setting>> {
    let explained = SiteConfig::explain(&args.config)?;
    Ok(explained.into_iter().map(|(name, value, source)| Setting { name, value, source }).collect())
}

fn stop_on_signal() -> Result<watch::Receiver<bool>> {
    let (stop, stopped) = watch::channel(false);
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut received = signal(kind).map_err(|source| Error::Runtime { source })?;
        let stop = stop.clone();
        tokio::spawn(async move {
            while received.recv().await.is_some() {
                stop.send_replace(true);
            }
        });
    }
    Ok(stopped)
}

/// How long a stopping worker waits for the epoch under way.
const LAST_EPOCH: Duration = Duration::from_secs(5);
