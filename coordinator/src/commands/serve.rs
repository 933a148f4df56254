//! `serve`: runs a node until it is asked to stop.

use std::path::PathBuf;

use clap::Args;

use crate::{
    config::NodeConfig,
    error::{Error, Result},
    output::Output,
    server,
};

/// Run a node of the cluster until SIGTERM or Ctrl-C; a leader hands over first.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-coordinator serve --config node1/node.toml")]
pub struct ServeArgs {
    /// The node's configuration, from `init`.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Show the resolved configuration and do nothing.
    #[arg(long)]
    print_config: bool,
}

/// Runs the command.
///
/// # Errors  whatever ends the node
pub fn run(args: &ServeArgs, output: &Output) -> Result<()> {
    let config = NodeConfig::read(&args.config)?;
    if args.print_config {
        let text = toml::to_string(&config).unwrap_or_default();
        output.show(&config, format!("# from {}\n{text}", args.config.display()));
        return Ok(());
    }
    let runtime = tokio::runtime::Runtime::new().map_err(|source| Error::Runtime { source })?;
    runtime.block_on(async {
        let stop = stop_signal().map_err(|source| Error::Runtime { source })?;
        server::serve(config, stop).await
    })
}

/// Completes when the process is asked to stop.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
