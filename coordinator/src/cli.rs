//! The command line: what can be asked, and how the answer is written.

use archipelago_common::telemetry::{self, LogFormat};
use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::{
    commands::{
        approve, audit, blobs, ca, clock, completions, demands, doctor, events, found, init, invite, members, page,
        proposals, reference, refuse, requests, revoke, serve, site, status, task, withdraw,
    },
    error::Result,
    output::{Format, Output},
};

/// The coordinator of a consortium: keeps versioned reference models and publishes surgery tasks.
///
/// `serve` runs a node. The other commands found a consortium (`found`, or by hand `ca` and `init`) or ask the running cluster as an operator.
#[derive(Parser, Debug)]
#[command(
    name = "archipelago-coordinator",
    version,
    after_help = "Example, a consortium with one coordinator:\n  \
        archipelago-coordinator found lung --nodes 127.0.0.1:7101 --operator anna\n  \
        archipelago-coordinator serve --config lung/node1/node.toml\n  \
        archipelago-coordinator invite north --config lung/operator/operator.toml\n  \
        archipelago-coordinator approve north --config lung/operator/operator.toml"
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Verb,
}

/// Flags of every command.
#[derive(Args, Debug)]
struct Global {
    /// How results are written to stdout.
    #[arg(long, global = true, value_enum, default_value_t = Format::Text, env = "ARCHIPELAGO_FORMAT")]
    format: Format,
    /// Say nothing but errors and results.
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Say every step.
    #[arg(long, short, global = true)]
    verbose: bool,
    /// Write the log as JSON, one object per line.
    #[arg(long, global = true, env = "ARCHIPELAGO_LOG_JSON")]
    log_json: bool,
}

#[derive(Subcommand, Debug)]
enum Verb {
    Found(found::FoundArgs),
    Serve(serve::ServeArgs),
    Invite(invite::InviteArgs),
    Requests(requests::RequestsArgs),
    Approve(approve::ApproveArgs),
    Refuse(refuse::RefuseArgs),
    Revoke(revoke::RevokeArgs),
    #[command(subcommand)]
    Proposals(proposals::ProposalsCommand),
    #[command(subcommand)]
    Demands(demands::DemandsCommand),
    #[command(subcommand)]
    Ca(ca::CaCommand),
    Init(init::InitArgs),
    #[command(subcommand)]
    Site(site::SiteCommand),
    #[command(subcommand)]
    Reference(reference::ReferenceCommand),
    #[command(subcommand)]
    Task(task::TaskCommand),
    Withdraw(withdraw::WithdrawArgs),
    #[command(subcommand)]
    Members(members::MembersCommand),
    #[command(subcommand)]
    Blobs(blobs::BlobsCommand),
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    #[command(subcommand)]
    Clock(clock::ClockCommand),
    Status(status::StatusArgs),
    Events(events::EventsArgs),
    Page(page::PageArgs),
    Doctor(doctor::DoctorArgs),
    Completions(completions::CompletionsArgs),
}

/// Runs the command that the process was started with.
///
/// # Errors  what the command failed with
pub fn run() -> Result<()> {
    let Cli { global, command } = Cli::parse();
    let level = match (&command, global.quiet, global.verbose) {
        (_, true, _) => "error",
        (_, _, true) => "debug,quinn=info,rustls=info",
        // A server tells what happens; a command only warns.
        (Verb::Serve(_), _, _) => "info",
        _ => "warn",
    };
    telemetry::init(level, if global.log_json { LogFormat::Json } else { LogFormat::Text });
    let output = Output { format: global.format, is_quiet: global.quiet };
    match &command {
        Verb::Found(args) => found::run(args, &output),
        Verb::Serve(args) => serve::run(args, &output),
        Verb::Invite(args) => invite::run(args, &output),
        Verb::Requests(args) => requests::run(args, &output),
        Verb::Approve(args) => approve::run(args, &output),
        Verb::Refuse(args) => refuse::run(args, &output),
        Verb::Revoke(args) => revoke::run(args, &output),
        Verb::Proposals(command) => proposals::run(command, &output),
        Verb::Demands(command) => demands::run(command, &output),
        Verb::Ca(command) => ca::run(command, &output),
        Verb::Init(args) => init::run(args, &output),
        Verb::Site(command) => site::run(command, &output),
        Verb::Reference(command) => reference::run(command, &output),
        Verb::Task(command) => task::run(command, &output),
        Verb::Withdraw(args) => withdraw::run(args, &output),
        Verb::Members(command) => members::run(command, &output),
        Verb::Blobs(command) => blobs::run(command, &output),
        Verb::Audit(command) => audit::run(command, &output),
        Verb::Clock(command) => clock::run(command, &output),
        Verb::Status(args) => status::run(args, &output),
        Verb::Events(args) => events::run(args, &output),
        Verb::Page(args) => page::run(args, &output),
        Verb::Doctor(args) => doctor::run(args, &output),
        Verb::Completions(args) => completions::run(args, Cli::command()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_command_has_two_flags_of_one_name() {
        fn check(command: &clap::Command) {
            let mut seen = BTreeSet::new();
            for flag in command.get_arguments().filter_map(clap::Arg::get_long) {
                assert!(seen.insert(flag), "`{}` has --{flag} twice", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        let mut command = Cli::command();
        command.build();
        check(&command);
    }

    #[test]
    fn every_command_teaches_with_an_example() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            if command.has_subcommands() {
                command.get_subcommands().for_each(|inner| check(inner, &path));
            } else {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains(path.trim()), "`{path}` has no example");
            }
        }
        let command = Cli::command();
        command.clone().debug_assert();
        command.get_subcommands().for_each(|inner| check(inner, "archipelago-coordinator"));
    }
}
