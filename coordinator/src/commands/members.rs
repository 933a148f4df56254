//! `members`: the coordinators themselves.

use std::fmt::Write as _;

use archipelago_common::{
    NodeId,
    member::{MemberRole, MemberStatus, MembersRecord},
};
use archipelago_protocol::message::{Reply, Request};
use clap::{Args, Subcommand};

use super::{Connection, unexpected};
use crate::{error::Result, output::Output};

/// List, add, promote and remove coordinators, and choose who leads.
///
/// To replace a node whose disk is lost: `members add` a new id, `init --join` and `serve` it, `members promote` it when
/// `members list` shows that it has caught up, and `members remove` the old one.
#[derive(Subcommand, Debug)]
#[expect(missing_docs, reason = "the documentation of the arguments is the help text")]
pub enum MembersCommand {
    List(ListArgs),
    Add(AddArgs),
    Promote(NodeArgs),
    Remove(RemoveArgs),
    Transfer(TransferArgs),
}

/// List every coordinator that is or was a member.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-coordinator members list --config operator.toml")]
pub struct ListArgs {
    #[command(flatten)]
    connection: Connection,
}

/// Add a coordinator as a learner: it gets everything and counts for nothing until it is promoted.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-coordinator members add 4 10.0.0.4:7101 --config operator.toml")]
pub struct AddArgs {
    /// Its id, never used before: a node that lost its disk may have voted, and comes back under another id.
    node: NodeId,
    /// Where the others and the sites reach it, `host:port`.
    address: String,
    #[command(flatten)]
    connection: Connection,
}

/// Make a learner that has caught up a voter.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-coordinator members promote 4 --config operator.toml")]
pub struct NodeArgs {
    /// Its id.
    node: NodeId,
    #[command(flatten)]
    connection: Connection,
}

/// Take a coordinator out for good. Its id is never used again.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-coordinator members remove 3 --config operator.toml")]
pub struct RemoveArgs {
    /// Its id.
    node: NodeId,
    #[command(flatten)]
    connection: Connection,
}

/// Have another coordinator lead, before maintenance say. (A leader that is stopped with SIGTERM does so by itself.)
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-coordinator members transfer --to 2 --config operator.toml")]
pub struct TransferArgs {
    /// Which [default: the one that is furthest]
    #[arg(long)]
    to: Option<NodeId>,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
///
/// # Errors  the cluster's refusal, or that it cannot be reached
pub fn run(command: &MembersCommand, output: &Output) -> Result<()> {
    let (connection, request) = match command {
        MembersCommand::List(args) => (&args.connection, Request::ListMembers),
        MembersCommand::Add(args) => {
            (&args.connection, Request::AddMember { node: args.node, address: args.address.clone() })
        }
        MembersCommand::Promote(args) => (&args.connection, Request::PromoteMember { node: args.node }),
        MembersCommand::Remove(args) => (&args.connection, Request::RemoveMember { node: args.node }),
        MembersCommand::Transfer(args) => (&args.connection, Request::TransferLeadership { to: args.to }),
    };
    match connection.ask(request)? {
        Reply::Members(members) => output.show(&members, table(&members)),
        reply => return Err(unexpected(reply)),
    }
    Ok(())
}

fn table(record: &MembersRecord) -> String {
    let mut text = String::new();
    for MemberStatus { member, is_settled, is_active, entries_behind } in &record.members {
        let mut notes = Vec::new();
        if record.leader == Some(member.node) {
            notes.push("leads".to_owned());
        } else if member.role != MemberRole::Removed && !is_active {
            notes.push("not heard of".to_owned());
        } else if *entries_behind > 0 {
            notes.push(format!("{entries_behind} entries behind"));
        }
        if !is_settled {
            notes.push("change under way".to_owned());
        }
        let notes = if notes.is_empty() { String::new() } else { format!("  ({})", notes.join(", ")) };
        let _ = writeln!(text, "{}  {:<7}  {}{notes}", member.node, role(member.role), member.address);
    }
    if text.is_empty() { "the founders are not written down yet".to_owned() } else { text }
}

fn role(role: MemberRole) -> &'static str {
    match role {
        MemberRole::Learner => "learner",
        MemberRole::Voter => "voter",
        MemberRole::Removed => "removed",
    }
}
