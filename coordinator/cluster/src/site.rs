//! Sites, and who may ask for what.
//!
//! The coordinator checks roles before it proposes; they are checked here again, because only here is the answer the
//! same on every node and ordered with revocations.

use archipelago_common::{
    Fingerprint, Name, Principal, Role, SiteId, limits,
    member::MemberRole,
    record::{AssignmentRecord, AssignmentState, SiteRecord},
};

use crate::{Cluster, Edition, Outcome, Refusal, growth};

impl Cluster {
    /// Whether a peer may hold a session: anyone but a site that is not enrolled, whoever was revoked, a coordinator that
    /// was removed, and whoever comes with an invitation that has ended.
    ///
    /// # Errors  [`Refusal::Forbidden`], [`Refusal::Stale`]
    pub fn admit(&self, principal: &Principal) -> Result<(), Refusal> {
        self.require_heard(principal)?;
        match principal {
            Principal::Site(site) => self.require_enrolled(site),
            Principal::Coordinator(node) => match self.member(*node).map(|member| member.role) {
                Some(MemberRole::Removed) => Err(Refusal::forbidden(format!("coordinator {node} was removed"))),
                // One that is not known yet may have been added by entries that this node has not applied.
                Some(MemberRole::Learner | MemberRole::Voter) | None => Ok(()),
            },
            Principal::Operator(_) | Principal::Auditor(_) => Ok(()),
            // An earlier build could not read what they say.
            Principal::Officer(..) if self.edition < Edition::Eighth => Err(Refusal::conflict(format!(
                "a coordinator does not know `{principal}`'s role yet; upgrade all of them"
            ))),
            Principal::Officer(..) => Ok(()),
            Principal::Invited(invitation) => self.require_invited(invitation).map(drop),
        }
    }

    /// Whether somebody is shut out whatever comes after this state: nobody who was revoked, no key and no member that was taken out
    /// comes back.
    pub fn is_shut_out(&self, who: &Principal, key: Option<Fingerprint>) -> bool {
        let is_gone = match who {
            Principal::Site(site) => self.sites.get(site).is_some_and(|record| record.revoked_ms.is_some()),
            Principal::Coordinator(node) => self.member(*node).is_some_and(|member| member.role == MemberRole::Removed),
            Principal::Operator(_) | Principal::Auditor(_) | Principal::Officer(..) | Principal::Invited(_) => false,
        };
        is_gone || self.require_heard(who).is_err() || key.is_some_and(|key| self.revoked_keys.contains_key(&key))
    }

    /// All sites that were ever enrolled, by name.
    pub fn sites(&self) -> impl Iterator<Item = &SiteRecord> {
        self.sites.values()
    }

    pub(crate) fn add_site(&mut self, principal: &Principal, site: &SiteId) -> Result<Outcome, Refusal> {
        require_role(principal, Role::Enroller)?;
        self.require_free(site)?;
        if let Some(record) = self.sites.get(site) {
            return Ok(Outcome::Site(record.clone()));
        }
        require_room("enrolled sites", self.sites.len(), limits::SITES)?;
        self.require_growth(growth::PLACE)?;
        self.grew(growth::PLACE);
        let record = SiteRecord { site: site.clone(), enrolled_ms: self.now_ms, revoked_ms: None };
        self.sites.insert(site.clone(), record.clone());
        Ok(Outcome::Site(record))
    }

    pub(crate) fn revoke_site(&mut self, principal: &Principal, site: &SiteId) -> Result<Outcome, Refusal> {
        require_role(principal, Role::Enroller)?;
        let record = self.sites.get_mut(site).ok_or_else(|| Refusal::not_found(format!("site `{site}`")))?;
        record.revoked_ms.get_or_insert(self.now_ms);
        let record = record.clone();
        let held = self.open_tasks().filter_map(|task| Some((task.id, task.assignments.get(site)?)));
        let held = held.filter(|(_, assignment)| assignment.state == AssignmentState::Assigned);
        let held: Vec<_> = held.map(|(id, assignment)| (id, assignment.clone())).collect();
        for (id, assignment) in held {
            self.assign(id, site, AssignmentRecord { state: AssignmentState::Lapsed, ..assignment });
        }
        Ok(Outcome::Site(record))
    }

    pub(crate) fn require_known_site(&self, site: &SiteId) -> Result<(), Refusal> {
        self.sites.get(site).map(drop).ok_or_else(|| Refusal::not_found(format!("site `{site}`")))
    }

    /// Refuses a name under which no site can be here.
    pub(crate) fn require_free(&self, site: &SiteId) -> Result<(), Refusal> {
        match self.sites.get(site) {
            // A certificate that was revoked must not come alive again under its old name.
            Some(SiteRecord { revoked_ms: Some(_), .. }) => {
                Err(Refusal::conflict(format!("site `{site}` was revoked; enrol it under a new name")))
            }
            None if self.references.values().any(|reference| reference.publisher() == site.name()) => {
                let reason =
                    format!("`{site}` is the namespace of an operator who published a reference; choose another name");
                Err(Refusal::conflict(reason))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The site that asks, if it is one, enrolled and not revoked.
    pub(crate) fn require_site<'a>(&self, principal: &'a Principal) -> Result<&'a SiteId, Refusal> {
        let Principal::Site(site) = principal else {
            return Err(Refusal::forbidden(format!("only a site may do this, not `{principal}`")));
        };
        self.require_enrolled(site).map(|()| site)
    }

    pub(crate) fn require_enrolled(&self, site: &SiteId) -> Result<(), Refusal> {
        match self.sites.get(site) {
            None => Err(Refusal::forbidden(format!("site `{site}` is not enrolled"))),
            Some(SiteRecord { revoked_ms: Some(_), .. }) => {
                Err(Refusal::forbidden(format!("site `{site}` was revoked")))
            }
            Some(_) => Ok(()),
        }
    }
}

/// The name of whoever asks, who has this role.
pub(crate) fn require_role(principal: &Principal, role: Role) -> Result<&Name, Refusal> {
    match principal.person().filter(|_| principal.may(role)) {
        Some(name) => Ok(name),
        None => {
            let role = role.as_str();
            Err(Refusal::forbidden(format!("only an operator or {role} may do this, not `{principal}`")))
        }
    }
}

pub(crate) fn require_coordinator(principal: &Principal) -> Result<(), Refusal> {
    match principal {
        Principal::Coordinator(_) => Ok(()),
        _ => Err(Refusal::forbidden(format!("only a coordinator may do this, not `{principal}`"))),
    }
}

/// Refuses a reason of too many bytes.
pub(crate) fn require_reason(reason: &str) -> Result<(), Refusal> {
    match reason.len() {
        found if found > limits::REASON_BYTES => {
            let limit = limits::REASON_BYTES;
            Err(Refusal::invalid(format!("the reason has {found} bytes, expected at most {limit}")))
        }
        _ => Ok(()),
    }
}

/// Refuses one more of a thing of which there are `found` already.
pub(crate) fn require_room(what: &str, found: usize, limit: usize) -> Result<(), Refusal> {
    if found < limit { Ok(()) } else { Err(Refusal::conflict(format!("there are {found} {what}, which is the limit"))) }
}
