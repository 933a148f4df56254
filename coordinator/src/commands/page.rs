//! `page`: the consortium in a browser.

use std::net::SocketAddr;

use archipelago_client::{Client, ClientConfig, Patience};
use clap::Args;
use tokio::net::TcpListener;

use super::{Connection, runtime};
use crate::{
    error::{Error, Result},
    output::Output,
};

/// Serve a page for a browser on this machine: sites, tasks, versions, coordinators and events, as they are now.
///
/// Nothing can be changed on it. It asks the coordinators with the certificate that is given and shows what that may see; an auditor's sees
/// most. Whoever reaches the port sees the same, so it listens on this machine alone.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-coordinator page --listen 127.0.0.1:8080 --config auditor.toml")]
pub struct PageArgs {
    /// Where it is served.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Listen on an address that other machines reach as well: everybody there sees what this certificate may see.
    #[arg(long)]
    to_everybody: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command until it is interrupted.
///
/// # Errors  an address that cannot be listened on, or that others reach; coordinators that cannot be reached
pub fn run(args: &PageArgs, output: &Output) -> Result<()> {
    if !args.listen.ip().is_loopback() && !args.to_everybody {
        return Err(Error::Config {
            place: "--listen".to_owned(),
            detail: format!(
                "{} is reached from other machines, and whoever reaches the page sees what this certificate may see; say `--to-everybody` if \
                 that is meant, or take 127.0.0.1 and a tunnel",
                args.listen
            ),
        });
    }
    let config = args.connection.resolve()?;
    let client = ClientConfig { patience: Patience::Within(PATIENCE), ..args.connection.client(config)? };
    let consortium = client.credentials.identity().consortium.to_string();
    runtime()?.block_on(async {
        let listener = TcpListener::bind(args.listen).await.map_err(|source| Error::Serve { source })?;
        let address = listener.local_addr().map_err(|source| Error::Serve { source })?;
        let client = Client::connect(client).await?;
        output.note(format!("the page of `{consortium}` is at http://{address}/ until Ctrl-C"));
        crate::page::serve(listener, consortium, client).await
    })
}

/// How long whoever looks waits until what was seen last is shown instead.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(4);
