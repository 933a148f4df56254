//! The memory that makes a repeated request harmless.
//!
//! A caller that heard no answer (the leader died, say) asks again under the same key, and gets the first answer
//! instead of a second effect. Refusals are not remembered: they had no effect, so asking again is a new request.
//!
//! Every asker has a memory of its own, so nobody can push out what others need. Where all of them together are too much,
//! the one that has most forgets first. In the first edition all askers shared one memory.

use std::collections::{BTreeMap, VecDeque};

use archipelago_common::{Digest, Principal, limits};
use serde::{Deserialize, Serialize};

use crate::{
    Command, Edition, Outcome, Refusal,
    mutation::{self, Rule},
};

/// First answers by asker and key.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Requests {
    by_asker: BTreeMap<Principal, Memory>,
    n_answers: usize,
    /// The order among all askers, from the oldest to the latest; of the first edition only.
    shared: VecDeque<Asked>,
}

/// Keys are chosen by the asker, so they are told apart by asker: nobody can read another's answer.
type Asked = (Principal, Key);

type Key = [u8; 16];

/// The latest answers to one asker.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
struct Memory {
    answers: BTreeMap<Key, Answer>,
    /// From the oldest to the latest; the same keys as `answers`.
    order: VecDeque<Key>,
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Answer {
    /// Digest of the body that was answered.
    body: Option<Digest>,
    outcome: Outcome,
}

impl Requests {
    /// The answer that this request got before, if it is remembered.
    pub(crate) fn recall(&self, command: &Command) -> Option<Result<Outcome, Refusal>> {
        if !command.body.is_remembered() || mutation::is_broken(Rule::AnswerOnce) {
            return None;
        }
        let first = self.by_asker.get(&command.principal)?.answers.get(&command.key)?;
        if first.body == command.body.digest() {
            Some(Ok(first.outcome.clone()))
        } else {
            Some(Err(Refusal::invalid("the request key was used before, for another request")))
        }
    }

    /// The answer that a request got, if it is remembered.
    pub(crate) fn answered(&self, principal: &Principal, key: [u8; 16]) -> Option<&Outcome> {
        Some(&self.by_asker.get(principal)?.answers.get(&key)?.outcome)
    }

    /// Keeps the first answer to a request, and forgets an old one where there is no room.
    pub(crate) fn remember(&mut self, command: &Command, outcome: &Outcome, edition: Edition) {
        if !command.body.is_remembered() {
            return;
        }
        let memory = self.by_asker.entry(command.principal.clone()).or_default();
        let answer = Answer { body: command.body.digest(), outcome: outcome.clone() };
        if memory.answers.insert(command.key, answer).is_none() {
            memory.order.push_back(command.key);
            self.n_answers += 1;
            if edition == Edition::First {
                self.shared.push_back((command.principal.clone(), command.key));
            }
        }
        if edition == Edition::First {
            return self.forget_shared();
        }
        if memory.order.len() > limits::REMEMBERED_REQUESTS {
            self.n_answers -= memory.forget(1);
        }
        if mutation::is_broken(Rule::OwnMemory) && self.n_answers > FEW {
            // Somebody else's answer, as a flood would have it in the end.
            let other = self.by_asker.keys().find(|asker| **asker != command.principal).cloned();
            if let Some(asker) = other {
                self.forget_of(&asker, 1);
            }
        }
        if self.n_answers > limits::REMEMBERED_IN_ALL {
            self.forget_of_most();
        }
    }

    /// The memory that all shared becomes one for each: from the first edition to the second.
    pub(crate) fn regroup(&mut self) {
        self.shared.clear();
    }

    /// Whether the views of what is remembered agree, and are within their bounds.
    pub(crate) fn is_consistent(&self) -> bool {
        let has = |asker: &Principal, key: &Key| self.by_asker.get(asker).is_some_and(|m| m.answers.contains_key(key));
        let agrees = |memory: &Memory| {
            !memory.order.is_empty()
                && memory.order.len() == memory.answers.len()
                && memory.order.iter().all(|key| memory.answers.contains_key(key))
        };
        self.by_asker.values().all(agrees)
            && self.by_asker.values().map(|memory| memory.order.len()).sum::<usize>() == self.n_answers
            && self.n_answers <= limits::REMEMBERED_IN_ALL
            && self.shared.iter().all(|(asker, key)| has(asker, key))
    }

    fn forget_shared(&mut self) {
        if self.n_answers > limits::REMEMBERED_REQUESTS
            && let Some((asker, _)) = self.shared.pop_front()
        {
            self.forget_of(&asker, 1);
        }
    }

    /// Some at once, because the one that has most must be looked for.
    fn forget_of_most(&mut self) {
        let most = self.by_asker.iter().max_by_key(|(_, memory)| memory.order.len());
        if let Some(asker) = most.map(|(asker, _)| asker.clone()) {
            self.forget_of(&asker, FORGOTTEN_AT_ONCE);
        }
    }

    fn forget_of(&mut self, asker: &Principal, most: usize) {
        let Some(memory) = self.by_asker.get_mut(asker) else { return };
        self.n_answers -= memory.forget(most);
        if memory.order.is_empty() {
            self.by_asker.remove(asker);
        }
    }
}

impl Memory {
    /// Forgets the oldest answers, `most` at most; how many they were.
    fn forget(&mut self, most: usize) -> usize {
        let n_forgotten = most.min(self.order.len());
        for key in self.order.drain(..n_forgotten) {
            self.answers.remove(&key);
        }
        n_forgotten
    }
}

/// The memory as it was before format 3 of the state.
#[derive(Serialize, Deserialize)]
pub(crate) struct SharedMemory {
    answers: BTreeMap<Asked, Answer>,
    order: VecDeque<Asked>,
}

impl From<SharedMemory> for Requests {
    fn from(SharedMemory { mut answers, order }: SharedMemory) -> Self {
        let mut requests = Self::default();
        for asked in &order {
            let Some(answer) = answers.remove(asked) else { continue };
            let memory = requests.by_asker.entry(asked.0.clone()).or_default();
            memory.answers.insert(asked.1, answer);
            memory.order.push_back(asked.1);
            requests.n_answers += 1;
        }
        Self { shared: order, ..requests }
    }
}

/// Answers that are remembered where the rule about them is broken on purpose.
const FEW: usize = 8;
/// Answers that the asker with most of them forgets where there is no room.
const FORGOTTEN_AT_ONCE: usize = 64;
