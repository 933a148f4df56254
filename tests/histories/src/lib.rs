//! Histories: what clients asked a consortium and when they were answered, and whether one order of all that explains
//! every answer (linearizability).
//!
//! The simulation and the campaign with real processes write [`Operation`]s, one JSON object a line; [`check`] decides.
//! The checker ([`search`]) is a Wing–Gong–Lowe search with memory, run for each object by itself
//! ([`object::Reference`], [`object::Assignment`]): a history is linearizable if that of each object is.
//!
//! Why our own search: the crates there are want a function from state and operation to state, with an answer to every
//! operation. Here a client may die before it hears, so an operation may take effect at any time after its call or
//! never, and a lease may lapse between two operations.

mod history;
pub mod object;
pub mod search;

pub use history::{Answer, Call, History, HistoryError, Operation, Seen};

use std::collections::BTreeMap;

use object::{Assignment, Object as _, Reference};
use search::Violation;

/// What was checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Checked {
    /// Objects whose history was searched.
    pub objects: usize,
    /// Operations on them; one that concerns two objects counts twice.
    pub operations: usize,
    /// References left out, because versions also come to be there without an operation: when a task closes.
    pub skipped: usize,
}

/// Checks a history, object by object.
///
/// # Errors  [`Violation`]: the first object whose history no order of its operations explains
pub fn check(history: &History) -> Result<Checked, Box<Violation>> {
    let mut checked = Checked::default();
    let (mut references, mut assignments) = (BTreeMap::new(), BTreeMap::new());
    for operation in &history.operations {
        if let Some(reference) = Reference::of(&operation.call) {
            references.entry(reference).or_insert_with(Vec::new).push(operation);
        }
        if let Some(assignment) = Assignment::of(&operation.call) {
            assignments.entry(assignment).or_insert_with(Vec::new).push(operation);
        }
    }
    for (reference, operations) in references {
        if operations.iter().any(|operation| operation.answer == Some(Answer::Accepted { version: None })) {
            checked.skipped += 1;
            continue;
        }
        search::check(&reference, &operations)?;
        checked.objects += 1;
        checked.operations += operations.len();
    }
    for (assignment, operations) in assignments {
        search::check(&assignment, &operations)?;
        checked.objects += 1;
        checked.operations += operations.len();
    }
    Ok(checked)
}
