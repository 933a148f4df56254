//! What a consortium demands, and what two persons do together.
//!
//! Where two persons are demanded for an act, whoever would do it alone is refused, and proposes it instead; another person (of another
//! name and another key) who has the same role approves it, and then it is done, in the name of whoever proposed it and as
//! if they said it then: what became impossible meanwhile is refused then. A proposal that nobody approves ends by itself.
//!
//! Which key somebody comes with, the leader says: it has verified the certificate of their session.

use std::{collections::BTreeSet, ops::Bound};

use archipelago_common::{
    ConditionKey, Fingerprint, Principal, Role, limits,
    proposal::{Act, Demand, Proposal, ProposalState},
};
use serde::{Deserialize, Serialize};

use crate::{
    Body, Cluster, Outcome, Refusal, Selection,
    deed::Deed,
    growth,
    mutation::{self, Rule},
    site,
};

/// A proposal, and what is to be done where it can still be approved.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Proposed {
    pub(crate) proposal: Proposal,
    /// As long as it waits.
    pub(crate) deed: Option<Box<Deed>>,
}

impl Cluster {
    /// What is demanded.
    pub fn demands(&self) -> &BTreeSet<Demand> {
        &self.demands
    }

    /// A proposal.
    pub fn proposal(&self, number: u64) -> Option<&Proposal> {
        self.proposals.get(&number).map(|proposed| &proposed.proposal)
    }

    /// What a proposal that waits would do.
    pub fn proposed(&self, number: u64) -> Option<&Deed> {
        self.proposals.get(&number)?.deed.as_deref()
    }

