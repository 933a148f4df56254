//! Operations as they are recorded, and the file they are recorded in.

use std::collections::BTreeMap;

use archipelago_common::{BlobRef, ConditionKey, Name, SiteId, TaskId, Version, VersionId};
use serde::{Deserialize, Serialize};

/// One operation of one client.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// Who asked.
    pub client: String,
    /// What.
    pub call: Call,
    /// When it was asked. Any unit will do as long as all clients share the clock.
    pub invoked: u64,
    /// When it was answered; never, for a client that died first.
    pub returned: Option<u64>,
    /// The answer. An operation that was asked and not answered may have taken effect or may do so later.
    pub answer: Option<Answer>,
}

/// What a client asked.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Call {
    /// Publish a reference.
    Publish {
        /// Its name.
        reference: Name,
        /// Its first version.
        version: Version,
    },
    /// Look at a reference.
    ShowReference {
        /// Its name.
        reference: Name,
    },
    /// Take conditions out of a reference.
    Withdraw {
        /// Its name.
        reference: Name,
        /// All conditions of this owner…
        owner: Option<SiteId>,
        /// …or these.
        keys: Vec<ConditionKey>,
    },
    /// Take a task.
    Claim {
        /// Its number.
        task: TaskId,
        /// Who takes it.
        site: SiteId,
    },
    /// Return a task.
    GiveUp {
        /// Its number.
        task: TaskId,
        /// Who returns it.
        site: SiteId,
        /// The assignment's epoch.
        epoch: u64,
    },
    /// Hand in work.
    Submit {
        /// The reference that the task maps onto.
        reference: Name,
        /// The task.
        task: TaskId,
        /// Who hands in.
        site: SiteId,
        /// The assignment's epoch.
        epoch: u64,
        /// The columns.
        columns: BTreeMap<ConditionKey, BlobRef>,
    },
    /// Look at one's own assignment of a task.
    ShowTask {
        /// The task.
        task: TaskId,
        /// Whose assignment.
        site: SiteId,
    },
}

/// What a client heard. Refusals change nothing and are not told apart.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Answer {
    /// No.
    Refused,
    /// To `Publish`, `Withdraw`, `GiveUp`: it is done.
    Done,
    /// To `Claim`.
    Assigned {
        /// The assignment's epoch.
        epoch: u64,
    },
    /// To `Submit`.
    Accepted {
        /// The version that holds it, if there is one yet.
        version: Option<VersionId>,
    },
    /// To `ShowReference`: the current version.
    Reference {
        /// It.
        current: VersionId,
    },
    /// To `ShowTask`: the site has never claimed it.
    Unassigned,
    /// To `ShowTask`.
    Assignment {
        /// The assignment's epoch.
        epoch: u64,
        /// Where it stands.
        seen: Seen,
    },
}

/// Where an assignment stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seen {
    /// The site is at work.
    Assigned,
    /// Its lease is over.
    Lapsed,
    /// It gave up, or what it handed in was withdrawn before the task closed.
    GivenUp,
    /// What it handed in was accepted.
    Accepted,
}

/// All operations of a run.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct History {
    /// In any order.
    pub operations: Vec<Operation>,
}

/// A history that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("line {line} of the history is no operation")]
pub struct HistoryError {
    line: usize,
    #[source]
    source: serde_json::Error,
}

impl History {
    /// Reads one operation a line; empty lines do not count.
    ///
    /// # Errors  [`HistoryError`] with the line
    pub fn parse(text: &str) -> Result<Self, HistoryError> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let operations = lines
            .map(|(i, line)| serde_json::from_str(line).map_err(|source| HistoryError { line: i + 1, source }))
            .collect::<Result<_, _>>()?;
        Ok(Self { operations })
    }

    /// The lines that [`Self::parse`] reads.
    pub fn to_lines(&self) -> String {
        let line = |operation| serde_json::to_string(operation).unwrap_or_default() + "\n";
        self.operations.iter().map(line).collect()
    }
}
