//! What one site may take of a node: bytes stored, bytes uploaded in a day, transfers at once, requests a second.
//!
//! A site that reaches a limit in bytes is refused with the limit and its use of it; one that asks too often is told to
//! come again. Coordinators, operators and auditors have no quota. What is counted by the day and by the second is
//! counted on each node and forgotten when it restarts; what is stored is counted in the replicated state.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Instant,
};

use archipelago_common::{BlobRef, Principal, SiteId};
use archipelago_protocol::message::Refusal;
use serde::{Deserialize, Serialize};

use crate::ops::metrics;

/// The limits for each site; `[quotas]` in a node's configuration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of the blobs of a site's accepted submissions.
    pub stored_bytes: u64,
    /// Bytes that a site may upload within 24 hours.
    pub bytes_per_day: u64,
    /// Uploads and downloads of a site at once.
    pub transfers: u32,
    /// Requests of a site a second; twice as many in a burst.
    pub requests_per_second: u32,
}

impl Default for Limits {
    /// Room for embeddings of some hundred million cells, and for a worker that retries.
    fn default() -> Self {
        Self { stored_bytes: 256 << 30, bytes_per_day: 256 << 30, transfers: 16, requests_per_second: 1_000 }
    }
}

/// The accounts of all sites on this node. Clones are the same.
#[derive(Clone)]
pub struct Quotas {
    limits: Arc<Limits>,
    begun: Instant,
    accounts: Arc<Mutex<BTreeMap<SiteId, Account>>>,
}

#[derive(Default)]
struct Account {
    /// The day, counted from the node's start, of which `bytes_today` tells.
    day: u64,
    bytes_today: u64,
    n_transfers: u32,
    /// Requests that may still come now, in thousandths, and when that was counted.
    spare_milli: u64,
    counted_ms: Option<u64>,
}

/// A transfer that counts until it is dropped.
pub struct Transfer {
    quotas: Quotas,
    site: Option<SiteId>,
}

impl Quotas {
    /// Accounts that begin empty.
    pub fn new(limits: Limits) -> Self {
        Self { limits: Arc::new(limits), begun: Instant::now(), accounts: Arc::default() }
    }

    /// Begins a transfer.
    ///
    /// # Errors  [`Refusal::Busy`]
    pub fn transfer(&self, who: &Principal) -> Result<Transfer, Refusal> {
        let site = site_of(who);
        if let Some(site) = &site {
            let mut accounts = self.lock();
            let account = accounts.entry(site.clone()).or_default();
            if account.n_transfers >= self.limits.transfers {
                return Err(refused("transfers", Refusal::Busy { retry_after_ms: TRANSFER_MS }));
            }
            account.n_transfers += 1;
        }
        Ok(Transfer { quotas: self.clone(), site })
    }

    /// Counts a request.
    ///
    /// # Errors  [`Refusal::Busy`]
    pub fn request(&self, who: &Principal) -> Result<(), Refusal> {
        let Some(site) = site_of(who) else { return Ok(()) };
        self.request_at(site, self.begun.elapsed().as_millis() as u64)
    }

    fn request_at(&self, site: SiteId, now_ms: u64) -> Result<(), Refusal> {
        let rate = u64::from(self.limits.requests_per_second.max(1));
        let most = 2 * rate * 1_000;
        let mut accounts = self.lock();
        let account = accounts.entry(site).or_default();
        let since_ms = account.counted_ms.map_or(u64::MAX, |counted_ms| now_ms.saturating_sub(counted_ms));
        account.spare_milli = account.spare_milli.saturating_add(since_ms.saturating_mul(rate)).min(most);
        account.counted_ms = Some(now_ms);
        if account.spare_milli < 1_000 {
            let retry_after_ms = (1_000_u64.div_ceil(rate)).max(1);
            return Err(refused("requests", Refusal::Busy { retry_after_ms }));
        }
        account.spare_milli -= 1_000;
        Ok(())
    }

