//! `blobs`: what the coordinators store.

use std::fmt::Write as _;

use archipelago_common::health::{Collected, HealthRecord, OfNode};
use archipelago_protocol::message::{Reply, Request};
use clap::{Args, Subcommand};

use super::{Connection, status, unexpected};
use crate::{error::Result, output::Output};

/// Collect and verify the blobs of every coordinator.
#[derive(Subcommand, Debug)]
#[expect(missing_docs, reason = "the documentation of the arguments is the help text")]
pub enum BlobsCommand {
    Gc(GcArgs),
    Verify(VerifyArgs),
}

/// Remove blobs that nothing refers to and that were left alone for three days. Coordinators do so every hour by
/// themselves; blobs of withdrawn conditions stay, for audit.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-coordinator blobs gc --dry-run --config operator.toml")]
pub struct GcArgs {
    /// Only say what would be removed.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Begin to compare every blob with its digest, and what is there with what should be. A damaged one is put aside, and what
/// is missing fetched from another coordinator; `status` shows how it goes. Coordinators do so all the time, slowly.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-coordinator blobs verify --config operator.toml")]
pub struct VerifyArgs {
    #[command(flatten)]
    connection: Connection,
}

/// Runs the command.
///
/// # Errors  the cluster's refusal, or that it cannot be reached
pub fn run(command: &BlobsCommand, output: &Output) -> Result<()> {
    let reply = match command {
        BlobsCommand::Gc(args) => args.connection.ask(Request::CollectBlobs { dry_run: args.dry_run })?,
        BlobsCommand::Verify(args) => args.connection.ask(Request::VerifyBlobs)?,
    };
    match reply {
        Reply::Collected(collected) => output.show(&collected, table(&collected)),
        Reply::Health(health) => output.show(&health, health_table(&health)),
        reply => return Err(unexpected(reply)),
    }
    Ok(())
}

fn table(collected: &[OfNode<Collected>]) -> String {
    let mut text = String::new();
    for OfNode { node, answer } in collected {
        let _ = match answer {
            Some(Collected { blobs, bytes, partials }) => {
                writeln!(text, "node {node}  {blobs} blobs and {partials} half-way uploads, {bytes} bytes")
            }
            None => writeln!(text, "node {node}  no answer"),
        };
    }
    text
}

fn health_table(health: &[OfNode<HealthRecord>]) -> String {
    health.iter().map(|of_node| status::health_line(of_node) + "\n").collect()
}
