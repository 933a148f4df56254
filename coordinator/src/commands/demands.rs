//! `demands`: what the consortium demands of those who act in it.

use std::collections::BTreeSet;

use archipelago_common::proposal::Demand;
use archipelago_protocol::message::{Reply, Request};
use clap::{Args, Subcommand};

use super::{Connection, unexpected};
use crate::{error::Result, output::Output};

/// See and change what the consortium demands: two persons for an act, and signatures.
///
/// As soon as anything demands two persons, a change of demands does too. Whoever has the authority's key can certify a second person: two
/// persons hold against one operator, and not against whoever keeps that key.
#[derive(Subcommand, Debug)]
#[expect(missing_docs, reason = "the documentation of the arguments is the help text")]
pub enum DemandsCommand {
    List(ListArgs),
    Add(ChangeArgs),
    Lift(LiftArgs),
}

/// List what is demanded.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-coordinator demands list --config operator.toml")]
pub struct ListArgs {
    #[command(flatten)]
    connection: Connection,
}

/// Demand something from here on.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  archipelago-coordinator demands add two-to-publish --config operator.toml\n  \
    archipelago-coordinator demands add signatures --config operator.toml")]
pub struct ChangeArgs {
    /// signatures, two-to-publish, two-to-revoke, two-to-withdraw (what is another's) or two-to-change-members.
    demand: Demand,
    #[command(flatten)]
    connection: Connection,
}

/// Demand something no more.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-coordinator demands lift two-to-publish --config operator.toml")]
pub struct LiftArgs {
    /// As `demands list` says it.
    demand: Demand,
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
///
/// # Errors  the cluster's refusal, or that it cannot be reached
pub fn run(command: &DemandsCommand, output: &Output) -> Result<()> {
    let (connection, request) = match command {
        DemandsCommand::List(args) => (&args.connection, Request::ShowDemands),
        DemandsCommand::Add(args) => (&args.connection, Request::Demand { demand: args.demand, holds: true }),
        DemandsCommand::Lift(args) => (&args.connection, Request::Demand { demand: args.demand, holds: false }),
    };
    match connection.ask(request)? {
        Reply::Demands(demands) => output.show(&demands, text(&demands)),
        reply => return Err(unexpected(reply)),
    }
    Ok(())
}

fn text(demands: &BTreeSet<Demand>) -> String {
    let lines: Vec<_> = demands.iter().map(|demand| format!("{demand:<22}  {}", meaning(*demand))).collect();
    if lines.is_empty() { "nothing is demanded: `demands add` demands something".to_owned() } else { lines.join("\n") }
}

fn meaning(demand: Demand) -> &'static str {
    match demand {
        Demand::Signatures => "references and tasks are signed",
        Demand::TwoPublish => "two persons publish a reference",
        Demand::TwoRevoke => "two persons shut somebody, or a key, out",
        Demand::TwoWithdraw => "two persons withdraw what is another's",
        Demand::TwoChangeMembers => "two persons add, promote or remove a coordinator",
    }
}
