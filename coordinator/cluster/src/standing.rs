//! How everybody stands: until when they are certified, and who is shut out.
//!
//! A leader writes down with which certificate somebody comes. Of a name with several, the one that ends last is kept: what is asked
//! is when somebody can come no more. A site's renewed key takes the place of the one before when it comes for the first time.
//! Sites and coordinators that are members are shut out where they are kept (`site.rs`, `member.rs`); everybody else here.

use std::{collections::BTreeSet, ops::Bound};

use archipelago_common::{
    Fingerprint, Name, Principal, Role, SiteId,
    enrolment::CertifiedKey,
    limits,
    member::{MemberRecord, MemberRole},
    standing::{Revocation, Standing},
};

use crate::{
    Cluster, Edition, Outcome, Refusal, growth,
    mutation::{self, Rule},
    site,
};

impl Cluster {
    /// How somebody stands.
    pub fn standing(&self, who: &Principal) -> Standing {
        let revoked_keys = self.revoked_keys.iter().filter(|(_, (of, _))| of == who);
        Standing {
            who: who.clone(),
            certified: self.certified_of(who),
            revoked: self.revocation_of(who),
            revoked_keys: revoked_keys.map(|(key, (_, revocation))| (*key, revocation.clone())).collect(),
        }
    }

    /// The next so many after this one of whom anything is known here.
    pub(crate) fn known_after(&self, after: Option<&Principal>, most: usize) -> BTreeSet<Principal> {
        let from = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let met = self.met.range::<Principal, _>(from).map(|(who, _)| who.clone()).take(most);
        let revoked = self.revoked.range::<Principal, _>(from).map(|(who, _)| who.clone()).take(most);
        let from_site = match after {
            Some(Principal::Site(site)) => Bound::Excluded(site),
            _ => Bound::Unbounded,
        };
        let sites = self.sites.range::<SiteId, _>((from_site, Bound::Unbounded));
        let sites = sites.map(|(site, _)| Principal::Site(site.clone())).take(most);
        // These are few.
        let others = self.revoked_keys.values().map(|(who, _)| who.clone());
        let others = others.chain(self.members.keys().map(|node| Principal::Coordinator(*node)));
        let all = met.chain(revoked).chain(sites).chain(others).filter(|who| after.is_none_or(|after| who > after));
        all.collect::<BTreeSet<_>>().into_iter().take(most).collect()
    }

    /// Everybody who may be here and whose certificate's end is known, with that end (Unix milliseconds).
    pub fn ends(&self) -> impl Iterator<Item = (Principal, u64)> {
        let by_hand =
            self.met.keys().filter(|who| !matches!(who, Principal::Site(site) if self.certified.contains_key(site)));
        let bound = self.certified.keys().map(|site| Principal::Site(site.clone()));
        by_hand.cloned().chain(bound).filter_map(|who| {
            let ends_ms = self.certified_of(&who)?.expires_ms;
            self.revocation_of(&who).is_none().then_some((who, ends_ms))
        })
    }

    /// Whether a certificate is one that is not written down and should be.
    pub fn is_news(&self, who: &Principal, certified: CertifiedKey) -> bool {
        match who {
            Principal::Invited(_) => false,
            // An earlier build could not read who it is.
            Principal::Officer(..) if self.edition < Edition::Eighth => false,
            Principal::Site(site) if self.renewed.get(site).is_some_and(|renewed| renewed.key == certified.key) => true,
            _ if self.recognise_key(who, certified.key).is_err() || self.revocation_of(who).is_some() => false,
            // Where two end together one of them is kept, whichever comes again.
            _ => self
                .certified_of(who)
                .is_none_or(|known| (certified.expires_ms, certified.key) > (known.expires_ms, known.key)),
        }
    }

