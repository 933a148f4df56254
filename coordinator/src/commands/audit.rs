//! `audit`: what was done in the consortium.

use std::{
    fmt::Write as _,
    fs::OpenOptions,
    io::Write as _,
    path::{Path, PathBuf},
};

use archipelago_common::{
    Digest,
    act::{Act, Anchor, Erasure, Follower, Record},
    fs,
};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Connection, utc};
use crate::{
    error::{Error, Result},
    output::Output,
};

/// Show, export and verify the coordinators' record of every act, and the receipts of what was erased.
///
/// The record follows from the replicated log: who did what, when, and what came of it. Every act holds the hash of the one before.
/// Coordinators remember the latest of them, some ten thousand; whoever exports now and then, into the same file, has them all.
#[derive(Subcommand, Debug)]
#[expect(missing_docs, reason = "the documentation of the arguments is the help text")]
pub enum AuditCommand {
    List(ListArgs),
    Export(ExportArgs),
    Verify(VerifyArgs),
    Erasures(ErasuresArgs),
}

/// Show what was done, from the earliest act that the coordinators remember.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-coordinator audit list --who site/north --config auditor.toml")]
pub struct ListArgs {
    /// Only what this one did: role and name.
    #[arg(long)]
    who: Option<String>,
    /// Only what came after this act.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    after: u64,
    #[command(flatten)]
    connection: Connection,
}

/// Write the record to a file, one act a line, or append what has come since to an earlier export. What is there is verified first,
/// and so is that the rest follows.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-coordinator audit export acts.jsonl --config auditor.toml")]
pub struct ExportArgs {
    /// The file.
    file: PathBuf,
    #[command(flatten)]
    connection: Connection,
}

/// Verify an export, with no coordinator at hand.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-coordinator audit verify acts.jsonl")]
pub struct VerifyArgs {
    /// The file.
    file: PathBuf,
    /// The hash of an act that was noted earlier; it must be in the record.
    #[arg(long, value_name = "DIGEST")]
    head: Option<Digest>,
}

/// Show what was erased, by whom and when: digests and sizes of what is no more.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-coordinator audit erasures --config auditor.toml")]
pub struct ErasuresArgs {
    #[command(flatten)]
    connection: Connection,
}

/// A record that holds.
#[derive(Serialize)]
struct Held {
    intact: bool,
    first: u64,
    last: u64,
    head: Option<Digest>,
}

/// Runs the command.
///
/// # Errors  the cluster's refusal, or that it cannot be reached; a record that does not hold, or a file that cannot be written
pub fn run(command: &AuditCommand, output: &Output) -> Result<()> {
    match command {
        AuditCommand::List(args) => list(args, output),
        AuditCommand::Export(args) => export(args, output),
        AuditCommand::Verify(args) => {
            let record = Record::read(&args.file)?;
            if let Some(head) = args.head.filter(|head| !record.acts.iter().any(|act| act.hash() == *head)) {
                let detail =
                    format!("no act in it has the hash {head}: acts were cut from its end, or it is another record");
                return Err(broken(&args.file, detail));
            }
            show(&record.acts, &record.end, output);
            Ok(())
        }
        AuditCommand::Erasures(args) => {
            let erasures = args.connection.talk(async |client| Ok(client.erasures().await?))?;
            output.show(&erasures, receipts(&erasures));
            Ok(())
        }
    }
}

fn list(args: &ListArgs, output: &Output) -> Result<()> {
    let acts = args.connection.talk(async |client| Ok(client.acts(args.after).await?))?;
    let mut end = Follower::default();
    // Verified before some are left out; a site gets its own alone, which are no chain.
    let is_whole = acts.iter().try_for_each(|act| end.follow(act));
    let is_of_one = acts.iter().all(|act| act.who.starts_with("site/") && act.who == acts[0].who);
    match is_whole {
        Err(error) if !is_of_one => return Err(error.into()),
        _ => {}
    }
    let is_meant = |act: &Act| args.who.as_ref().is_none_or(|who| act.who == *who);
    let acts: Vec<Act> = acts.into_iter().filter(is_meant).collect();
    output.show(&acts, table(&acts));
    Ok(())
}

