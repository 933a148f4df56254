//! The memory that makes a repeated request harmless.
//!
//! A caller that heard no answer (the leader died, say) asks again under the same key, and gets the first answer
//! instead of a second effect. Refusals are not remembered: they had no effect, so asking again is a new request, and
//! a peer that is refused cannot push out what others need.

use std::collections::{BTreeMap, VecDeque};

use archipelago_common::{Digest, Principal, limits};
use serde::{Deserialize, Serialize};

use crate::{
    Command, Outcome, Refusal,
    mutation::{self, Rule},
};

/// First answers by asker and key, the latest [`limits::REMEMBERED_REQUESTS`] of them.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Requests {
    answers: BTreeMap<Asked, Answer>,
    /// From the oldest to the latest; the same keys as `answers`.
    order: VecDeque<Asked>,
}

/// Keys are chosen by the asker, so they are told apart by asker: nobody can read another's answer.
type Asked = (Principal, [u8; 16]);

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
        let first = self.answers.get(&(command.principal.clone(), command.key))?;
        if first.body == command.body.digest() {
            Some(Ok(first.outcome.clone()))
        } else {
            Some(Err(Refusal::invalid("the request key was used before, for another request")))
        }
    }

    /// The answer that a request got, if it is remembered.
    pub(crate) fn answered(&self, principal: &Principal, key: [u8; 16]) -> Option<&Outcome> {
        self.answers.get(&(principal.clone(), key)).map(|answer| &answer.outcome)
    }

    /// Keeps the first answer to a request, and forgets the oldest one where there is no room.
    pub(crate) fn remember(&mut self, command: &Command, outcome: &Outcome) {
        if !command.body.is_remembered() {
            return;
        }
        let asked = (command.principal.clone(), command.key);
        let answer = Answer { body: command.body.digest(), outcome: outcome.clone() };
        if self.answers.insert(asked.clone(), answer).is_none() {
            self.order.push_back(asked);
        }
        if self.order.len() > limits::REMEMBERED_REQUESTS
            && let Some(oldest) = self.order.pop_front()
        {
            self.answers.remove(&oldest);
        }
    }

    /// Whether the two views of what is remembered agree, and are within their bound.
    pub(crate) fn is_consistent(&self) -> bool {
        self.order.len() == self.answers.len()
            && self.order.len() <= limits::REMEMBERED_REQUESTS
            && self.order.iter().all(|asked| self.answers.contains_key(asked))
    }
}