    /// Refuses what somebody says who is shut out.
    ///
    /// # Errors  [`Refusal::Forbidden`]
    pub(crate) fn require_heard(&self, who: &Principal) -> Result<(), Refusal> {
        match self.revoked.get(who) {
            Some(revocation) if !mutation::is_broken(Rule::RevokedAreSilent) => {
                Err(Refusal::forbidden(format!("`{who}` was revoked{}", in_words(revocation))))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a key that nobody may be certified with any more.
    pub(crate) fn recognise_new_key(&self, who: &Principal, key: Fingerprint) -> Result<(), Refusal> {
        match self.revoked_keys.contains_key(&key) {
            true => Err(Refusal::forbidden(format!("key {key} was revoked; `{who}` needs another"))),
            false => Ok(()),
        }
    }

    pub(crate) fn note_certificate(
        &mut self,
        principal: &Principal,
        who: &Principal,
        certified: CertifiedKey,
    ) -> Result<Outcome, Refusal> {
        site::require_coordinator(principal)?;
        if !self.is_news(who, certified) {
            return Ok(Outcome::Ticked);
        }
        if let Principal::Site(site) = who {
            match self.renewed.get(site) {
                Some(renewed) if renewed.key == certified.key => {
                    self.certified.insert(site.clone(), certified);
                    self.renewed.remove(site);
                }
                _ => {
                    // The same key with a later end.
                    self.certified.get_mut(site).into_iter().for_each(|known| *known = certified);
                }
            }
        }
        if !self.met.contains_key(who) {
            site::require_room("names whose certificates are known", self.met.len(), limits::PRINCIPALS)?;
            self.grew(growth::bytes_of(&(who, certified)));
        }
        self.met.insert(who.clone(), certified);
        Ok(Outcome::Ticked)
    }

    /// Shuts somebody out, or a key of theirs. A state that has no room for anything else takes it still, up to
    /// [`limits::REVOCATIONS`] of either.
    pub(crate) fn revoke(
        &mut self,
        principal: &Principal,
        who: &Principal,
        key: Option<Fingerprint>,
        reason: &str,
    ) -> Result<Outcome, Refusal> {
        let by = self.require_revocable(principal, who, key, reason)?.clone();
        let revocation = Revocation { by: Some(by), at_ms: self.now_ms, reason: reason.to_owned() };
        let outcome = Outcome::Standing(who.clone());
        match (key, who) {
            (Some(key), _) => {
                self.revoked_keys.entry(key).or_insert((who.clone(), revocation));
            }
            (None, Principal::Site(site)) => {
                self.revoke_site(principal, site)?;
            }
            // It is shut out where members are kept.
            (None, Principal::Coordinator(node)) if self.member(*node).is_some() => {}
            (None, _) => {
                self.revoked.entry(who.clone()).or_insert(revocation);
            }
        }
        Ok(outcome)
    }

    /// In whose name somebody, or a key of theirs, is shut out, if that can be.
    pub(crate) fn require_revocable<'a>(
        &self,
        principal: &'a Principal,
        who: &Principal,
        key: Option<Fingerprint>,
        reason: &str,
    ) -> Result<&'a Name, Refusal> {
        let role = if matches!(who, Principal::Site(_)) { Role::Enroller } else { Role::Administrator };
        let by = site::require_role(principal, role)?;
        site::require_reason(reason)?;
        if let Some(key) = key {
            let found = self.revoked_keys.len() - usize::from(self.revoked_keys.contains_key(&key));
            site::require_room("keys that are shut out", found, limits::REVOCATIONS)?;
        }
        match who {
            Principal::Invited(_) => return Err(Refusal::invalid("an invitation is taken back with `refuse`")),
            _ if key.is_some() => return Ok(by),
            Principal::Site(site) => return self.require_known_site(site).map(|()| by),
            Principal::Coordinator(node) => match self.member(*node).map(|member| member.role) {
                Some(MemberRole::Learner | MemberRole::Voter) => {
                    return Err(Refusal::conflict(format!(
                        "coordinator {node} is a member: `members remove {node}` takes it out and shuts it out for good; \
                         where its key was stolen and it is to stay, revoke that key"
                    )));
                }
                Some(MemberRole::Removed) => return Ok(by),
                None => {}
            },
            _ if who == principal => {
                return Err(Refusal::conflict(format!(
                    "`{who}` would shut itself out; another operator is to say this"
                )));
            }
            _ => {}
        }
        let found = self.revoked.len() - usize::from(self.revoked.contains_key(who));
        site::require_room("names that are shut out", found, limits::REVOCATIONS)?;
        Ok(by)
    }

    pub(crate) fn certified_of(&self, who: &Principal) -> Option<CertifiedKey> {
        let bound = match who {
            Principal::Site(site) => self.certified.get(site),
            _ => None,
        };
        let known = bound.or_else(|| self.met.get(who)).copied();
        known.filter(|known| !self.revoked_keys.contains_key(&known.key))
    }

    fn revocation_of(&self, who: &Principal) -> Option<Revocation> {
        let of_before = |at_ms: u64| Revocation { by: None, at_ms, reason: String::new() };
        match who {
            Principal::Site(site) => self.sites.get(site)?.revoked_ms.map(of_before),
            Principal::Coordinator(node) => {
                let removed = |member: &MemberRecord| (member.role == MemberRole::Removed).then_some(member.removed_ms);
                let removed_ms = self.member(*node).and_then(removed);
                removed_ms.map(|at_ms| of_before(at_ms.unwrap_or_default())).or_else(|| self.revoked.get(who).cloned())
            }
            _ => self.revoked.get(who).cloned(),
        }
    }
}

/// By whom and why, after whatever was revoked.
pub(crate) fn in_words(Revocation { by, reason, .. }: &Revocation) -> String {
    let by = by.as_ref().map_or(String::new(), |by| format!(" by operator `{by}`"));
    if reason.is_empty() { by } else { format!("{by}: {reason}") }
}
