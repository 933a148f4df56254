//! What a site keeps about a task it has done: `summary.json` in the task's results directory.
//!
//! It is written before the result is handed in and marked when the coordinators have accepted it, so that a worker
//! that died in between finds out after its restart that the task is done.

use std::{collections::BTreeMap, path::Path};

use archipelago_common::{
    condition::ConditionKey,
    fs,
    id::{Name, TaskId, VersionId},
    task::ConditionMetrics,
};
use serde::{Deserialize, Serialize};

use crate::{error::Result, results};

/// A task as the site remembers it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TaskSummary {
    /// Its number.
    pub task: TaskId,
    /// The reference mapped onto.
    pub reference: Name,
    /// The version trained against.
    pub parent: VersionId,
    /// Whether the coordinators have accepted the result.
    pub accepted: bool,
    /// The version that holds the result, once there is one.
    pub version: Option<VersionId>,
    /// What was mapped.
    pub conditions: BTreeMap<ConditionKey, ConditionMetrics>,
    /// What stayed at home, and why.
    pub withheld: BTreeMap<ConditionKey, String>,
    /// Genes of the panel that the data has.
    pub n_genes_found: usize,
    /// Genes of the panel.
    pub n_genes_panel: usize,
    /// Bytes that left for this task, by kind, as the audit log has them.
    pub bytes_out: BTreeMap<String, u64>,
    /// Size of the data file, which stayed.
    pub bytes_kept: u64,
    /// Time from claim to handing in.
    pub seconds: f64,
}

impl TaskSummary {
    /// Writes the summary into the task's directory.
    ///
    /// # Errors  [`crate::Error::Common`]
    pub fn write(&self, dir: &Path) -> Result<()> {
        results::write_json(&dir.join(FILE), self)
    }

    /// Notes that the coordinators have accepted the result. Says whether that was news; without a summary it is not.
    ///
    /// # Errors  [`crate::Error::Common`]
    pub fn mark_accepted(dir: &Path, version: Option<VersionId>) -> Result<bool> {
        let path = dir.join(FILE);
        if !path.exists() {
            return Ok(false);
        }
        let bytes = fs::read_bounded(&path, MAX_BYTES)?;
        let decode = |e: serde_json::Error| archipelago_common::Error::Decode { what: FILE, detail: e.to_string() };
        let mut summary: Self = serde_json::from_slice(&bytes).map_err(decode)?;
        let is_news = !summary.accepted;
        if is_news {
            (summary.accepted, summary.version) = (true, version);
            summary.write(dir)?;
        }
        Ok(is_news)
    }
}

const FILE: &str = "summary.json";
/// Thousands of conditions stay far below.
const MAX_BYTES: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use archipelago_common::hash::Digest;

    use super::*;

    #[test]
    fn an_acceptance_is_news_once() {
        let dir = tempfile::tempdir().unwrap();
        let version = VersionId(Digest::of(b"version"));
        assert!(!TaskSummary::mark_accepted(dir.path(), None).unwrap(), "there is no summary yet");
        let summary = TaskSummary {
            task: TaskId(1),
            reference: "pbmc".parse().unwrap(),
            parent: version,
            accepted: false,
            version: None,
            conditions: BTreeMap::new(),
            withheld: BTreeMap::new(),
            n_genes_found: 1,
            n_genes_panel: 2,
            bytes_out: BTreeMap::from([("columns".to_owned(), 3)]),
            bytes_kept: 4,
            seconds: 0.1,
        };
        summary.write(dir.path()).unwrap();
        assert!(TaskSummary::mark_accepted(dir.path(), Some(version)).unwrap());
        assert!(!TaskSummary::mark_accepted(dir.path(), Some(version)).unwrap());
        let bytes = std::fs::read(dir.path().join(FILE)).unwrap();
        let read: TaskSummary = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(read, TaskSummary { accepted: true, version: Some(version), ..summary });
    }
}