fn export(args: &ExportArgs, output: &Output) -> Result<()> {
    let mut record = if args.file.exists() { Record::read(&args.file)? } else { Record::default() };
    let last = record.end.last().map_or(0, |(seq, _)| seq);
    // The last one again: it shows that the coordinators' record is the one that was exported.
    let acts = args.connection.talk(async |client| Ok(client.acts(last.saturating_sub(1)).await?))?;
    let known = record.acts.last();
    let new: Vec<&Act> = match (known, acts.first()) {
        (Some(known), Some(first)) if first == known => acts.iter().skip(1).collect(),
        (Some(_), Some(first)) if first.seq == last + 1 => acts.iter().collect(),
        (Some(_), Some(first)) => {
            let (found, next) = (first.seq, last + 1);
            let detail = match found > next {
                true => format!(
                    "the coordinators remember acts from {found} on, and it ends before {next}: begin another file"
                ),
                false => format!("its act {last} is another than the coordinators': one of the two was changed"),
            };
            return Err(broken(&args.file, detail));
        }
        (Some(_), None) => {
            let detail =
                format!("the coordinators have no act {last}: it is of another consortium, or their record was cut");
            return Err(broken(&args.file, detail));
        }
        (None, _) => acts.iter().collect(),
    };
    let mut lines = Vec::new();
    for act in new {
        record.end.follow(act)?;
        lines.extend(serde_json::to_vec(act).expect("an act is JSON"));
        lines.push(b'\n');
        record.acts.push(act.clone());
    }
    let error = |source| archipelago_common::Error::File { action: "write", path: args.file.clone(), source };
    let mut file = OpenOptions::new().create(true).append(true).open(&args.file).map_err(error)?;
    file.write_all(&lines).and_then(|()| file.sync_all()).map_err(error)?;
    fs::sync_dir(args.file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
    show(&record.acts, &record.end, output);
    Ok(())
}

fn show(acts: &[Act], end: &Follower, output: &Output) {
    let last = end.last();
    let held = Held {
        intact: true,
        first: acts.first().map_or(0, |act| act.seq),
        last: last.map_or(0, |(seq, _)| seq),
        head: last.map(|(_, head)| head),
    };
    let text = match held.head {
        Some(head) => format!("the record of acts {} to {} is intact, head {head}", held.first, held.last),
        None => "nothing was done yet".to_owned(),
    };
    let strays = acts.iter().filter(|act| matches!(&act.anchor, Some(Anchor { follows: false, .. })));
    let strays: String = strays.map(|act| format!("act {}: {}\n", act.seq, stray(act))).collect();
    output.show(&held, strays + &text);
}

fn stray(act: &Act) -> String {
    format!("the log of `{}` does not follow what was anchored before: it was cut, changed or begun anew", act.who)
}

fn table(acts: &[Act]) -> String {
    let mut text = String::new();
    for act in acts {
        let Act { seq, at_ms, who, what, about, outcome, key, anchor, .. } = act;
        let key = key.map(|key| format!(", key {key}")).unwrap_or_default();
        let _ = writeln!(text, "{seq:>6}  {}  {who}  {what}  {about}: {outcome}{key}", utc(*at_ms));
        if matches!(anchor, Some(Anchor { follows: false, .. })) {
            let _ = writeln!(text, "        {}", stray(act));
        }
    }
    if text.is_empty() { "nothing was done".to_owned() } else { text }
}

/// Receipts, a few lines each.
pub(super) fn receipts(erasures: &[Erasure]) -> String {
    let mut text = String::new();
    for Erasure { reference, key, blobs, by, at_ms, .. } in erasures {
        let _ = writeln!(text, "{reference}  {key}  erased {} by {by}", utc(*at_ms));
        for blob in blobs {
            let _ = writeln!(text, "    {}  {} bytes", blob.digest, blob.size);
        }
    }
    if text.is_empty() { "nothing was erased".to_owned() } else { text }
}

fn broken(path: &Path, detail: String) -> Error {
    Error::Config { place: format!("the record `{}`", path.display()), detail }
}
