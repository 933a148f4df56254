//! `site`: who takes part.

use std::fmt::Write as _;

use archipelago_common::{SiteId, record::SiteRecord};
use archipelago_protocol::message::{Reply, Request};
use clap::{Args, Subcommand};

use super::{Connection, unexpected, utc};
use crate::{error::Result, output::Output};

/// Enrol, revoke and list sites.
#[derive(Subcommand, Debug)]
#[expect(missing_docs, reason = "the documentation of the arguments is the help text")]
pub enum SiteCommand {
    Add(AddArgs),
    Revoke(RevokeArgs),
    List(ListArgs),
}

/// Enrol a site: its certificate lets it in from now on.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-coordinator site add north --config operator.toml")]
pub struct AddArgs {
    /// The site's name, as in its certificate.
    site: SiteId,
    #[command(flatten)]
    connection: Connection,
}

/// Shut a site out and cut its sessions. What it contributed stays until it is withdrawn.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-coordinator site revoke north --config operator.toml")]
pub struct RevokeArgs {
    /// The site's name.
    site: SiteId,
    #[command(flatten)]
    connection: Connection,
}

/// List all sites.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-coordinator site list --config operator.toml")]
pub struct ListArgs {
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
///
/// # Errors  the cluster's refusal, or that it cannot be reached
pub fn run(command: &SiteCommand, output: &Output) -> Result<()> {
    let (connection, request) = match command {
        SiteCommand::Add(args) => (&args.connection, Request::AddSite { site: args.site.clone() }),
        SiteCommand::Revoke(args) => (&args.connection, Request::RevokeSite { site: args.site.clone() }),
        SiteCommand::List(args) => {
            let sites = args.connection.talk(async |client| Ok(client.sites().await?))?;
            output.show(&sites, table(&sites));
            return Ok(());
        }
    };
    match connection.ask(request)? {
        Reply::Site(site) => output.show(&site, line(&site)),
        reply => return Err(unexpected(reply)),
    }
    Ok(())
}

fn line(SiteRecord { site, enrolled_ms, revoked_ms }: &SiteRecord) -> String {
    match revoked_ms {
        None => format!("{site}  enrolled {}", utc(*enrolled_ms)),
        Some(revoked_ms) => format!("{site}  enrolled {}, revoked {}", utc(*enrolled_ms), utc(*revoked_ms)),
    }
}

fn table(sites: &[SiteRecord]) -> String {
    let mut text = String::new();
    for site in sites {
        let _ = writeln!(text, "{}", line(site));
    }
    if text.is_empty() { "no sites".to_owned() } else { text }
}
