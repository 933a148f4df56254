//! `requests`: who asks to be let in, or for another certificate.

use archipelago_common::{
    enrolment::{EnrolmentRecord, EnrolmentState},
    text::printable,
};
use clap::Args;

use super::{Connection, utc};
use crate::{error::Result, output::Output};

/// List the sites that ask to be let in, or for another certificate, with the fingerprints of their keys.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-coordinator requests --config operator.toml")]
pub struct RequestsArgs {
    /// Also show invitations that nobody has used, and those that were answered.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
///
/// # Errors  the cluster's refusal, or that it cannot be reached
pub fn run(args: &RequestsArgs, output: &Output) -> Result<()> {
    let mut records = args.connection.talk(async |client| Ok(client.enrolments().await?))?;
    records.retain(|record| args.all || is_waiting(record));
    records.sort_by(|a, b| a.site.cmp(&b.site));
    let lines: String = records.iter().map(|record| line(record) + "\n").collect();
    let none = if args.all { "no invitations" } else { "nobody asks to be let in, or for another certificate" };
    output.show(&records, if lines.is_empty() { none.to_owned() } else { lines });
    Ok(())
}

/// Whether an operator has something to say to it. One that has ended meanwhile is refused there, in words.
pub(super) fn is_waiting(record: &EnrolmentRecord) -> bool {
    matches!(record.state, EnrolmentState::Asked { .. } | EnrolmentState::Renewing { .. })
}

/// An invitation and what has come of it, for people.
pub(super) fn line(record: &EnrolmentRecord) -> String {
    let EnrolmentRecord { site, invited_by, invited_ms, expires_ms, state, .. } = record;
    let invited = format!("invited by {invited_by} {}", utc(*invited_ms));
    match state {
        EnrolmentState::Invited => format!("{site}  {invited}, has not asked; good until {}", utc(*expires_ms)),
        EnrolmentState::Asked { key, at_ms, .. } => {
            format!(
                "{site}  asks to be let in since {}, {invited}\n    key {key}\n    approve {site}, or refuse {site}, until {}",
                utc(*at_ms),
                utc(*expires_ms)
            )
        }
        EnrolmentState::Renewing { key, at_ms, .. } => {
            format!(
                "{site}  asks for another certificate since {}, signed with the key that it has\n    new key {key}\n    \
                 approve {site}, or refuse {site}, until {}",
                utc(*at_ms),
                utc(*expires_ms)
            )
        }
        EnrolmentState::Approved { key, by, at_ms, .. } => {
            format!("{site}  approved by {by} {}\n    key {key}", utc(*at_ms))
        }
        EnrolmentState::Refused { reason, by, at_ms, .. } => {
            format!("{site}  refused by {by} {}: {}", utc(*at_ms), printable(reason, REASON_CHARS))
        }
    }
}

/// Characters of a reason that are shown.
const REASON_CHARS: usize = 200;
