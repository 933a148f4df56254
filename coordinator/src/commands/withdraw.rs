//! `withdraw`: takes conditions out of a reference again.

use archipelago_common::{ConditionKey, Name, SiteId, act::Erasure};
use archipelago_protocol::message::{Reply, Request, Withdrawal};
use clap::{ArgGroup, Args};

use super::{Connection, audit, reference, unexpected};
use crate::{error::Result, output::Output};

/// Take a site's conditions, or some keys, out of a reference: a new version without them, bit for bit as if they had
/// never been merged. The lineage keeps the record, and coordinators keep the columns, for audit.
///
/// With --erase every coordinator deletes the columns, and the embeddings that were handed in with them: at once, or when it is up again. Digests
/// and a receipt stay (`audit erasures`). What was withdrawn before can be erased so as well. It cannot be undone. Copies that sites or
/// operators have downloaded are with them.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("what").required(true).args(["site", "conditions"])))]
#[command(after_help = "Examples:\n  \
    archipelago-coordinator withdraw lung --site north --config operator.toml\n  \
    archipelago-coordinator withdraw lung --condition north/pbmc/batch1 --config operator.toml\n  \
    archipelago-coordinator withdraw lung --site north --erase --config operator.toml")]
pub struct WithdrawArgs {
    /// The reference.
    reference: Name,
    /// All conditions of this site.
    #[arg(long)]
    site: Option<SiteId>,
    /// This condition; may be given several times.
    #[arg(long = "condition", value_name = "KEY")]
    conditions: Vec<ConditionKey>,
    /// Delete what the conditions hold on every coordinator.
    #[arg(long)]
    erase: bool,
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
    let reference = args.reference.clone();
    if args.erase {
        let receipts = args.connection.talk(async |client| {
            match client.request(Request::Erase { reference, what: what.clone() }).await? {
                Reply::Reference(_) => Ok(client.erasures().await?),
                reply => Err(unexpected(reply)),
            }
        })?;
        let is_meant = |key: &ConditionKey| match &what {
            Withdrawal::Site(site) => key.owner() == site,
            Withdrawal::Keys(keys) => keys.contains(key),
        };
        let of_these = |receipt: &Erasure| receipt.reference == args.reference && is_meant(&receipt.key);
        let receipts: Vec<_> = receipts.into_iter().filter(of_these).collect();
        output.show(&receipts, audit::receipts(&receipts));
        return Ok(());
    }
    let history =
        args.connection.talk(async |client| match client.request(Request::Withdraw { reference, what }).await? {
            Reply::Reference(_) => Ok(client.history(&args.reference).await?),
            reply => Err(unexpected(reply)),
        })?;
    output.show(&history, reference::text(&history));
    output.note("coordinators keep the columns of what was withdrawn, for audit; `withdraw --erase` deletes them");
    Ok(())
}
