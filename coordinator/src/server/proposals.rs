//! What two persons do together: where the state demands it, a leader proposes what somebody asks for, with the key that they came with.

use archipelago_cluster::Body;
use archipelago_common::Fingerprint;
use archipelago_protocol::message::Refusal;

use super::course::{Proposal, Step};

/// The course in which a command that is for two persons is proposed and not done. The state machine says the last word: what is
/// demanded, or no more, between the look and the command is refused there, and asked again.
pub(super) fn propose_what_is_for_two(step: Step, with: Option<Fingerprint>) -> Step {
    match step {
        Step::Read(look) => {
            Step::Read(Box::new(move |cluster, now_ms| propose_what_is_for_two(look(cluster, now_ms), with)))
        }
        Step::Peek(look) => {
            Step::Peek(Box::new(move |cluster, now_ms| propose_what_is_for_two(look(cluster, now_ms), with)))
        }
        Step::Lead(then) => Step::Lead(Box::new(move || propose_what_is_for_two(then(), with))),
        Step::Durable(blobs, then) => Step::Durable(blobs, Box::new(move || propose_what_is_for_two(then(), with))),
        Step::Inspect(inspection) => {
            Step::Inspect(Box::new(move |shelf| propose_what_is_for_two(inspection(shelf), with)))
        }
        Step::Propose(proposal, then) if proposal.body.may_be_for_two() => {
            Step::Read(Box::new(move |cluster, _| match cluster.asks_for_two(&proposal.principal, &proposal.body) {
                None => Step::Propose(proposal, then),
                Some(deed) => match require_key(with) {
                    Ok(key) => {
                        let body = Body::Propose { deed: Box::new(deed), key };
                        Step::Propose(Proposal { body, ..proposal }, then)
                    }
                    Err(refusal) => Step::Done(Err(refusal)),
                },
            }))
        }
        step @ (Step::Propose(..) | Step::Done(_)) => step,
    }
}

/// The key of a session, by which two persons are told apart.
pub(super) fn require_key(with: Option<Fingerprint>) -> Result<Fingerprint, Refusal> {
    let reason =
        "two persons do this together, and this session shows no certificate by which they could be told apart";
    with.ok_or_else(|| Refusal::Forbidden { reason: reason.to_owned() })
}
