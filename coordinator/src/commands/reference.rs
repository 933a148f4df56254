//! `reference`: the models that the consortium grows.

use std::{fmt::Write as _, path::PathBuf};

use archipelago_client::{Client, ClientError, Source};
use archipelago_common::{
    BlobRef, ConditionKey, Name, Version, VersionId, fs, limits,
    record::{Change, ReferenceHead, ReferenceHistory, Why},
    reference_dir::ReferenceDir,
    signature::Statement,
};
use archipelago_protocol::message::{Refusal, Reply, Request};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{
    Connection,
    pack::{self, PackArgs},
    signing::Signing,
    unexpected, utc,
};
use crate::{
    error::{Error, Result},
    output::Output,
};

/// Publish, list, show, fetch and pack references.
#[derive(Subcommand, Debug)]
#[expect(missing_docs, reason = "the documentation of the arguments is the help text")]
pub enum ReferenceCommand {
    Publish(PublishArgs),
    List(ListArgs),
    Show(ShowArgs),
    Fetch(FetchArgs),
    Derive(DeriveArgs),
    Pack(PackArgs),
}

/// Upload a reference directory and publish it under a name, signed with the operator's key.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
    archipelago-worker train cells.h5ad --out reference\n  \
    archipelago-coordinator reference publish lung reference --config operator.toml")]
pub struct PublishArgs {
    /// Its name in the consortium.
    name: Name,
    /// The directory that `archipelago-worker train` or `map` wrote.
    dir: PathBuf,
    #[command(flatten)]
    signing: Signing,
    #[command(flatten)]
    connection: Connection,
}

/// List all references.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-coordinator reference list --config operator.toml")]
pub struct ListArgs {
    #[command(flatten)]
    connection: Connection,
}

/// Show a reference and how it came to be.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-coordinator reference show lung --config operator.toml")]
pub struct ShowArgs {
    /// The reference.
    name: Name,
    #[command(flatten)]
    connection: Connection,
}

/// Download a version into a directory, verified; an interrupted download goes on where it stopped.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-coordinator reference fetch lung --out lung-v2 --config operator.toml")]
pub struct FetchArgs {
    /// The reference.
    name: Name,
    /// The version [default: the current one]
    #[arg(long)]
    version: Option<VersionId>,
    /// The directory to write.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    connection: Connection,
}

/// Hand in a value that is derived from the current version, such as the sum of a pool.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  \
    archipelago-coordinator reference fetch atlas --out atlas --config operator.toml\n  \
    archipelago-coordinator reference derive atlas totals atlas --config operator.toml")]
