//! `status`: how the cluster is.

use archipelago_common::{
    Principal,
    health::{HealthRecord, OfNode},
    limits,
    record::StatusRecord,
    standing::Standing,
};
use archipelago_protocol::message::{Reply, Request};
use clap::Args;

use serde::Serialize;

use super::{Connection, certified, invite::coordinators_time, signing::now_ms as now_ms_here, unexpected, utc};
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
    let (status, health, standings, online, now_ms) = args.connection.talk(async |client| {
        let status = match client.request(Request::Status).await? {
            Reply::Status(status) => status,
            reply => return Err(unexpected(reply)),
        };
        // Coordinators of the first version do not say; whoever may ask for the one may ask for the other.
        let health = match client.request(Request::ShowHealth).await {
            Ok(Reply::Health(health)) => health,
            _ => Vec::new(),
        };
        // Sites may not ask, coordinators of before protocol 8 do not know, and where nobody leads nobody can say.
        let (standings, now_ms) = match status.leader {
            Some(_) => (client.standings().await.unwrap_or_default(), coordinators_time(client).await.ok()),
            None => (Vec::new(), None),
        };
        // Not everybody may ask, and coordinators of before protocol 10 do not know.
        let contacts = client.contacts().await.ok();
        let online = contacts.map(|sites| sites.values().filter(|contact| contact.is_online).count());
        Ok((status, health, standings, online, now_ms.unwrap_or_else(now_ms_here)))
    })?;
    let lines: String = health.iter().map(|of_node| format!("\n{}", health_line(of_node))).collect();
    let text = text(&status, online) + &lines + &certificates(&standings, now_ms);
    output.show(&Shown { status, sites_online: online, coordinators: health, certificates: standings }, text);
    Ok(())
}

/// What is shown.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    status: StatusRecord,
    #[serde(skip_serializing_if = "Option::is_none")]
    sites_online: Option<usize>,
    coordinators: Vec<OfNode<HealthRecord>>,
    certificates: Vec<Standing>,
}

/// Everybody's standing; of sites, which may be many and have a list of their own, only what ends soon.
fn certificates(standings: &[Standing], now_ms: u64) -> String {
    let ends_soon = |standing: &Standing| {
        let soon_ms = now_ms.saturating_add(limits::CERTIFICATE_WARNING_MS);
        standing.revoked.is_none() && standing.certified.is_some_and(|certified| certified.expires_ms <= soon_ms)
    };
    let is_shown = |standing: &&Standing| !matches!(standing.who, Principal::Site(_)) || ends_soon(standing);
    standings.iter().filter(is_shown).map(|standing| format!("\n{}", certified::line(standing, now_ms))).collect()
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

fn text(status: &StatusRecord, online: Option<usize>) -> String {
    let leader = status.leader.map_or("none".to_owned(), |leader| leader.to_string());
    let online = online.map_or(String::new(), |n| format!(", {n} of them here"));
    let voters = status.voters.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    format!(
        "node        {}\nleader      {leader}\nterm        {}\napplied     {}\nvoters      {voters}\nreferences  {}\n\
         sites       {}{online}\nopen tasks  {}\nblobs       {} ({} bytes)",
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