    /// The proposals after this one.
    pub(crate) fn proposals_after(&self, after: Option<u64>) -> impl Iterator<Item = &Proposal> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.proposals.range((from, Bound::Unbounded)).map(|(_, proposed)| &proposed.proposal)
    }

    /// What a command would do, where whoever says it is not to do it alone.
    pub fn asks_for_two(&self, principal: &Principal, body: &Body) -> Option<Deed> {
        // Most consortia demand nothing, and most commands are of another kind.
        if self.demands.is_empty() {
            return None;
        }
        Deed::of(body).filter(|deed| self.is_for_two(principal, deed))
    }

    fn is_for_two(&self, principal: &Principal, deed: &Deed) -> bool {
        let asked = |act: Act| self.demands.iter().any(|demand| demand.of_two() == Some(act));
        match deed {
            Deed::Withdraw { selection, .. } | Deed::Erase { selection, .. } => {
                asked(Act::Withdraw) && !matches!(principal, Principal::Site(_)) && is_of_others(principal, selection)
            }
            Deed::Demand { .. } => self.demands.iter().any(|demand| demand.of_two().is_some()),
            deed => asked(deed.act()),
        }
    }

    /// Refuses what one person would do alone where two are demanded.
    pub(crate) fn require_alone(&self, principal: &Principal, body: &Body) -> Result<(), Refusal> {
        match self.asks_for_two(principal, body) {
            Some(deed) => Err(Refusal::conflict(format!(
                "two persons do this together in this consortium ({deed}): say it again to propose it"
            ))),
            None => Ok(()),
        }
    }

    /// Refuses what nobody signed where signatures are demanded.
    pub(crate) fn require_signed(&self, what: &str, is_signed: bool) -> Result<(), Refusal> {
        match self.demands.contains(&Demand::Signatures) && !is_signed && !mutation::is_broken(Rule::SignedOnly) {
            true => Err(Refusal::conflict(format!(
                "this consortium takes no {what} that is not signed: leave --unsigned out"
            ))),
            false => Ok(()),
        }
    }

    pub(crate) fn propose(&mut self, principal: &Principal, deed: &Deed, key: Fingerprint) -> Result<Outcome, Refusal> {
        site::require_role(principal, deed.role())?;
        if !self.is_for_two(principal, deed) {
            return Err(Refusal::conflict(format!("one person may do this ({deed}); say it again to do it")));
        }
        let now_ms = self.now_ms;
        let waiting = self.proposals.values().filter(|proposed| proposed.proposal.waits(now_ms));
        if let Some(same) = waiting.clone().find(|proposed| proposed.deed.as_deref() == Some(deed)) {
            let Proposal { number, by, .. } = &same.proposal;
            return match by == principal {
                // Asked again after a lost answer.
                true => Ok(Outcome::Proposal(*number)),
                false => Err(Refusal::conflict(format!(
                    "`{by}` has proposed this already ({deed}): `proposals approve {number}` approves it"
                ))),
            };
        }
        site::require_room("proposals that wait", waiting.count(), limits::PROPOSALS)?;
        self.require_possible(principal, deed)?;
        let n_bytes = growth::bytes_of(deed);
        self.require_growth(n_bytes)?;
        self.grew(n_bytes);
        self.forget_proposals();
        let number = self.proposals.keys().next_back().map_or(1, |last| last + 1);
        let proposal = Proposal {
            number,
            act: deed.act(),
            deed: deed.to_string(),
            role: deed.role(),
            by: principal.clone(),
            key,
            at_ms: now_ms,
            expires_ms: now_ms.saturating_add(limits::PROPOSAL_MS),
            state: ProposalState::Waits,
        };
        self.index.proposed(deed.blobs());
        self.proposals.insert(number, Proposed { proposal, deed: Some(Box::new(deed.clone())) });
        Ok(Outcome::Proposal(number))
    }

    pub(crate) fn approve_proposal(
        &mut self,
        principal: &Principal,
        number: u64,
        key: Fingerprint,
    ) -> Result<Outcome, Refusal> {
        let Proposed { proposal, deed } = self.require_proposal(principal, number)?;
        let (by, of_key) = (proposal.by.clone(), proposal.key);
        let deed = match (&proposal.state, deed) {
            // Asked again after a lost answer.
            (ProposalState::Done { by, .. }, _) if by == principal => return Ok(Outcome::Proposal(number)),
            (ProposalState::Done { by, .. }, _) => {
                return Err(Refusal::conflict(format!("proposal {number} was approved by `{by}` already")));
            }
            (ProposalState::Declined { by, reason, .. }, _) => {
                return Err(Refusal::conflict(format!("proposal {number} was declined by `{by}`: {reason}")));
            }
            (ProposalState::Waits, Some(deed)) if proposal.waits(self.now_ms) => deed.clone(),
            (ProposalState::Waits, _) => {
                return Err(Refusal::stale(format!(
                    "nobody approved proposal {number} in time ({}); propose it again",
                    proposal.deed
                )));
            }
        };
        if (principal.person() == by.person() || key == of_key) && !mutation::is_broken(Rule::TwoPersons) {
            return Err(Refusal::forbidden(format!(
                "proposal {number} is by `{by}` with key {of_key}, and `{principal}` comes with key {key}: another person \
                 approves it, of another name and with another key"
            )));
        }
        if self.require_heard(&by).is_err() || self.revoked_keys.contains_key(&of_key) {
            return Err(Refusal::conflict(format!(
                "`{by}`, who proposed this, was shut out since; decline it, and propose it anew if it is right"
            )));
        }
        self.carry_out_deed(&by, &deed)?;
        let state = ProposalState::Done { by: principal.clone(), key, at_ms: self.now_ms };
        self.end_proposal(number, state);
        Ok(Outcome::Proposal(number))
    }

    pub(crate) fn decline_proposal(
        &mut self,
        principal: &Principal,
        number: u64,
        reason: &str,
    ) -> Result<Outcome, Refusal> {
        site::require_reason(reason)?;
        let Proposed { proposal, .. } = self.require_proposal(principal, number)?;
        match &proposal.state {
            ProposalState::Declined { .. } => return Ok(Outcome::Proposal(number)),
            ProposalState::Done { by, .. } => {
                return Err(Refusal::conflict(format!(
                    "proposal {number} was approved by `{by}` already, and is done"
                )));
            }
            ProposalState::Waits => {}
        }
        let state = ProposalState::Declined { by: principal.clone(), reason: reason.to_owned(), at_ms: self.now_ms };
        self.end_proposal(number, state);
        Ok(Outcome::Proposal(number))
    }

    pub(crate) fn demand(&mut self, principal: &Principal, demand: Demand, holds: bool) -> Result<Outcome, Refusal> {
        site::require_role(principal, Role::Administrator)?;
        match holds {
            true => self.demands.insert(demand),
            false => self.demands.remove(&demand),
        };
        Ok(Outcome::Demands)
    }

    /// What two persons have agreed on, in the name of the one who proposed it.
    fn carry_out_deed(&mut self, by: &Principal, deed: &Deed) -> Result<Outcome, Refusal> {
        match deed {
            Deed::Publish { name, version, summary, layout, signature: None } => {
                self.publish_unsigned_reference(by, (name, version), (summary, layout))
            }
            Deed::Publish { name, version, summary, layout, signature: Some(signature) } => {
                self.publish_signed_reference(by, (name, version), (summary, layout), signature)
            }
            Deed::Withdraw { reference, selection } => self.withdraw(by, reference, selection),
            Deed::Erase { reference, selection } => self.erase(by, reference, selection),
            Deed::RevokeSite { site } => self.revoke_site(by, site),
            Deed::Revoke { who, key, reason } => self.revoke(by, who, *key, reason),
            Deed::AddMember { node, address } => self.add_member(by, *node, address),
            Deed::PromoteMember { node } => self.promote_member(by, *node),
            Deed::RemoveMember { node } => self.remove_member(by, *node),
            Deed::Demand { demand, holds } => self.demand(by, *demand, *holds),
        }
    }

    /// Refuses at once what could not be done now either. What it takes is looked at again when it is done.
    fn require_possible(&self, by: &Principal, deed: &Deed) -> Result<(), Refusal> {
        match deed {
            Deed::Publish { name, version, summary, layout, signature } => {
                self.require_signed("reference", signature.is_some())?;
                self.require_publishable(by, name, version, summary, layout).map(drop)
            }
            Deed::Withdraw { reference, selection } => self.require_withdrawable(by, reference, selection).map(drop),
            Deed::Erase { reference, selection } => self.require_erasable(by, reference, selection).map(drop),
            Deed::RevokeSite { site } => self.require_known_site(site),
            Deed::Revoke { who, key, reason } => self.require_revocable(by, who, *key, reason).map(drop),
            Deed::AddMember { .. } | Deed::PromoteMember { .. } | Deed::RemoveMember { .. } | Deed::Demand { .. } => {
                // Members are few, and copied soon.
                let mut trial =
                    Self { members: self.members.clone(), revoked: self.revoked.clone(), ..Self::default() };
                trial.carry_out_deed(by, deed).map(drop)
            }
        }
    }

    /// The proposal, for whoever has the role that it is about.
    fn require_proposal(&self, principal: &Principal, number: u64) -> Result<&Proposed, Refusal> {
        let proposed = self.proposals.get(&number).ok_or_else(|| Refusal::not_found(format!("proposal {number}")))?;
        site::require_role(principal, proposed.proposal.role)?;
        Ok(proposed)
    }

    fn end_proposal(&mut self, number: u64, state: ProposalState) {
        let Some(Proposed { proposal, deed }) = self.proposals.get_mut(&number) else { return };
        proposal.state = state;
        if let Some(deed) = deed.take() {
            self.index.proposed_no_more(deed.blobs());
        }
    }

    /// Makes room: what ended in time is forgotten from the oldest on, and nothing is left to be done of what nobody approved.
    fn forget_proposals(&mut self) {
        let now_ms = self.now_ms;
        for Proposed { proposal, deed } in self.proposals.values_mut() {
            if let Some(deed) = deed.take_if(|_| !proposal.waits(now_ms)) {
                self.index.proposed_no_more(deed.blobs());
            }
        }
        while self.proposals.len() >= limits::PROPOSALS_KEPT {
            let oldest = self.proposals.iter().find(|(_, proposed)| proposed.deed.is_none()).map(|(number, _)| *number);
            let Some(oldest) = oldest else { return };
            self.proposals.remove(&oldest);
        }
    }
}

/// Whether anything that is withdrawn is not the person's own.
fn is_of_others(principal: &Principal, selection: &Selection) -> bool {
    let person = principal.person();
    match selection {
        Selection::Site(owner) => Some(owner.name()) != person,
        Selection::Keys(keys) => keys.iter().map(ConditionKey::owner).any(|owner| Some(owner.name()) != person),
    }
}
