//! `refuse`: says no to a site that asks.

use archipelago_common::SiteId;
use archipelago_protocol::message::{Reply, Request};
use clap::Args;

use super::{Connection, requests, unexpected};
use crate::{error::Result, output::Output};

/// Say no to a site that asks to be let in, or take back an invitation that nobody has used.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  archipelago-coordinator refuse north --reason \"the key is another\" --config operator.toml"
)]
pub struct RefuseArgs {
    /// The site's name.
    site: SiteId,
    /// Why, for the site to read.
    #[arg(long, default_value = "the operator said no")]
    reason: String,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
///
/// # Errors  the cluster's refusal, or that it cannot be reached
pub fn run(args: &RefuseArgs, output: &Output) -> Result<()> {
    let request = Request::RefuseSite { site: args.site.clone(), reason: args.reason.clone() };
    match args.connection.ask(request)? {
        Reply::Enrolment(record) => output.show(&record, requests::line(&record)),
        reply => return Err(unexpected(reply)),
    }
    Ok(())
}
