//! Two who publish together, once they have demanded that nobody does alone, and that everything is signed. Each proposes, and approves or
//! declines what the other has proposed; each tries now and then to approve its own, and to publish without a signature.

use std::collections::BTreeSet;

use archipelago_common::{
    Fingerprint, Name, Principal, Version,
    proposal::{Demand, Proposal},
    signature::{Signature, Statement},
};
use archipelago_protocol::message::{Refusal, Reply, Request};

use crate::{
    operator::{AT_CLOSE, base_blob, name},
    peer::{Act, Heard, View},
};

/// The two.
pub(crate) const PAIR: [&str; 2] = ["operator/dora", "publisher+administrator/emil"];
/// How the names of references begin that they publish, and nobody else.
pub(crate) const JOINT: &str = "joint-";

/// The key that somebody comes with.
pub(crate) fn key_of(who: &Principal) -> Fingerprint {
    Fingerprint::of(who.to_string().as_bytes())
}

/// A signature of the right thing. Only sites look at who signed.
pub(crate) fn signed(Statement { of, signed_ms, .. }: Statement) -> Box<Signature> {
    Box::new(Signature { of, signed_ms, chain: vec![vec![0x30, 0]], scheme: 0x0403, bytes: vec![7; 8] })
}

/// One of the two.
pub(crate) struct One {
    who: Principal,
    /// The references of the consortium are published, by one person.
    is_begun: bool,
    /// What is demanded, as far as this one has heard.
    demands: BTreeSet<Demand>,
    /// What waited when it was looked last.
    waiting: Vec<Proposal>,
    n_proposed: u64,
}

impl One {
    pub(crate) fn new(who: &str) -> Self {
        let who = who.parse().expect("the names above are sound");
        Self { who, is_begun: false, demands: BTreeSet::new(), waiting: Vec::new(), n_proposed: 0 }
    }

    pub(crate) fn hear(&mut self, view: &mut View<'_>, heard: Heard) -> Vec<Act> {
        match heard {
            Heard::Started => vec![Act::Wake(view.chance.within(500..4_000))],
            Heard::Time if view.is_calm => Vec::new(),
            Heard::Time => vec![Act::Ask(self.idea(view))],
            Heard::Answer(request, answer) => {
                let mut acts = self.judge(&request, *answer);
                acts.push(Act::Wake(view.chance.within(200..2_500)));
                acts
            }
            Heard::TasksChanged | Heard::Uploaded(..) => Vec::new(),
        }
    }

    fn idea(&mut self, view: &mut View<'_>) -> Request {
        if !self.is_begun {
            return Request::ShowReferenceHead { name: name(AT_CLOSE) };
        }
        let (own, others): (Vec<_>, Vec<_>) = self.waiting.iter().partition(|proposal| proposal.by == self.who);
        let own = view.chance.pick(&own).map(|proposal| proposal.number);
        let others = view.chance.pick(&others).map(|proposal| proposal.number);
        match (view.chance.within(0..10), own, others) {
            (0..4, _, Some(number)) => Request::ApproveProposal { number },
            (4, _, Some(number)) | (5, Some(number), _) if view.chance.one_in(3) => {
                Request::DeclineProposal { number, reason: "another time".to_owned() }
            }
            (6, Some(number), _) => Request::ApproveProposal { number },
            (7..9, _, _) if !self.demands.contains(&Demand::TwoPublish) => {
                Request::Demand { demand: Demand::TwoPublish, holds: true }
            }
            (7, _, _) if !self.demands.contains(&Demand::Signatures) => {
                Request::Demand { demand: Demand::Signatures, holds: true }
            }
            (7..9, _, _) if self.n_proposed < MOST && self.demands.contains(&Demand::TwoPublish) => {
                self.publication(view)
            }
            (9, _, _) => Request::ShowDemands,
            _ => Request::ListProposals { after: self.waiting.first().map(|proposal| proposal.number - 1) },
        }
    }

    fn publication(&mut self, view: &mut View<'_>) -> Request {
        self.n_proposed += 1;
        let person = self.who.person().map_or("", Name::as_str);
        let reference = name(&format!("{JOINT}{person}-{}", self.n_proposed));
        let version = Version { base: base_blob(&name(AT_CLOSE)), columns: [].into() };
        if view.chance.one_in(3) {
            return Request::PublishReference { name: reference, version };
        }
        let signature = signed(Statement::of_reference(&reference, version.id(), view.clock_ms));
        Request::PublishSignedReference { name: reference, version, signature }
    }

    fn judge(&mut self, request: &Request, answer: Result<Reply, Refusal>) -> Vec<Act> {
        let demands_signatures = self.demands.contains(&Demand::Signatures);
        match (request, answer) {
            (Request::ShowReferenceHead { .. }, Ok(_)) => self.is_begun = true,
            (_, Ok(Reply::Demands(demands))) => self.demands = demands,
            (_, Ok(Reply::Proposals(page))) => {
                self.waiting = page.items.into_iter().filter(|proposal| proposal.waits(proposal.at_ms)).collect();
            }
            (Request::ApproveProposal { number }, answer) => {
                let is_own = self.waiting.iter().any(|proposal| proposal.number == *number && proposal.by == self.who);
                self.waiting.retain(|proposal| proposal.number != *number);
                return vec![Act::Judge(match (is_own, answer) {
                    (true, Ok(_)) => Err(format!("two persons: `{}` approved its own proposal {number}", self.who)),
                    (true, Err(Refusal::Forbidden { .. })) => Ok("proposals that nobody approved themselves"),
                    (_, Ok(_)) => Ok("proposals approved"),
                    (_, Err(_)) => Ok("approvals refused"),
                })];
            }
            (Request::DeclineProposal { number, .. }, Ok(_)) => {
                self.waiting.retain(|proposal| proposal.number != *number);
                return vec![Act::Judge(Ok("proposals declined"))];
            }
            (Request::PublishReference { name, .. }, Ok(_)) if demands_signatures => {
                return vec![Act::Judge(Err(format!("signatures: `{name}` was taken without one")))];
            }
            (Request::PublishReference { .. }, Err(_)) if demands_signatures => {
                return vec![Act::Judge(Ok("references refused that nobody signed"))];
            }
            (_, Ok(Reply::Proposal(_))) => return vec![Act::Judge(Ok("proposals made"))],
            _ => {}
        }
        Vec::new()
    }
}

/// References that each of them proposes.
const MOST: u64 = 12;
