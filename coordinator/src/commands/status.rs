//! `status`: how the cluster is.

use archipelago_common::record::StatusRecord;
use archipelago_protocol::message::{Reply, Request};
use clap::Args;

use super::{Connection, unexpected};
use crate::{error::Result, output::Output};

/// Show the cluster's state as the node that answers sees it.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-coordinator status --config operator.toml")]
pub struct StatusArgs {
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
///
/// # Errors  the cluster's refusal, or that it cannot be reached
pub fn run(args: &StatusArgs, output: &Output) -> Result<()> {
    match args.connection.ask(Request::Status)? {
        Reply::Status(status) => output.show(&status, text(&status)),
        reply => return Err(unexpected(reply)),
    }
    Ok(())
}

fn text(status: &StatusRecord) -> String {
    let leader = status.leader.map_or("none".to_owned(), |leader| leader.to_string());
    let voters = status.voters.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    format!(
        "node        {}\nleader      {leader}\nterm        {}\napplied     {}\nvoters      {voters}\nreferences  {}\n\
         sites       {}\nopen tasks  {}\nblobs       {} ({} bytes)",
        status.node,
        status.term,
        status.applied,
        status.references,
        status.sites,
        status.open_tasks,
        status.blobs,
        status.blob_bytes
    )
}