    fn day(&self) -> u64 {
        self.begun.elapsed().as_secs() / DAY_S
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SiteId, Account>> {
        self.accounts.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Transfer {
    /// Refuses an upload that would exceed the site's bytes. `stored` is what the state says the site has stored.
    ///
    /// # Errors  [`Refusal::Conflict`] with the limit, what is used of it, and what to do
    pub fn check_upload(&self, blob: BlobRef, stored: u64) -> Result<(), Refusal> {
        let Some(site) = &self.site else { return Ok(()) };
        let limits = &self.quotas.limits;
        let day = self.quotas.day();
        let account = self.quotas.lock();
        let today = account.get(site).filter(|account| account.day == day).map_or(0, |account| account.bytes_today);
        for (quota, used, limit) in
            [("stored_bytes", stored, limits.stored_bytes), ("bytes_per_day", today, limits.bytes_per_day)]
        {
            if used.saturating_add(blob.size) > limit {
                let reason = format!(
                    "site `{site}` has used {used} of its {limit} bytes (`{quota}`), so {} more are refused; ask the \
                     consortium's operator to raise `[quotas] {quota}` on the coordinators",
                    blob.size
                );
                return Err(refused(quota, Refusal::Conflict { reason }));
            }
        }
        Ok(())
    }

    /// Counts bytes that were uploaded.
    pub fn uploaded(&self, bytes: u64) {
        let Some(site) = &self.site else { return };
        let day = self.quotas.day();
        let mut accounts = self.quotas.lock();
        let account = accounts.entry(site.clone()).or_default();
        if account.day != day {
            (account.day, account.bytes_today) = (day, 0);
        }
        account.bytes_today = account.bytes_today.saturating_add(bytes);
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if let Some(site) = &self.site
            && let Some(account) = self.quotas.lock().get_mut(site)
        {
            account.n_transfers = account.n_transfers.saturating_sub(1);
        }
    }
}

fn site_of(who: &Principal) -> Option<SiteId> {
    match who {
        Principal::Site(site) => Some(site.clone()),
        Principal::Coordinator(_) | Principal::Operator(_) | Principal::Auditor(_) => None,
    }
}

fn refused(quota: &str, refusal: Refusal) -> Refusal {
    metrics::QUOTA_REFUSALS_TOTAL.with_label_values(&[quota]).inc();
    refusal
}

const DAY_S: u64 = 24 * 3_600;
/// When a site with too many transfers may come again: some seconds' worth of chunks.
const TRANSFER_MS: u64 = 2_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn quotas() -> Quotas {
        Quotas::new(Limits { stored_bytes: 100, bytes_per_day: 50, transfers: 2, requests_per_second: 10 })
    }

    fn north() -> Principal {
        "site/north".parse().unwrap()
    }

    fn blob(size: u64) -> BlobRef {
        BlobRef { size, ..BlobRef::of(b"") }
    }

    #[test]
    fn a_site_has_so_many_transfers_at_once_and_others_have_their_own() {
        let quotas = quotas();
        let (first, _second) = (quotas.transfer(&north()).unwrap(), quotas.transfer(&north()).unwrap());
        assert!(matches!(quotas.transfer(&north()), Err(Refusal::Busy { .. })));
        assert!(quotas.transfer(&"site/south".parse().unwrap()).is_ok());
        assert!(quotas.transfer(&"operator/anna".parse().unwrap()).is_ok());
        drop(first);
        assert!(quotas.transfer(&north()).is_ok());
    }

    #[test]
    fn bytes_are_refused_with_the_limit_and_what_to_do() {
        let quotas = quotas();
        let transfer = quotas.transfer(&north()).unwrap();
        transfer.check_upload(blob(50), 50).unwrap();
        let refused = |size, stored| transfer.check_upload(blob(size), stored).unwrap_err().to_string();
        assert!(refused(2, 99).contains("has used 99 of its 100 bytes (`stored_bytes`)"));
        transfer.uploaded(49);
        let refusal = refused(2, 0);
        assert!(
            refusal.contains("used 49 of its 50 bytes (`bytes_per_day`)") && refusal.contains("raise"),
            "{refusal}"
        );
        transfer.check_upload(blob(1), 0).unwrap();
        let operator = quotas.transfer(&"operator/anna".parse().unwrap()).unwrap();
        operator.check_upload(blob(1_000), 1_000).unwrap();
    }

    #[test]
    fn requests_come_at_their_rate_after_a_burst() {
        let quotas = quotas();
        let site: SiteId = "north".parse().unwrap();
        let n_served = |now_ms| (0..100).filter(|_| quotas.request_at(site.clone(), now_ms).is_ok()).count();
        assert_eq!(n_served(0), 20, "a burst");
        assert_eq!(n_served(0), 0);
        assert_eq!(n_served(500), 5);
        assert_eq!(n_served(500_000), 20, "a long silence saves up no more than a burst");
    }
}
