//! `proposals`: what two persons do together.

use archipelago_common::{
    proposal::{Proposal, ProposalState},
    text::printable,
};
use archipelago_protocol::message::{Reply, Request};
use clap::{Args, Subcommand};

use super::{Connection, invite::coordinators_time, unexpected, utc};
use crate::{error::Result, output::Output};

/// See, approve and decline what somebody has proposed because two persons are to do it.
///
/// Where a consortium demands two persons for an act (`demands`), whoever says it alone proposes it. Another person approves it: of another
/// name and with another key, and with the role that it needs. What nobody approves within a week comes to nothing.
#[derive(Subcommand, Debug)]
#[expect(missing_docs, reason = "the documentation of the arguments is the help text")]
pub enum ProposalsCommand {
    List(ListArgs),
    Approve(ApproveArgs),
    Decline(DeclineArgs),
}

/// List the proposals that wait.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-coordinator proposals list --config operator.toml")]
pub struct ListArgs {
    /// Also those that were done, declined or not approved in time, lately.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Approve what another person has proposed: it is done at once, in their name.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-coordinator proposals approve 7 --config operator.toml")]
pub struct ApproveArgs {
    /// Its number.
    number: u64,
    #[command(flatten)]
    connection: Connection,
}

/// Say no to what was proposed, or take back what you have proposed yourself.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  archipelago-coordinator proposals decline 7 --reason \"not this one\" --config operator.toml"
)]
pub struct DeclineArgs {
    /// Its number.
    number: u64,
    /// Why, for everybody to read.
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
///
/// # Errors  the cluster's refusal, or that it cannot be reached
pub fn run(command: &ProposalsCommand, output: &Output) -> Result<()> {
    let (connection, request) = match command {
        ProposalsCommand::List(args) => return list(args, output),
        ProposalsCommand::Approve(args) => (&args.connection, Request::ApproveProposal { number: args.number }),
        ProposalsCommand::Decline(args) => {
            (&args.connection, Request::DeclineProposal { number: args.number, reason: args.reason.clone() })
        }
    };
    match connection.ask(request)? {
        Reply::Proposal(proposal) => output.show(&proposal, line(&proposal)),
        reply => return Err(unexpected(reply)),
    }
    Ok(())
}

fn list(args: &ListArgs, output: &Output) -> Result<()> {
    let (mut proposals, now_ms) =
        args.connection.talk(async |client| Ok((client.proposals().await?, coordinators_time(client).await?)))?;
    proposals.retain(|proposal| args.all || proposal.waits(now_ms));
    let said = |proposal: &Proposal| match proposal.state == ProposalState::Waits && !proposal.waits(now_ms) {
        true => format!("{}\n    nobody approved it in time\n", heading(proposal)),
        false => line(proposal) + "\n",
    };
    let lines: String = proposals.iter().map(said).collect();
    output.show(&proposals, if lines.is_empty() { "nothing waits for a second person".to_owned() } else { lines });
    Ok(())
}

/// A proposal, and what to do with it.
pub(super) fn line(proposal: &Proposal) -> String {
    let (number, role) = (proposal.number, proposal.role.as_str());
    let more = match &proposal.state {
        ProposalState::Waits => format!(
            "waits until {}: another {role} or operator says `proposals approve {number}`, or `proposals decline {number}`",
            utc(proposal.expires_ms)
        ),
        ProposalState::Done { by, at_ms, .. } => format!("approved by {by} and done {}", utc(*at_ms)),
        ProposalState::Declined { by, reason, at_ms } => {
            let reason = printable(reason, REASON_CHARS);
            let reason = if reason.is_empty() { reason } else { format!(": {reason}") };
            format!("declined by {by} {}{reason}", utc(*at_ms))
        }
    };
    format!("{}\n    {more}", heading(proposal))
}

fn heading(Proposal { number, deed, by, key, at_ms, .. }: &Proposal) -> String {
    format!("{number}  {}\n    proposed by {by} {}, with key {key}", printable(deed, DEED_CHARS), utc(*at_ms))
}

/// Characters of a reason that are shown.
const REASON_CHARS: usize = 200;
/// Characters of what is proposed that are shown.
const DEED_CHARS: usize = 1_000;
