//! `audit`: what left this site.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use archipelago_common::{act::Record, hash::Digest, id::SiteId};
use clap::Args;
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::tasks::SiteArgs;
use crate::{
    anchors::{self, Compared, Differs},
    audit::{AuditTrail, Entry},
    error::{Error, Result},
    naming::NameTable,
    output::Output,
};

/// Verify the log of everything that left this site, and show it.
///
/// Every entry holds the hash of the one before: a change anywhere breaks the chain from there on. A log that was cut off at its end, emptied
/// or written anew is a chain too: with `--against` it is held against what this site said of it at every release, which the coordinators
/// have on record, and the first entry that differs is named. Full files lie beside the log and are verified with it.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    archipelago-worker audit state/audit.jsonl\n  \
    archipelago-worker audit state/audit.jsonl --against site.toml\n  \
    archipelago-worker audit state/audit.jsonl --against acts.jsonl --site north")]
pub struct AuditArgs {
    /// The log, `audit.jsonl` in the worker's state directory.
    log: PathBuf,
    /// A head that was noted earlier; it must be in the log.
    #[arg(long, value_name = "DIGEST")]
    head: Option<Digest>,
    /// What to compare with: the site's configuration (`.toml`), to ask its coordinators, or a record that an auditor exported.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Whose log it is, where that is compared with an export; by default the site that its entries name.
    #[arg(long, requires = "against")]
    site: Option<SiteId>,
}

/// A verified log.
#[derive(Serialize)]
struct Report {
    intact: bool,
    head: Digest,
    n_entries: usize,
    bytes_by_kind: BTreeMap<&'static str, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    anchors: Option<Compared>,
    entries: Vec<Entry>,
    /// What keys stand for, where that is not what they say.
    #[serde(skip_serializing_if = "NameTable::is_empty")]
    names: NameTable,
}

/// Runs the command.
///
/// # Errors  [`Error::AuditBroken`], [`Error::AuditShortened`], [`Error::AuditDiffers`], [`Error::Common`] if the file cannot be read
pub fn run(args: &AuditArgs, output: &Output) -> Result<()> {
    let trail = AuditTrail::read(&args.log)?;
    if let Some(head) = args.head.filter(|head| !trail.contains(head)) {
        return Err(Error::AuditShortened { path: args.log.clone(), head });
    }
    let anchors = args.against.as_deref().map(|against| compare(args, &trail, against)).transpose()?;
    // The table lies beside the log.
    let names = NameTable::read(&NameTable::path(args.log.parent().unwrap_or(Path::new("."))))?;
    output.show(&Report {
        names: names.of(trail.entries.iter().filter_map(|entry| entry.release.condition.as_ref())),
        anchors,
        intact: true,
        head: trail.head(),
        n_entries: trail.entries.len(),
        bytes_by_kind: trail.bytes_by_kind(),
        entries: trail.entries,
    });
    Ok(())
}

/// Holds the log against what is on record of it.
fn compare(args: &AuditArgs, trail: &AuditTrail, against: &Path) -> Result<Compared> {
    let (site, acts) = match against.extension().is_some_and(|extension| extension == "toml") {
        true => SiteArgs::of(against).with(async |desk| desk.acts().await)?,
        false => {
            let named = trail.entries.first().map(|entry| entry.release.site.clone());
            let Some(site) = args.site.clone().or(named) else {
                let found = "missing, and the log is empty".to_owned();
                return Err(Error::Setting { what: "--site", found, expected: "the name of the site whose log it is" });
            };
            (site, Record::read(against)?.acts)
        }
    };
    let compared = anchors::compare(trail, &site, &acts);
    match compared.differs {
        Some(Differs { record, act, detail }) => {
            Err(Error::AuditDiffers { path: args.log.clone(), record, act, detail })
        }
        None => Ok(compared),
    }
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
        if let Some(Compared { n_anchored, n_later, .. }) = &self.anchors {
            writeln!(f, "{n_anchored} entries are what was anchored, {n_later} came since the last anchor")?;
        }
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