pub struct DeriveArgs {
    /// The reference.
    name: Name,
    /// The value, as the reference's card calls it.
    value: Name,
    /// The directory of the version, from `reference fetch`; the value is computed from it where this program knows how.
    dir: PathBuf,
    /// The value in a file, where it was computed by a function of a model.
    #[arg(long, value_name = "FILE")]
    result: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

/// What was downloaded.
#[derive(Serialize)]
struct Fetched {
    out: PathBuf,
    version: VersionId,
    n_conditions: usize,
}

/// Runs the command.
///
/// # Errors  the cluster's refusal, or that it cannot be reached; a directory that is not a whole reference
pub fn run(command: &ReferenceCommand, output: &Output) -> Result<()> {
    match command {
        ReferenceCommand::Publish(args) => publish(args, output),
        ReferenceCommand::List(args) => {
            let references = args.connection.talk(async |client| Ok(client.references().await?))?;
            output.show(&references, table(&references));
            Ok(())
        }
        ReferenceCommand::Show(args) => {
            let history = args.connection.talk(async |client| Ok(client.history(&args.name).await?))?;
            output.show(&history, text(&history));
            Ok(())
        }
        ReferenceCommand::Fetch(args) => fetch(args, output),
        ReferenceCommand::Derive(args) => derive(args, output),
        ReferenceCommand::Pack(args) => pack::run(args, output),
    }
}

fn derive(args: &DeriveArgs, output: &Output) -> Result<()> {
    let dir = ReferenceDir::open(&args.dir)?;
    let bytes = match &args.result {
        Some(path) => fs::read_bounded(path, limits::PART_BYTES)?,
        None => dir.derive(&args.value)?,
    };
    let (reference, version, value) = (args.name.clone(), dir.version().id(), args.value.clone());
    let result = BlobRef::of(&bytes);
    let history = args.connection.talk(async |client| {
        client.put_blob(result, Source::Bytes(&bytes), |done| output.transfer("the value", done, result.size)).await?;
        match client.request(Request::Derive { reference, version, value, result }).await? {
            Reply::Reference(_) => Ok(client.history(&args.name).await?),
            reply => Err(unexpected(reply)),
        }
    })?;
    output.show(&history, text(&history));
    Ok(())
}

fn publish(args: &PublishArgs, output: &Output) -> Result<()> {
    let dir = ReferenceDir::open(&args.dir)?;
    let (name, version) = (args.name.clone(), dir.version().clone());
    let statement = |now_ms| Ok(Statement::of_reference(&name, version.id(), now_ms));
    let request = match args.signing.sign(&args.connection, statement)? {
        Some(signature) => Request::PublishSignedReference { name, version, signature },
        None => Request::PublishReference { name, version },
    };
    let history = args.connection.talk(async |client| {
        for (blob, path) in dir.files() {
            let what = path.display().to_string();
            client.put_blob(blob, Source::File(&path), |done| output.transfer(&what, done, blob.size)).await?;
        }
        match client.request(request).await? {
            Reply::Reference(_) => Ok(client.history(&args.name).await?),
            reply => Err(unexpected(reply)),
        }
    })?;
    output.show(&history, text(&history));
    Ok(())
}

fn fetch(args: &FetchArgs, output: &Output) -> Result<()> {
    let fetched = args.connection.talk(async |client| {
        let head = client.reference(&args.name).await?;
        let id = args.version.unwrap_or(head.current);
        let version = client.version(&head, id).await.map_err(|error| match error {
            ClientError::Refused(Refusal::NotFound { .. }) => Error::NoVersion { name: args.name.clone(), id },
            error => error.into(),
        })?;
        download(client, &version, args, output).await
    })?;
    let text = format!(
        "version     {}\nconditions  {}\nwrote       {}",
        fetched.version,
        fetched.n_conditions,
        fetched.out.display()
    );
    output.show(&fetched, text);
    Ok(())
}

async fn download(client: &Client, version: &Version, args: &FetchArgs, output: &Output) -> Result<Fetched> {
    for (blob, path) in ReferenceDir::layout(&args.out, version) {
        let what = path.display().to_string();
        if let Some(parent) = path.parent() {
            archipelago_common::fs::create_dir(parent)?;
        }
        client.get_blob(blob, &path, |done| output.transfer(&what, done, blob.size)).await?;
    }
    let dir = ReferenceDir::seal(&args.out, version)?;
    Ok(Fetched { out: args.out.clone(), version: dir.version().id(), n_conditions: dir.version().columns.len() })
}

fn table(references: &[ReferenceHead]) -> String {
    let mut text = String::new();
    for ReferenceHead { name, summary, current, n_conditions, .. } in references {
        let _ = writeln!(
            text,
            "{name}  {} on {} genes, {n_conditions} conditions, version {}",
            summary.model,
            summary.n_genes,
            current.0.short()
        );
    }
    if text.is_empty() { "no references".to_owned() } else { text }
}

/// A reference for people: what it is, its conditions, its lineage.
pub(super) fn text(history: &ReferenceHistory) -> String {
    let ReferenceHead { name, publisher, summary, current, .. } = &history.head;
    let mut text = format!(
        "reference   {name}, published by {publisher}\nmodel       {} on {} genes\ncurrent     {current}\nlineage\n",
        summary.model, summary.n_genes
    );
    for Change { version, why, at_ms, columns } in &history.changes {
        let why = match why {
            Why::Published => "published".to_owned(),
            Why::Merged { task } => format!("task {task}: merged {}", list(columns.keys())),
            Why::Withdrawn { by } => format!("{by} withdrew {}", list(columns.keys())),
            Why::Derived { by, value, function, result } => {
                format!("{by} derived {value} by {function}: {}", result.digest.short())
            }
        };
        let _ = writeln!(text, "  {}  {}  {why}", utc(*at_ms), version.0.short());
    }
    text.push_str("conditions\n");
    for key in history.current().columns.keys() {
        let _ = writeln!(text, "  {key}");
    }
    text
}

fn list<'a>(keys: impl Iterator<Item = &'a ConditionKey>) -> String {
    keys.map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
