//! Whether a task is taken at all: what the policy says of it, who vouches for it, and what people at the site say.

use std::time::{Duration, Instant};

use archipelago_common::{
    id::TaskId,
    policy::Approval,
    record::{ReferenceHead, Stage, TaskHead},
};

use super::{Reason, Site, bear};
use crate::{
    consent::{Answer, Because},
    error::{Error, Result},
    holding::{self, Holding},
    offer::Offer,
    surgery_task::blocking,
    vouched::{Verifier, Vouched},
};

/// What people at the site say of a task.
pub(super) enum Consent {
    Given,
    Awaited,
    Refused(Because),
}

impl Site {
    /// Looks at what a task asks before taking it; what its reference is, if it can be served. One that cannot is passed over until
    /// the next start.
    pub(super) async fn can_serve(&mut self, record: &TaskHead) -> Result<Option<ReferenceHead>> {
        let reference = match self.uplink.reference(&record.task.reference).await {
            Ok(reference) => reference,
            Err(error) => {
                self.put_aside(record.id, &error);
                return bear(error, "the reference of a task cannot be looked at").map(|()| None);
            }
        };
        let Err(obstacle) = holding::taking_part(&self.holdings, &reference, record) else {
            return Ok(Some(reference));
        };
        tracing::warn!(task = %record.id, reference = %record.task.reference, obstacle, "the task is passed over");
        self.aside.put(record.id);
        Ok(None)
    }

    /// Whether people at the site let a task be done. Without a word of theirs, what the policy says of tasks in general.
    pub(super) async fn consent(&mut self, record: &TaskHead, reference: &ReferenceHead) -> Result<Consent> {
        let taking_part = holding::taking_part(&self.holdings, reference, record).unwrap_or_default();
        let without_a_word = match holding::approval(&taking_part) {
            Approval::Trusted => Consent::Given,
            Approval::Ask => Consent::Awaited,
        };
        let Some(decision) = self.decisions.about(record.id)? else { return Ok(without_a_word) };
        let holdings: Vec<Holding> = taking_part.into_iter().cloned().collect();
        let (shown, reference) = (record.clone(), reference.clone());
        let offer = blocking(move || Offer::new(&holdings, &shown, &reference)).await?.digest();
        if decision.offer != offer {
            tracing::warn!(task = %record.id, "what was decided about the task was decided about another offer");
            return Ok(without_a_word);
        }
        match decision.answer {
            Answer::Approved => {
                self.gate.note_decision(record.id, offer, "")?;
                tracing::info!(task = %record.id, "approved by a person at this site");
                Ok(Consent::Given)
            }
            Answer::Declined(because) => Ok(Consent::Refused(because)),
        }
    }

    /// Says now and then which tasks wait for a person.
    pub(super) fn say_awaited(&mut self, awaited: &[TaskId]) {
        self.awaiting.retain(|task, _| awaited.contains(task));
        for task in awaited {
            if self.awaiting.get(task).is_none_or(|said| said.elapsed() >= SAY_AGAIN) {
                self.awaiting.insert(*task, Instant::now());
                tracing::info!(%task, "the task waits for consent: `archipelago-worker tasks` shows it, `approve` or `decline` decides");
            }
        }
    }

    /// What of a task and its reference is signed as it must be. One that is not goes back.
    pub(super) async fn vouch(&mut self, record: &TaskHead, reference: ReferenceHead) -> Result<Option<Vouched>> {
        let taking_part = holding::taking_part(&self.holdings, &reference, record).unwrap_or_default();
        let verifier = Verifier {
            uplink: &self.uplink,
            credentials: &self.credentials,
            known: self.known.known(),
            unsigned: holding::unsigned(&taking_part),
        };
        let vouched = match verifier.vouch(record, reference).await {
            Ok(vouched) => self.known.note_signers(record, &vouched).map(|()| vouched),
            Err(error) => Err(error),
        };
        match vouched {
            Ok(vouched) => Ok(Some(vouched)),
            Err(error @ Error::Declined { .. }) if is_told(record, &error) => {
                self.aside.put(record.id);
                self.failed = Some(error);
                Ok(None)
            }
            Err(error @ Error::Declined { .. }) => self.hand_back(record, error).await.map(|()| None),
            Err(error) => {
                self.put_aside(record.id, &error);
                bear(error, "it cannot be verified who vouches for a task").map(|()| None)
            }
        }
    }

    /// Returns a task of which nothing was begun, with the reason.
    pub(super) async fn hand_back(&mut self, record: &TaskHead, error: Error) -> Result<()> {
        let (task, word) = (record.id, Reason::of(&error).to_string());
        let noted = match (&error, self.decisions.about(task)) {
            (Error::NotWanted { .. }, Ok(Some(decision))) => self.gate.note_decision(task, decision.offer, &word),
            (_, decision) => decision.map(drop),
        };
        let lease = match noted {
            Ok(()) => self.uplink.claim(task).await,
            Err(error) => Err(error),
        };
        match lease {
            Ok(lease) => self.give_up(lease, error).await,
            Err(error) => {
                self.put_aside(task, &error);
                bear(error, "a task cannot be returned")
            }
        }
    }
}

/// Whether the coordinators have been told why this site does not do a task, and nothing since.
pub(super) fn is_told(record: &TaskHead, error: &Error) -> bool {
    let reason = Reason::of(error).to_string();
    let told = record.own.as_ref().map(|own| &own.stage);
    matches!(told, Some(Stage::GivenUp { reason: told }) if *told == reason)
}

/// How often it is said that a task waits for a person.
const SAY_AGAIN: Duration = Duration::from_secs(60);
