//! The site's log of everything that left it, on disk before the bytes go: a hash chain ([`crate::chain`]).

use std::collections::BTreeMap;

use archipelago_common::{
    condition::ConditionKey,
    hash::Digest,
    id::{Name, SiteId, TaskId},
};
use serde::{Deserialize, Serialize};

use crate::chain::{self, Log, Record, Trail};

/// The log, open for appending.
pub type AuditLog = Log<Release>;
/// A log that was read and whose chain holds.
pub type AuditTrail = Trail<Release>;
/// A release at its place in the chain.
pub type Entry = chain::Entry<Release>;

/// What a release is about.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// What kind of value leaves.
    pub kind: Kind,
    /// The site it leaves.
    pub site: SiteId,
    /// The task it is for.
    pub task: TaskId,
    /// The condition it belongs to; none for progress over several.
    pub condition: Option<ConditionKey>,
    /// BLAKE3 of the bytes.
    pub digest: Digest,
    /// Number of bytes.
    pub size: u64,
    /// Digest of the policy that let them out.
    pub policy: Digest,
}

/// The kinds of values that can leave a site.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Trained columns of a condition.
    Columns,
    /// One embedding per cell, without cell names.
    Embeddings,
    /// The mean embedding of each label.
    LabelMeans,
    /// Aggregate figures of a condition.
    Metrics,
    /// Epochs done and the last loss.
    Progress,
    /// A member of a part: a site's contribution that is no columns.
    Parts,
    /// What a person at the site said of a task; its digest is that of what was shown.
    Decision,
}

impl Kind {
    /// All kinds, in the order in which they are shown.
    pub const ALL: [Self; 7] =
        [Self::Columns, Self::Embeddings, Self::LabelMeans, Self::Metrics, Self::Progress, Self::Parts, Self::Decision];

    /// The name in logs, metrics and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Columns => "columns",
            Self::Embeddings => "embeddings",
            Self::LabelMeans => "label-means",
            Self::Metrics => "metrics",
            Self::Progress => "progress",
            Self::Parts => "parts",
            Self::Decision => "decision",
        }
    }
}

impl Record for Release {
    const LOG: &'static str = "audit log";
}

impl Trail<Release> {
    /// Bytes that left, by kind; every kind is there.
    pub fn bytes_by_kind(&self) -> BTreeMap<&'static str, u64> {
        bytes_by_kind(self.entries.iter())
    }

    /// Bytes that left for one task of a data set or of none, by kind; every kind is there.
    pub fn bytes_of_task(&self, task: TaskId, dataset: &Name) -> BTreeMap<&'static str, u64> {
        let is_of = |key: &ConditionKey| key.dataset() == dataset;
        let left = self.entries.iter().map(|entry| (&entry.release, entry));
        let left = left.filter(|(release, _)| release.task == task && release.condition.as_ref().is_none_or(is_of));
        bytes_by_kind(left.map(|(_, entry)| entry))
    }
}

fn bytes_by_kind<'a>(entries: impl Iterator<Item = &'a Entry>) -> BTreeMap<&'static str, u64> {
    let mut bytes: BTreeMap<_, _> = Kind::ALL.iter().map(|kind| (kind.name(), 0)).collect();
    for entry in entries {
        *bytes.entry(entry.release.kind.name()).or_default() += entry.release.size;
    }
    bytes
}
