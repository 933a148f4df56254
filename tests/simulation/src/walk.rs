//! Somebody who reads a long list page by page while the coordinators go on, and holds what was read to what it must be.

use std::collections::{BTreeMap, BTreeSet};

use archipelago_common::{
    BlobRef, ConditionKey, Name, TaskId, Version, VersionId,
    record::{Page, ReferenceHead, TaskHead},
};
use archipelago_protocol::message::{Reply, Request, Which};

/// A list that is being read.
pub(crate) enum Walk {
    /// All that a version holds.
    Version { reference: Name, version: Version, id: VersionId },
    /// All tasks, and those that were known before.
    Tasks { found: BTreeSet<TaskId>, known: BTreeSet<TaskId> },
}

/// What comes of a page.
pub(crate) enum Next {
    /// There is more.
    Ask(Request),
    /// That was all, and it is what it must be.
    Read,
    /// That was all, and it is not.
    Wrong(String),
}

impl Walk {
    /// Begins with the current version of a reference.
    pub(crate) fn version(head: &ReferenceHead) -> Self {
        let version = Version { base: head.base, columns: BTreeMap::new() };
        Self::Version { reference: head.name.clone(), version, id: head.current }
    }

    /// Begins with the first task.
    pub(crate) fn tasks(known: BTreeSet<TaskId>) -> Self {
        Self::Tasks { found: BTreeSet::new(), known }
    }

    /// Asks for what comes after all that was read.
    pub(crate) fn question(&self) -> Request {
        match self {
            Self::Version { reference, version, id } => Request::ListConditions {
                reference: reference.clone(),
                version: *id,
                owner: None,
                after: version.columns.keys().last().cloned(),
            },
            Self::Tasks { found, .. } => Request::ListTaskHeads { which: Which::All, after: found.last().copied() },
        }
    }

    /// Takes an answer; none if it is not to the last question.
    pub(crate) fn take(&mut self, answer: &Reply) -> Option<Next> {
        let (more, is_in_order) = match (&mut *self, answer) {
            (Self::Version { version, .. }, Reply::Conditions(page)) => {
                (page.more, add_columns(&mut version.columns, page))
            }
            (Self::Tasks { found, .. }, Reply::TaskHeads(page)) => (page.more, add_tasks(found, page)),
            _ => return None,
        };
        Some(match (is_in_order, more) {
            (false, _) => Next::Wrong("a page does not come after the one before".to_owned()),
            (true, true) => Next::Ask(self.question()),
            (true, false) => self.verdict(),
        })
    }

    fn verdict(&self) -> Next {
        match self {
            Self::Version { version, id, .. } if version.id() == *id => Next::Read,
            Self::Version { reference, version, id } => {
                let n = version.columns.len();
                Next::Wrong(format!("{n} conditions of `{reference}`, page by page, are not version {id}"))
            }
            Self::Tasks { found, known } => match known.difference(found).next() {
                None => Next::Read,
                Some(missing) => Next::Wrong(format!("task {missing} is not in the list of all tasks any more")),
            },
        }
    }
}

/// Whether a page goes on where the last one ended, and says that there is more only where it has something.
fn add_columns(columns: &mut BTreeMap<ConditionKey, BlobRef>, page: &Page<(ConditionKey, BlobRef)>) -> bool {
    let is_after = columns.keys().last().is_none_or(|last| page.items.iter().all(|(key, _)| key > last));
    columns.extend(page.items.iter().cloned());
    is_after && !(page.more && page.items.is_empty())
}

fn add_tasks(found: &mut BTreeSet<TaskId>, page: &Page<TaskHead>) -> bool {
    let is_after = found.last().is_none_or(|last| page.items.iter().all(|task| task.id > *last));
    found.extend(page.items.iter().map(|task| task.id));
    is_after && !(page.more && page.items.is_empty())
}
