//! What each object of a consortium may do, one operation after another.

use std::{collections::BTreeMap, fmt, hash::Hash};

use archipelago_common::{BlobRef, ConditionKey, Name, SiteId, TaskId, Version, VersionId};

use crate::{Answer, Call, Operation, Seen};

/// A sequential specification.
pub trait Object: fmt::Display {
    /// Its state.
    type State: Clone + Eq + Hash + fmt::Debug;

    /// The object that a call concerns, if it is of this kind.
    fn of(call: &Call) -> Option<Self>
    where
        Self: Sized;

    /// The state before the first operation.
    fn initial(&self) -> Self::State;

    /// The states that an operation can lead to from this one, if its answer is what was recorded; any answer, if none
    /// was. None of them: the answer contradicts the state.
    fn apply(&self, state: &Self::State, operation: &Operation) -> Vec<Self::State>;
}

/// A reference whose versions come to be by operations only.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Reference(pub Name);

/// What a reference holds.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ReferenceState {
    version: Option<(BlobRef, BTreeMap<ConditionKey, BlobRef>)>,
    /// What was accepted, and the version it got: handed in again, it gets it again.
    accepted: BTreeMap<(TaskId, SiteId), VersionId>,
}

impl ReferenceState {
    fn current(&self) -> Option<VersionId> {
        let (base, columns) = self.version.clone()?;
        Some(Version { base, columns }.id())
    }
}

impl Object for Reference {
    type State = ReferenceState;

    fn of(call: &Call) -> Option<Self> {
        match call {
            Call::Publish { reference, .. }
            | Call::ShowReference { reference }
            | Call::Withdraw { reference, .. }
            | Call::Submit { reference, .. } => Some(Self(reference.clone())),
            Call::Claim { .. } | Call::GiveUp { .. } | Call::ShowTask { .. } => None,
        }
    }

    fn initial(&self) -> ReferenceState {
        ReferenceState { version: None, accepted: BTreeMap::new() }
    }

    fn apply(&self, state: &ReferenceState, operation: &Operation) -> Vec<ReferenceState> {
        let unchanged = || vec![state.clone()];
        match (&operation.call, &operation.answer) {
            (_, Some(Answer::Refused)) => unchanged(),
            (Call::Publish { version, .. }, _) if state.version.is_none() => {
                vec![ReferenceState { version: Some((version.base, version.columns.clone())), ..state.clone() }]
            }
            (Call::ShowReference { .. }, Some(Answer::Reference { current })) if state.current() == Some(*current) => {
                unchanged()
            }
            (Call::Withdraw { owner, keys, .. }, _) => {
                let Some((base, columns)) = state.version.clone() else { return vec![] };
                let goes = |key: &ConditionKey| owner.as_ref() == Some(key.owner()) || keys.contains(key);
                let rest = columns.into_iter().filter(|(key, _)| !goes(key)).collect();
                vec![ReferenceState { version: Some((base, rest)), ..state.clone() }]
            }
            (Call::Submit { task, site, columns, .. }, answer) => {
                submit(state, (*task, site.clone()), columns, answer.as_ref())
            }
            _ => vec![],
        }
    }
}

fn submit(
    state: &ReferenceState,
    assignment: (TaskId, SiteId),
    new: &BTreeMap<ConditionKey, BlobRef>,
    answer: Option<&Answer>,
) -> Vec<ReferenceState> {
    let fits = |version: VersionId| match answer {
        None => true,
        Some(Answer::Accepted { version: told }) => *told == Some(version),
        Some(_) => false,
    };
    if let Some(version) = state.accepted.get(&assignment) {
        return if fits(*version) { vec![state.clone()] } else { vec![] };
    }
    let Some((base, mut columns)) = state.version.clone() else { return vec![] };
    for (key, blob) in new {
        if columns.insert(key.clone(), *blob).is_some_and(|present| present != *blob) {
            return vec![];
        }
    }
    let mut next = ReferenceState { version: Some((base, columns)), ..state.clone() };
    match next.current() {
        Some(version) if fits(version) => {
            next.accepted.insert(assignment, version);
            vec![next]
        }
        _ => vec![],
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reference `{}`", self.0)
    }
}

/// One site's assignment of one task. Its lease may lapse at any time.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Assignment(pub TaskId, pub SiteId);

/// Epoch and standing; none before the first claim.
pub type AssignmentState = Option<(u64, Seen)>;

impl Object for Assignment {
    type State = AssignmentState;

    fn of(call: &Call) -> Option<Self> {
        match call {
            Call::Claim { task, site }
            | Call::GiveUp { task, site, .. }
            | Call::Submit { task, site, .. }
            | Call::ShowTask { task, site } => Some(Self(*task, site.clone())),
            Call::Publish { .. } | Call::ShowReference { .. } | Call::Withdraw { .. } => None,
        }
    }

    fn initial(&self) -> AssignmentState {
        None
    }

    fn apply(&self, state: &AssignmentState, operation: &Operation) -> Vec<AssignmentState> {
        match (&operation.call, &operation.answer) {
            (_, Some(Answer::Refused)) => vec![*state],
            (Call::Claim { .. }, Some(Answer::Assigned { epoch })) => {
                claim(state).into_iter().filter(|claimed| *claimed == *epoch).map(assigned).collect()
            }
            (Call::Claim { .. }, None) => claim(state).into_iter().map(assigned).collect(),
            (Call::GiveUp { epoch, .. }, _) if *state == assigned(*epoch) => vec![Some((*epoch, Seen::GivenUp))],
            (Call::Submit { epoch, .. }, _) => match state {
                Some((held, Seen::Assigned | Seen::Accepted)) if held == epoch => vec![Some((*epoch, Seen::Accepted))],
                _ => vec![],
            },
            (Call::ShowTask { .. }, Some(Answer::Unassigned)) if state.is_none() => vec![None],
            (Call::ShowTask { .. }, Some(Answer::Assignment { epoch, seen })) => {
                let shown = Some((*epoch, *seen));
                let lapsed = *state == assigned(*epoch) && *seen == Seen::Lapsed;
                let withdrawn = *state == Some((*epoch, Seen::Accepted)) && *seen == Seen::GivenUp;
                if shown == *state || lapsed || withdrawn { vec![shown] } else { vec![] }
            }
            _ => vec![],
        }
    }
}

fn assigned(epoch: u64) -> AssignmentState {
    Some((epoch, Seen::Assigned))
}

/// The epochs that a claim may get: the one that is held, or the next if that one is over.
fn claim(state: &AssignmentState) -> Vec<u64> {
    match *state {
        None => vec![1],
        Some((epoch, Seen::Assigned)) => vec![epoch, epoch + 1],
        Some((epoch, Seen::Lapsed | Seen::GivenUp)) => vec![epoch + 1],
        // What waits for a close may have been withdrawn meanwhile.
        Some((epoch, Seen::Accepted)) => vec![epoch + 1],
    }
}

impl fmt::Display for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "assignment of task {} to `{}`", self.0, self.1)
    }
}
