//! `site`: who takes part.

use std::{collections::BTreeMap, fmt::Write as _};

use archipelago_client::Client;
use archipelago_common::{
    Principal, SiteId, TaskId,
    contact::SiteContact,
    enrolment::{CertifiedKey, EnrolmentRecord},
    record::{AssignmentHead, SiteRecord},
    standing::Standing,
};
use archipelago_protocol::message::{Reply, Request, Which};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Connection, certified::end_of, invite::coordinators_time, pace::Pace, requests, task, unexpected, utc};
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

/// List all sites with what they are at, and those that ask to be let in.
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
            let (listed, waiting, pace, now_ms) = args.connection.talk(async |client| {
                // Coordinators of before protocol 7 know of neither, and of before 8 only the keys of those who were invited.
                let waiting = client.enrolments().await.unwrap_or_default();
                let mut keys = certified_sites(client).await;
                let mut work = open_work(client).await?;
                // Those of before protocol 10 do not say whom they hear.
                let mut contacts = client.contacts().await.unwrap_or_default();
                let listed = client.sites().await?.into_iter();
                let listed = listed.map(|record| Listed {
                    certified: keys.remove(&record.site),
                    tasks: work.remove(&record.site).unwrap_or_default(),
                    contact: contacts.remove(&record.site),
                    record,
                });
                let waiting: Vec<_> = waiting.into_iter().filter(requests::is_waiting).collect();
                Ok((listed.collect::<Vec<_>>(), waiting, Pace::ask(client).await, coordinators_time(client).await?))
            })?;
            output.show(&listed, table(&listed, &waiting, &pace, now_ms));
            return Ok(());
        }
    };
    match connection.ask(request)? {
        Reply::Site(site) => output.show(&site, line(&site)),
        reply => return Err(unexpected(reply)),
    }
    Ok(())
}

/// The key that counts for each site, or the one that it has come with, and until when.
async fn certified_sites(client: &Client) -> BTreeMap<SiteId, CertifiedKey> {
    let Ok(standings) = client.standings().await else { return client.keys().await.unwrap_or_default() };
    let of_site = |standing: Standing| match (standing.who, standing.certified) {
        (Principal::Site(site), Some(certified)) => Some((site, certified)),
        _ => None,
    };
    standings.into_iter().filter_map(of_site).collect()
}

/// How each site stands with the open tasks that it claimed.
async fn open_work(client: &Client) -> Result<BTreeMap<SiteId, BTreeMap<TaskId, AssignmentHead>>> {
    let mut work: BTreeMap<SiteId, BTreeMap<TaskId, AssignmentHead>> = BTreeMap::new();
    for head in client.tasks(Which::Open).await?.iter().filter(|head| head.n_assigned > 0) {
        for (site, assignment) in client.assignments(head.id).await? {
            work.entry(site).or_default().insert(head.id, assignment);
        }
    }
    Ok(work)
}

fn line(SiteRecord { site, enrolled_ms, revoked_ms }: &SiteRecord) -> String {
    match revoked_ms {
        None => format!("{site}  enrolled {}", utc(*enrolled_ms)),
        Some(revoked_ms) => format!("{site}  enrolled {}, revoked {}", utc(*enrolled_ms), utc(*revoked_ms)),
    }
}

/// A site, the key that counts for it, and what it is at.
#[derive(Serialize)]
struct Listed {
    #[serde(flatten)]
    record: SiteRecord,
    #[serde(skip_serializing_if = "Option::is_none")]
    certified: Option<CertifiedKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    contact: Option<SiteContact>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tasks: BTreeMap<TaskId, AssignmentHead>,
}

/// Whether a site is there, in words; nothing where the leader has not heard it since it started.
pub(super) fn contact_text(contact: &SiteContact) -> String {
    let SiteContact { is_online, since_ms, last_ms, .. } = contact;
    match is_online {
        true => format!("online since {}", utc(*since_ms)),
        false => format!("not here, last heard {}", utc(*last_ms)),
    }
}

fn table(sites: &[Listed], waiting: &[EnrolmentRecord], pace: &Pace, now_ms: u64) -> String {
    let mut text = String::new();
    for Listed { record, certified, contact, tasks } in sites {
        let _ = writeln!(text, "{}", line(record));
        if let Some(CertifiedKey { key, expires_ms }) = certified.filter(|_| record.revoked_ms.is_none()) {
            let _ = writeln!(
                text,
                "    key {key}, its certificate {}",
                end_of(&Principal::Site(record.site.clone()), expires_ms, now_ms)
            );
        }
        if let Some(contact) = contact.as_ref().filter(|_| record.revoked_ms.is_none()) {
            let _ = writeln!(text, "    {}", contact_text(contact));
        }
        for (id, assignment) in tasks {
            let _ = writeln!(
                text,
                "    task {id}: {}",
                task::assignment_text(assignment, pace.remaining_s(&record.site, *id, assignment))
            );
        }
    }
    for record in waiting {
        let _ = writeln!(text, "{}", requests::line(record));
    }
    if text.is_empty() { "no sites".to_owned() } else { text }
}
