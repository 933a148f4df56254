//! `status`: how the cluster is.

use archipelago_common::{
    health::{HealthRecord, OfNode},
    record::StatusRecord,
};
use archipelago_protocol::message::{Reply, Request};
use clap::Args;

use serde::Serialize;

use super::{Connection, unexpected, utc};
use crate::{error::Result, output::Output};

/// Show the cluster's state as the node that answers sees it, and how every coordinator is.
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
    let (status, health) = args.connection.talk(async |client| {
        let status = match client.request(Request::Status).await? {
            Reply::Status(status) => status,
            reply => return Err(unexpected(reply)),
        };
        // Coordinators of the first version do not say; whoever may ask for the one may ask for the other.
        let health = match client.request(Request::ShowHealth).await {
            Ok(Reply::Health(health)) => health,
            _ => Vec::new(),
        };
        Ok((status, health))
    })?;
    let lines: String = health.iter().map(|of_node| format!("\n{}", health_line(of_node))).collect();
    let text = text(&status) + &lines;
    output.show(&Shown { status, coordinators: health }, text);
    Ok(())
}

/// What is shown.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    status: StatusRecord,
    coordinators: Vec<OfNode<HealthRecord>>,
}

/// A coordinator's health for people, on one line; a second one says what to do where there is something.
pub(super) fn health_line(OfNode { node, answer }: &OfNode<HealthRecord>) -> String {
    let Some(health) = answer else { return format!("node {node}      no answer") };
    let mut notes = vec![health.state.to_string()];
    notes.extend(health.disk_free_bytes.map(|bytes| format!("{} MiB free", bytes >> 20)));
    if health.blobs_missing > 0 {
        notes.push(format!("{} blobs missing", health.blobs_missing));
    }
    if health.blobs_damaged > 0 {
        notes.push(format!("{} blobs were damaged: look at its disk", health.blobs_damaged));
    }
    if health.is_verifying {
        notes.push("verifying blobs".to_owned());
    }
    notes.extend(health.verified_ms.map(|at_ms| format!("blobs verified {}", utc(at_ms))));
    let advice = health.state.advice().map_or(String::new(), |advice| format!("\n            {advice}"));
    format!("node {node}      {}{advice}", notes.join(", "))
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
