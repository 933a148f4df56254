//! Invitations: how a site comes in.
//!
//! An invitation is a key that the authority has certified to ask for a certificate, once, and for nothing else. Only the fingerprint
//! of that key is known here, and nobody who reads the log can come with it. The first request uses it up, whoever leads and whatever
//! restarts: one with another key is refused from then on. An operator compares the fingerprint of the site's own key with what the
//! site says it is, certifies it at home, and the certificate is here to be fetched until the invitation ends.
//!
//! A site that is in asks for another key in the same place, over its session ([`Cluster::renew_certificate`]).

use std::ops::Bound;

use archipelago_common::{
    Fingerprint, Principal, Role, SiteId,
    enrolment::{CertifiedKey, EnrolmentRecord, EnrolmentState},
    limits,
    signature::{Signature, Statement},
};

use crate::{
    Cluster, Edition, Outcome, Refusal, growth,
    mutation::{self, Rule},
    site,
    standing::in_words,
};

impl Cluster {
    /// Every invitation that is open or was answered lately, by its key.
    pub fn enrolments(&self) -> impl Iterator<Item = &EnrolmentRecord> {
        self.enrolments.values()
    }

    /// The invitations after this one.
    pub(crate) fn enrolments_after(&self, after: Option<&Fingerprint>) -> impl Iterator<Item = &EnrolmentRecord> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.enrolments.range::<Fingerprint, _>((from, Bound::Unbounded)).map(|(_, record)| record)
    }

    /// One invitation.
    pub fn enrolment(&self, invitation: &Fingerprint) -> Option<&EnrolmentRecord> {
        self.enrolments.get(invitation)
    }

    /// The invitation of a site.
    pub fn enrolment_of(&self, site: &SiteId) -> Option<&EnrolmentRecord> {
        self.enrolments.values().find(|record| record.site == *site)
    }

    /// How many requests wait for an operator.
    pub fn n_waiting(&self) -> usize {
        self.enrolments.values().filter(|record| record.waits(self.now_ms)).count()
    }

    /// The key of a site that came in by an invitation.
    pub fn certified(&self, site: &SiteId) -> Option<&CertifiedKey> {
        self.certified.get(site)
    }

    /// Whether a peer's key may be that of its name. Any is that the authority has signed, where none was approved by name.
    ///
    /// # Errors  [`Refusal::Forbidden`]
    pub fn recognise_key(&self, principal: &Principal, key: Fingerprint) -> Result<(), Refusal> {
        if let Some((_, revocation)) = self.revoked_keys.get(&key) {
            return Err(Refusal::forbidden(format!("key {key} of `{principal}` was revoked{}", in_words(revocation))));
        }
        let Principal::Site(site) = principal else { return Ok(()) };
        let is_renewed = self.renewed.get(site).is_some_and(|renewed| renewed.key == key);
        match self.certified.get(site) {
            Some(certified) if certified.key != key && !is_renewed => Err(Refusal::forbidden(format!(
                "the key of `{site}` is {}, and this one is {key}: it was replaced, or was never that of `{site}`",
                certified.key
            ))),
            Some(_) | None => Ok(()),
        }
    }

    /// The invitation that somebody comes with, if it is one and has not ended.
    ///
    /// # Errors  [`Refusal::Forbidden`], [`Refusal::Stale`], with what to do
    pub fn require_invited(&self, invitation: &Fingerprint) -> Result<&EnrolmentRecord, Refusal> {
        let Some(record) = self.enrolments.get(invitation) else {
            return Err(Refusal::forbidden(
                "this invitation is not known here: it has expired, or a later one took its place; ask the operator for \
                 a new one",
            ));
        };
        if record.is_over(self.now_ms) {
            let reason = format!(
                "the invitation of `{}` has expired; ask operator `{}` for a new one",
                record.site, record.invited_by
            );
            return Err(Refusal::stale(reason));
        }
        Ok(record)
    }

    pub(crate) fn invite(
        &mut self,
        principal: &Principal,
        site: &SiteId,
        invitation: Fingerprint,
        expires_ms: u64,
    ) -> Result<Outcome, Refusal> {
        let invited_by = site::require_role(principal, Role::Enroller)?.clone();
        if self.edition < Edition::Sixth {
            return Err(Refusal::conflict("not all coordinators know invitations yet; upgrade all of them"));
        }
        if self.enrolments.contains_key(&invitation) {
            return Err(Refusal::conflict("there is an invitation with this key already; make another"));
        }
        let life_ms = expires_ms.saturating_sub(self.now_ms);
        if !(1..=limits::LONGEST_INVITATION_MS).contains(&life_ms) {
            let days = limits::LONGEST_INVITATION_MS / DAY_MS;
            return Err(Refusal::invalid(format!(
                "the invitation would end {} s from now by the coordinators' clocks, expected at most {days} days; check \
                 this machine's clock against `clock show`",
                (i128::from(expires_ms) - i128::from(self.now_ms)) / 1000
            )));
        }
        self.require_free(site)?;
        let now_ms = self.now_ms;
        if let Some(EnrolmentRecord {
            state: EnrolmentState::Asked { key, .. } | EnrolmentState::Renewing { key, .. },
            ..
        }) = self.enrolment_of(site).filter(|record| record.waits(now_ms))
        {
            return Err(Refusal::conflict(format!(
                "a request of `{site}` waits, with key {key}: say `approve {site}` or `refuse {site}` first"
            )));
        }
        let stays = |record: &EnrolmentRecord| record.site != *site && !record.is_over(now_ms);
        // Since edition 7 those count that may bring another site: who is in may renew, and that takes no place.
        let counts = |record: &EnrolmentRecord| {
            stays(record) && (self.edition < Edition::Seventh || !self.sites.contains_key(&record.site))
        };
        let n_staying = self.enrolments.values().filter(|record| counts(record)).count();
        site::require_room("invitations", n_staying, limits::INVITATIONS)?;
        self.require_growth(growth::PLACE)?;
        self.grew(growth::PLACE);
        self.enrolments.retain(|_, record| stays(record));
        self.renewed.remove(site);
        let state = EnrolmentState::Invited;
        let record =
            EnrolmentRecord { site: site.clone(), invitation, invited_by, invited_ms: now_ms, expires_ms, state };
        self.enrolments.insert(invitation, record);
        Ok(Outcome::Enrolment(invitation))
    }

    pub(crate) fn request_certificate(
        &mut self,
        principal: &Principal,
        key: Fingerprint,
        request: &str,
    ) -> Result<Outcome, Refusal> {
        let Principal::Invited(invitation) = principal else {
            return Err(Refusal::forbidden(format!(
                "only whoever comes with an invitation may do this, not `{principal}`"
            )));
        };
        let record = self.require_invited(invitation)?;
        let (site, by) = (record.site.clone(), record.invited_by.clone());
        let used_by = match &record.state {
            EnrolmentState::Invited => None,
            EnrolmentState::Asked { key, .. }
            | EnrolmentState::Approved { key, .. }
            | EnrolmentState::Renewing { key, .. } => Some(*key),
            EnrolmentState::Refused { reason, by, .. } => {
                return Err(Refusal::conflict(format!("operator `{by}` refused `{site}`: {reason}")));
            }
        };
        match used_by {
            // Asked again after a lost answer, or after an interruption.
            Some(first) if first == key => return Ok(Outcome::Enrolment(*invitation)),
            Some(first) if !mutation::is_broken(Rule::InvitationOnce) => {
                return Err(Refusal::conflict(format!(
                    "the invitation of `{site}` was used already, by key {first}; if that is not a key of yours, tell \
                     operator `{by}` to refuse it, and ask for a new invitation"
                )));
            }
            _ => {}
        }
        require_size("signing request", request)?;
        let n_bytes = growth::bytes_of(&request);
        self.require_growth(n_bytes)?;
        self.grew(n_bytes);
        let state = EnrolmentState::Asked { key, request: request.to_owned(), at_ms: self.now_ms };
        self.set_enrolment(invitation, state);
        Ok(Outcome::Enrolment(*invitation))
    }

    /// A site asks for another key of its own. Whatever became of earlier requests, this one waits now; but an invitation that came
    /// between is there because an operator wants another key under this name, and goes first.
    pub(crate) fn renew_certificate(
        &mut self,
        principal: &Principal,
        key: Fingerprint,
        request: &str,
        signature: &Signature,
    ) -> Result<Outcome, Refusal> {
        let site = self.require_site(principal)?.clone();
        self.recognise_new_key(principal, key)?;
        let statement = Statement::of_renewal(&site, request, signature.signed_ms);
        signature.check(statement.of).map_err(|e| Refusal::invalid(e.to_string()))?;
        require_size("signing request", request)?;
        let now_ms = self.now_ms;
        match self.enrolment_of(&site).filter(|record| !record.is_over(now_ms)).map(|record| &record.state) {
            // Asked again after a lost answer, or after an interruption.
            Some(EnrolmentState::Renewing { key: known, .. } | EnrolmentState::Approved { key: known, .. })
                if *known == key =>
            {
                return Ok(Outcome::Enrolment(key));
            }
            Some(EnrolmentState::Refused { key: Some(known), reason, by, .. }) if *known == key => {
                return Err(Refusal::conflict(format!("operator `{by}` refused another key of `{site}`: {reason}")));
            }
            Some(EnrolmentState::Invited | EnrolmentState::Asked { .. }) => {
                return Err(Refusal::conflict(format!(
                    "`{site}` was invited anew, and what comes of that comes first; ask again later"
                )));
            }
            _ => {}
        }
        let n_bytes = growth::bytes_of(&request).saturating_add(growth::bytes_of(signature));
        self.require_growth(n_bytes)?;
        self.grew(n_bytes);
        self.enrolments.retain(|_, record| record.site != site && !record.is_over(now_ms));
        self.renewed.remove(&site);
        let state = EnrolmentState::Renewing {
            key,
            request: request.to_owned(),
            signature: Box::new(signature.clone()),
            at_ms: now_ms,
        };
        let record = EnrolmentRecord {
            invitation: key,
            invited_by: site.name().clone(),
            site,
            invited_ms: now_ms,
            expires_ms: now_ms.saturating_add(limits::LONGEST_INVITATION_MS),
            state,
        };
        self.enrolments.insert(key, record);
        Ok(Outcome::Enrolment(key))
    }

    pub(crate) fn approve_site(
        &mut self,
        principal: &Principal,
        site: &SiteId,
        certified: CertifiedKey,
        certificate: &str,
    ) -> Result<Outcome, Refusal> {
        let key = certified.key;
        let by = site::require_role(principal, Role::Enroller)?.clone();
        let record = self.require_enrolment(site)?;
        let invitation = record.invitation;
        let is_renewal = matches!(record.state, EnrolmentState::Renewing { .. });
        match &record.state {
            EnrolmentState::Approved { key: approved, .. } if *approved == key => {
                return Ok(Outcome::Enrolment(invitation));
            }
            EnrolmentState::Asked { key: asked, .. } | EnrolmentState::Renewing { key: asked, .. } if *asked == key => {
            }
            EnrolmentState::Asked { key: asked, .. } | EnrolmentState::Renewing { key: asked, .. } => {
                return Err(Refusal::conflict(format!(
                    "the certificate is of key {key}, but the key of `{site}` that waits is {asked}"
                )));
            }
            EnrolmentState::Invited => {
                return Err(Refusal::conflict(format!("`{site}` was invited and has not asked yet; nothing waits")));
            }
            EnrolmentState::Approved { key: approved, .. } => {
                return Err(Refusal::conflict(format!("`{site}` was approved already, with key {approved}")));
            }
            EnrolmentState::Refused { .. } => {
                return Err(Refusal::conflict(format!("`{site}` was refused; invite it anew")));
            }
        }
        self.recognise_new_key(&Principal::Site(site.clone()), key)?;
        require_size("certificate", certificate)?;
        let n_bytes = growth::bytes_of(&certificate);
        self.require_growth(n_bytes)?;
        self.add_site(principal, site)?;
        self.grew(n_bytes);
        // The key that a site has counts until the one comes that takes its place.
        match is_renewal {
            true => self.renewed.insert(site.clone(), certified),
            false => self.certified.insert(site.clone(), certified),
        };
        let certificate = certificate.to_owned();
        self.set_enrolment(&invitation, EnrolmentState::Approved { key, certificate, by, at_ms: self.now_ms });
        Ok(Outcome::Enrolment(invitation))
    }

    pub(crate) fn refuse_site(
        &mut self,
        principal: &Principal,
        site: &SiteId,
        reason: &str,
    ) -> Result<Outcome, Refusal> {
        let by = site::require_role(principal, Role::Enroller)?.clone();
        site::require_reason(reason)?;
        let record = self.require_enrolment(site)?;
        let invitation = record.invitation;
        let key = match &record.state {
            EnrolmentState::Refused { .. } => return Ok(Outcome::Enrolment(invitation)),
            EnrolmentState::Approved { .. } => {
                let reason = format!("`{site}` was approved already; shut it out with `site revoke {site}`");
                return Err(Refusal::conflict(reason));
            }
            EnrolmentState::Asked { key, .. } | EnrolmentState::Renewing { key, .. } => Some(*key),
            EnrolmentState::Invited => None,
        };
        let state = EnrolmentState::Refused { key, reason: reason.to_owned(), by, at_ms: self.now_ms };
        self.set_enrolment(&invitation, state);
        Ok(Outcome::Enrolment(invitation))
    }

    /// Whether an approval of this key takes the place of one with which the site may be here: not that of a renewal, which waits for its
    /// first use, and not that of whoever comes in for the first time.
    pub(crate) fn replaces_key(&self, site: &SiteId, key: Fingerprint) -> bool {
        let is_renewal =
            self.enrolment_of(site).is_some_and(|record| matches!(record.state, EnrolmentState::Renewing { .. }));
        let is_known = self.certified.get(site).is_some_and(|certified| certified.key == key);
        self.sites.contains_key(site) && !is_renewal && !is_known
    }

    /// The invitation of a site, unless it has ended.
    fn require_enrolment(&self, site: &SiteId) -> Result<&EnrolmentRecord, Refusal> {
        let record =
            self.enrolment_of(site).ok_or_else(|| Refusal::not_found(format!("invitation of site `{site}`")))?;
        match record.is_over(self.now_ms) {
            true => Err(Refusal::stale(format!("the invitation of `{site}` has expired; invite it anew"))),
            false => Ok(record),
        }
    }

    fn set_enrolment(&mut self, invitation: &Fingerprint, state: EnrolmentState) {
        if let Some(record) = self.enrolments.get_mut(invitation) {
            record.state = state;
        }
    }
}

fn require_size(what: &str, pem: &str) -> Result<(), Refusal> {
    let (found, limit) = (pem.len(), limits::CERTIFICATE_BYTES);
    if found <= limit {
        Ok(())
    } else {
        Err(Refusal::invalid(format!("the {what} has {found} bytes, expected at most {limit}")))
    }
}

const DAY_MS: u64 = 86_400_000;
