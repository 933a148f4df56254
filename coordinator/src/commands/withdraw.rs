//! `withdraw`: takes conditions out of a reference again.

use archipelago_common::{ConditionKey, Name, SiteId};
use archipelago_protocol::message::{Reply, Request, Withdrawal};
use clap::{ArgGroup, Args};

use super::{Connection, reference, unexpected};
use crate::{error::Result, output::Output};

/// Take a site's conditions, or some keys, out of a reference: a new version without them, bit for bit as if they had
/// never been merged. The lineage keeps the record.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("what").required(true).args(["site", "conditions"])))]
#[command(after_help = "Examples:\n  \
    archipelago-coordinator withdraw lung --site north --config operator.toml\n  \
    archipelago-coordinator withdraw lung --condition north/pbmc/batch1 --config operator.toml")]
pub struct WithdrawArgs {
    /// The reference.
    reference: Name,
    /// All conditions of this site.
    #[arg(long)]
    site: Option<SiteId>,
    /// This condition; may be given several times.
    #[arg(long = "condition", value_name = "KEY")]
    conditions: Vec<ConditionKey>,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
///
/// # Errors  the cluster's refusal, or that it cannot be reached
pub fn run(args: &WithdrawArgs, output: &Output) -> Result<()> {
    let what = match &args.site {
        Some(site) => Withdrawal::Site(site.clone()),
        None => Withdrawal::Keys(args.conditions.clone()),
    };
    let history = args.connection.talk(async |client| {
        match client.request(Request::Withdraw { reference: args.reference.clone(), what }).await? {
            Reply::Reference(_) => Ok(client.history(&args.reference).await?),
            reply => Err(unexpected(reply)),
        }
    })?;
    output.show(&history, reference::text(&history));
    Ok(())
}
