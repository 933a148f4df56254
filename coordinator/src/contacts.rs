//! Which sites are heard on this node, and when each was last: what a node saw itself, since it started.
//!
//! A site has its session with whoever leads, so the leader knows best; a new one begins to know as it comes to lead.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use archipelago_cluster::{Room, page};
use archipelago_common::{Principal, SiteId, contact::SiteContact, record::Page};

use crate::clock;

/// What is known of every site that was heard here. Clones are the same.
#[derive(Clone, Default)]
pub struct Contacts {
    // Only who was admitted, and so is enrolled, is in here: it is as long as the list of sites.
    heard: Arc<Mutex<BTreeMap<SiteId, Heard>>>,
    leads_since_ms: Arc<Mutex<Option<u64>>>,
}

/// What is known of a site.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heard {
    /// Sessions that it has here now.
    pub n_sessions: usize,
    /// Since when it has one without a break, or when it last began one; this node's clock, Unix milliseconds.
    pub since_ms: u64,
    /// When it last said anything.
    pub last_ms: u64,
}

/// A session, which counts until this is dropped.
pub struct Contact {
    contacts: Contacts,
    site: Option<SiteId>,
}

impl Contacts {
    /// Somebody begins a session. Of others than sites nothing is kept.
    pub fn begin(&self, who: &Principal) -> Contact {
        let site = match who {
            Principal::Site(site) => Some(site.clone()),
            Principal::Coordinator(_)
            | Principal::Operator(_)
            | Principal::Auditor(_)
            | Principal::Officer(..)
            | Principal::Invited(_) => None,
        };
        let now_ms = clock::now_ms();
        if let Some(site) = &site {
            let mut known = self.lock();
            let heard = known.entry(site.clone()).or_insert(Heard { n_sessions: 0, since_ms: now_ms, last_ms: now_ms });
            if heard.n_sessions == 0 {
                heard.since_ms = now_ms;
            }
            (heard.n_sessions, heard.last_ms) = (heard.n_sessions + 1, now_ms);
        }
        Contact { contacts: self.clone(), site }
    }

    /// What is known, by site.
    pub fn all(&self) -> BTreeMap<SiteId, Heard> {
        self.lock().clone()
    }

    /// The sites after this one, as many as an answer holds.
    pub fn page(&self, room: Room, after: Option<&SiteId>) -> Page<SiteContact> {
        let known = self.lock();
        let rest = known.iter().filter(|(site, _)| after.is_none_or(|after| *site > after));
        let contact = |(site, heard): (&SiteId, &Heard)| SiteContact {
            site: site.clone(),
            is_online: heard.n_sessions > 0,
            since_ms: heard.since_ms,
            last_ms: heard.last_ms,
        };
        page(room, rest.map(contact))
    }

    /// Since when this node leads, as far as whoever looks has noticed: what is asked each time is whether it does now.
    pub fn leads_since_ms(&self, leads: bool) -> Option<u64> {
        let mut since_ms = self.leads_since_ms.lock().unwrap_or_else(|e| e.into_inner());
        *since_ms = leads.then(|| since_ms.unwrap_or_else(clock::now_ms));
        *since_ms
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SiteId, Heard>> {
        self.heard.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn note(&self, site: Option<&SiteId>, change: impl FnOnce(&mut Heard)) {
        let Some(site) = site else { return };
        if let Some(heard) = self.lock().get_mut(site) {
            change(heard);
        }
    }
}

impl Contact {
    /// It has said something.
    pub fn heard(&self) {
        self.contacts.note(self.site.as_ref(), |heard| heard.last_ms = clock::now_ms());
    }
}

impl Drop for Contact {
    fn drop(&mut self) {
        self.contacts.note(self.site.as_ref(), |heard| heard.n_sessions = heard.n_sessions.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_there_as_long_as_it_has_a_session_and_remembered_after_it() {
        let (contacts, north) = (Contacts::default(), "site/north".parse().unwrap());
        let n_sessions = || contacts.all().values().map(|heard| heard.n_sessions).collect::<Vec<_>>();
        assert!(n_sessions().is_empty());
        let (one, two) = (contacts.begin(&north), contacts.begin(&north));
        let _operator = contacts.begin(&"operator/anna".parse().unwrap());
        assert_eq!(n_sessions(), [2]);
        one.heard();
        drop((one, two));
        assert_eq!(n_sessions(), [0]);
        assert!(contacts.all().values().all(|heard| heard.last_ms >= heard.since_ms));
    }
}
