//! `clock`: what time it is, where coordinators cannot agree on it.

use archipelago_protocol::message::{Reply, Request};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Connection, unexpected, utc};
use crate::{clock, error::Result, output::Output};

/// Say what time it is.
#[derive(Subcommand, Debug)]
#[expect(missing_docs, reason = "the documentation of the arguments is the help text")]
pub enum ClockCommand {
    Set(SetArgs),
}

/// Set the consortium's time to this machine's clock, forwards or back. Who holds a lease keeps what is left of it; a task
/// whose deadline is over then ends.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-coordinator clock set --config operator.toml")]
pub struct SetArgs {
    /// Another time than this machine's, in milliseconds since 1970.
    #[arg(long, value_name = "MS")]
    unix_ms: Option<u64>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Serialize)]
struct Set {
    now_ms: u64,
}

/// Runs the command.
///
/// # Errors  the cluster's refusal, or that it cannot be reached
pub fn run(command: &ClockCommand, output: &Output) -> Result<()> {
    let ClockCommand::Set(args) = command;
    let now_ms = args.unix_ms.unwrap_or_else(clock::now_ms);
    match args.connection.ask(Request::SetClock { now_ms })? {
        Reply::Released => output.show(&Set { now_ms }, format!("it is {}", utc(now_ms))),
        reply => return Err(unexpected(reply)),
    }
    Ok(())
}
