//! `audit`: what left this site.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use archipelago_common::hash::Digest;
use clap::Args;
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    audit::{AuditTrail, Entry},
    error::{Error, Result},
    naming::NameTable,
    output::Output,
};

/// Verify the log of everything that left this site, and show it.
///
/// Every entry holds the hash of the one before: a change anywhere breaks the chain from there on. Note the head now and
/// then and give it with `--head` later to see that nothing was cut off at the end.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  archipelago-worker audit state/audit.jsonl")]
pub struct AuditArgs {
    /// The log, `audit.jsonl` in the worker's state directory.
    log: PathBuf,
    /// A head that was noted earlier; it must be in the log.
    #[arg(long, value_name = "DIGEST")]
    head: Option<Digest>,
}

/// A verified log.
#[derive(Serialize)]
struct Report {
    intact: bool,
    head: Digest,
    n_entries: usize,
    bytes_by_kind: BTreeMap<&'static str, u64>,
    entries: Vec<Entry>,
    /// What keys stand for, where that is not what they say.
    #[serde(skip_serializing_if = "NameTable::is_empty")]
    names: NameTable,
}

/// Runs the command.
///
/// # Errors  [`Error::AuditBroken`], [`Error::AuditShortened`], [`Error::Common`] if the file cannot be read
pub fn run(args: &AuditArgs, output: &Output) -> Result<()> {
    let trail = AuditTrail::read(&args.log)?;
    if let Some(head) = args.head.filter(|head| !trail.contains(head)) {
        return Err(Error::AuditShortened { path: args.log.clone(), head });
    }
    // The table lies beside the log.
    let names = NameTable::read(&NameTable::path(args.log.parent().unwrap_or(Path::new("."))))?;
    output.show(&Report {
        names: names.of(trail.entries.iter().filter_map(|entry| entry.release.condition.as_ref())),
        intact: true,
        head: trail.head(),
        n_entries: trail.entries.len(),
        bytes_by_kind: trail.bytes_by_kind(),
        entries: trail.entries,
    });
    Ok(())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Entry { seq, at_ms, release, .. } in &self.entries {
            let (kind, task, size) = (release.kind.name(), release.task, release.size);
            let key = release.condition.as_ref().map_or_else(|| "-".to_owned(), |key| self.names.shown(key));
            writeln!(
                f,
                "{seq:>5}  {}  task {task:<4} {kind:<11} {size:>9} B  {}  {key}",
                date(*at_ms),
                release.digest.short()
            )?;
        }
        let totals: Vec<String> = self
            .bytes_by_kind
            .iter()
            .filter(|(_, bytes)| **bytes > 0)
            .map(|(kind, n)| format!("{kind} {n} B"))
            .collect();
        let totals = if totals.is_empty() { "nothing left this site".to_owned() } else { totals.join(", ") };
        writeln!(f, "{totals}")?;
        write!(f, "the chain of {} entries is intact, head {}", self.n_entries, self.head)
    }
}

/// Milliseconds of a clock as text in UTC.
pub(super) fn date(at_ms: u64) -> String {
    let seconds = i64::try_from(at_ms / 1000).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{at_ms} ms"))
}
