//! What one identity may take of a node: requests a second and what their answers cost, transfers and unfinished frames at
//! once; and, of a site, bytes stored and bytes uploaded in a day.
//!
//! A site that reaches a limit in bytes is refused with the limit and its use of it; one that asks too often is told to
//! come again. Coordinators have no quota. What is stored and what is uploaded in a day is counted in the replicated state:
//! the leader has bytes granted before it takes them, in lots, so that small uploads need no entry each.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Instant,
};

use archipelago_common::{BlobRef, Principal, SiteId, limits};
use archipelago_protocol::message::Refusal;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::ops::metrics;

/// The limits for each identity; `[quotas]` in a node's configuration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of the blobs of a site's accepted submissions.
    pub stored_bytes: u64,
    /// Bytes that a site may upload in a day, at all coordinators together.
    pub bytes_per_day: u64,
    /// Uploads and downloads at once.
    pub transfers: u32,
    /// Requests a second; twice as many in a burst. A long answer counts as several.
    pub requests_per_second: u32,
}

impl Default for Limits {
    /// Room for embeddings of some hundred million cells, and for a worker that retries.
    fn default() -> Self {
        Self { stored_bytes: 256 << 30, bytes_per_day: 256 << 30, transfers: 16, requests_per_second: 1_000 }
    }
}

/// The accounts of all identities on this node. Clones are the same.
#[derive(Clone)]
pub struct Quotas {
    limits: Arc<Limits>,
    begun: Instant,
    accounts: Arc<Mutex<BTreeMap<Principal, Account>>>,
}

struct Account {
    /// Bytes that were granted and not taken yet, and all that ever were, while this node runs.
    credit: u64,
    granted: u64,
    /// The day, counted from the node's start, of which `bytes_today` tells; before the third edition.
    day: u64,
    bytes_today: u64,
    n_transfers: u32,
    /// Requests that may still come now, in thousandths, and when that was counted. Below zero after a long answer.
    spare_milli: i64,
    counted_ms: Option<u64>,
    /// KiB of frames that are on their way in or being answered.
    frames: Arc<Semaphore>,
}

impl Default for Account {
    fn default() -> Self {
        Self {
            credit: 0,
            granted: 0,
            day: 0,
            bytes_today: 0,
            n_transfers: 0,
            spare_milli: 0,
            counted_ms: None,
            frames: Arc::new(Semaphore::new(FRAMES_KIB)),
        }
    }
}

/// A transfer that counts until it is dropped.
pub struct Transfer {
    quotas: Quotas,
    who: Option<Principal>,
    /// Bytes that are on their way, and were counted.
    taken: u64,
}

impl Quotas {
    /// Accounts that begin empty.
    pub fn new(limits: Limits) -> Self {
        Self { limits: Arc::new(limits), begun: Instant::now(), accounts: Arc::default() }
    }

    /// The limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Begins a transfer.
    ///
    /// # Errors  [`Refusal::Busy`]
    pub fn transfer(&self, who: &Principal) -> Result<Transfer, Refusal> {
        let who = with_quota(who);
        if let Some(who) = &who {
            let mut accounts = self.lock();
            let account = accounts.entry(who.clone()).or_default();
            if account.n_transfers >= self.limits.transfers {
                return Err(refused("transfers", Refusal::Busy { retry_after_ms: TRANSFER_MS }));
            }
            account.n_transfers += 1;
        }
        Ok(Transfer { quotas: self.clone(), who, taken: 0 })
    }

    /// Counts a request.
    ///
    /// # Errors  [`Refusal::Busy`]
    pub fn request(&self, who: &Principal) -> Result<(), Refusal> {
        let Some(who) = with_quota(who) else { return Ok(()) };
        self.request_at(who, self.now_ms())
    }

    /// Counts what an answer of so many bytes cost beyond its request: whoever asks for much is slowed, whatever it asks.
    pub fn answered(&self, who: &Principal, n_bytes: usize) {
        let cost = (n_bytes / BYTES_PER_REQUEST) as i64;
        let Some(who) = with_quota(who).filter(|_| cost > 0) else { return };
        let mut accounts = self.lock();
        let account = accounts.entry(who).or_default();
        account.spare_milli = account.spare_milli.saturating_sub(1_000 * cost);
    }

    /// The room that an identity's unfinished frames share, in KiB; none for a coordinator.
    pub fn frames(&self, who: &Principal) -> Option<Arc<Semaphore>> {
        with_quota(who).map(|who| self.lock().entry(who).or_default().frames.clone())
    }

    fn request_at(&self, who: Principal, now_ms: u64) -> Result<(), Refusal> {
        let rate = i64::from(self.limits.requests_per_second.max(1));
        let most = 2 * rate * 1_000;
        let mut accounts = self.lock();
        let account = accounts.entry(who).or_default();
        let earned = match account.counted_ms {
            None => most,
            Some(counted_ms) => i64::try_from(now_ms.saturating_sub(counted_ms)).unwrap_or(most).saturating_mul(rate),
        };
        account.spare_milli = account.spare_milli.saturating_add(earned).min(most);
        account.counted_ms = Some(now_ms);
        if account.spare_milli < 1_000 {
            let retry_after_ms = ((1_000 - account.spare_milli) as u64).div_ceil(rate as u64).clamp(1, LONGEST_WAIT_MS);
            return Err(refused("requests", Refusal::Busy { retry_after_ms }));
        }
        account.spare_milli -= 1_000;
        Ok(())
    }

    fn now_ms(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Principal, Account>> {
        self.accounts.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Transfer {
    /// The site whose bytes are counted, if it is a site's transfer.
    pub fn site(&self) -> Option<&SiteId> {
        match &self.who {
            Some(Principal::Site(site)) => Some(site),
            _ => None,
        }
    }

    /// Refuses an upload that would exceed what the site may store. `stored` is what the state says it has stored.
    ///
    /// # Errors  [`Refusal::Conflict`], with the limit and its use
    pub fn check_stored(&self, blob: BlobRef, stored: u64) -> Result<(), Refusal> {
        self.check("stored_bytes", blob.size, stored, self.quotas.limits.stored_bytes)
    }

    /// What is to be granted before so many bytes are taken: at least, and as a lot. None if enough was granted. Lots double:
    /// a node that dies takes no more of a site's day with it than the site has used there, or a chunk.
    pub fn lacking(&self, bytes: u64) -> Option<(u64, u64)> {
        let (credit, granted) = self.account(|account| (account.credit, account.granted))?;
        let needed = bytes.checked_sub(credit).filter(|needed| *needed > 0)?;
        let lot = granted.max(limits::CHUNK_BYTES).min(self.quotas.limits.bytes_per_day / LOTS);
        Some((needed, needed.max(lot)))
    }

    /// So many bytes were granted.
    pub fn granted(&self, bytes: u64) {
        self.account(|account| {
            account.credit = account.credit.saturating_add(bytes);
            account.granted = account.granted.saturating_add(bytes);
        });
    }

    /// So many bytes are to come, of those that were granted. What does not come in the end is given back.
    pub fn take(&mut self, bytes: u64) {
        self.account(|account| account.credit = account.credit.saturating_sub(bytes));
        self.taken += bytes;
    }

    /// Counts bytes on this node alone, as before the third edition.
    ///
    /// # Errors  [`Refusal::Conflict`], with the limit and its use
    pub fn take_here(&self, bytes: u64) -> Result<(), Refusal> {
        let day = self.quotas.now_ms() / DAY_MS;
        let today = self.account(|account| if account.day == day { account.bytes_today } else { 0 });
        let today = today.unwrap_or_default();
        self.check("bytes_per_day", bytes, today, self.quotas.limits.bytes_per_day)?;
        self.account(|account| (account.day, account.bytes_today) = (day, today.saturating_add(bytes)));
        Ok(())
    }

    /// Bytes have come.
    pub fn uploaded(&mut self, bytes: u64) {
        self.taken = self.taken.saturating_sub(bytes);
    }

    fn check(&self, quota: &str, more: u64, used: u64, limit: u64) -> Result<(), Refusal> {
        let Some(site) = self.site() else { return Ok(()) };
        if used.saturating_add(more) <= limit {
            return Ok(());
        }
        let reason = format!(
            "site `{site}` has used {used} of its {limit} bytes (`{quota}`), so {more} more are refused; ask the \
             consortium's operator to raise `[quotas] {quota}` on the coordinators"
        );
        Err(refused(quota, Refusal::Conflict { reason }))
    }

    fn account<T>(&self, look: impl FnOnce(&mut Account) -> T) -> Option<T> {
        let who = self.who.as_ref()?;
        self.quotas.lock().get_mut(who).map(look)
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let taken = self.taken;
        self.account(|account| {
            account.n_transfers = account.n_transfers.saturating_sub(1);
            account.credit = account.credit.saturating_add(taken);
        });
    }
}

fn with_quota(who: &Principal) -> Option<Principal> {
    match who {
        Principal::Coordinator(_) => None,
        Principal::Site(_)
        | Principal::Operator(_)
        | Principal::Auditor(_)
        | Principal::Officer(..)
        | Principal::Invited(_) => Some(who.clone()),
    }
}

/// What limits are called where one was met.
pub(crate) const NAMES: [&str; 4] = ["bytes_per_day", "requests", "stored_bytes", "transfers"];

/// Notes that a limit was met.
pub(crate) fn refused(quota: &str, refusal: Refusal) -> Refusal {
    metrics::QUOTA_REFUSALS_TOTAL.with_label_values(&[quota]).inc();
    refusal
}

const DAY_MS: u64 = 24 * 3_600_000;
/// The largest lot is this part of a day.
const LOTS: u64 = 256;
/// Bytes of an answer that count as one more request.
const BYTES_PER_REQUEST: usize = 16 << 10;
/// KiB of one identity's frames on their way in or being answered: eight of the largest.
const FRAMES_KIB: usize = 32 << 10;
/// When a site with too many transfers may come again: some seconds' worth of chunks.
const TRANSFER_MS: u64 = 2_000;
/// Longest pause that is asked for.
const LONGEST_WAIT_MS: u64 = 10_000;

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
    fn everybody_has_so_many_transfers_at_once_and_others_have_their_own() {
        let quotas = quotas();
        let (first, _second) = (quotas.transfer(&north()).unwrap(), quotas.transfer(&north()).unwrap());
        assert!(matches!(quotas.transfer(&north()), Err(Refusal::Busy { .. })));
        assert!(quotas.transfer(&"site/south".parse().unwrap()).is_ok());
        let many = |who: &str| (0..3).map(|_| quotas.transfer(&who.parse().unwrap())).collect::<Result<Vec<_>, _>>();
        assert!(many("operator/anna").is_err() && many("coordinator/1").is_ok());
        drop(first);
        assert!(quotas.transfer(&north()).is_ok());
    }

    #[test]
    fn bytes_are_refused_with_the_limit_and_what_to_do() {
        let quotas = quotas();
        let transfer = quotas.transfer(&north()).unwrap();
        transfer.check_stored(blob(50), 50).unwrap();
        let refused = transfer.check_stored(blob(2), 99).unwrap_err().to_string();
        assert!(refused.contains("has used 99 of its 100 bytes (`stored_bytes`)"));
        transfer.take_here(49).unwrap();
        let refusal = transfer.take_here(2).unwrap_err().to_string();
        assert!(
            refusal.contains("used 49 of its 50 bytes (`bytes_per_day`)") && refusal.contains("raise"),
            "{refusal}"
        );
        transfer.take_here(1).unwrap();
        let operator = quotas.transfer(&"operator/anna".parse().unwrap()).unwrap();
        operator.check_stored(blob(1_000), 1_000).unwrap();
        operator.take_here(1_000).unwrap();
    }

    #[test]
    fn what_was_granted_and_did_not_come_is_there_for_the_next() {
        let quotas = Quotas::new(Limits { bytes_per_day: 256 * 1_000, ..Limits::default() });
        let mut first = quotas.transfer(&north()).unwrap();
        assert_eq!(first.lacking(10), Some((10, 1_000)), "a lot, so that the next small ones need none");
        assert_eq!(first.lacking(5_000), Some((5_000, 5_000)));
        first.granted(1_000);
        first.take(900);
        first.uploaded(300);
        assert_eq!(first.lacking(200), Some((100, 1_000)));
        drop(first);
        assert_eq!(quotas.transfer(&north()).unwrap().lacking(700), None);
        assert_eq!(quotas.transfer(&north()).unwrap().lacking(701), Some((1, 1_000)));
    }

    #[test]
    fn a_node_that_dies_takes_no_more_with_it_than_was_used_there() {
        let mut transfer = Quotas::new(Limits::default()).transfer(&north()).unwrap();
        let (mut granted, mut n_grants) = (0, 0);
        for n_chunks in 1..=10_000 {
            if let Some((_, lot)) = transfer.lacking(limits::CHUNK_BYTES) {
                transfer.granted(lot);
                granted += lot;
                n_grants += 1;
            }
            transfer.take(limits::CHUNK_BYTES);
            transfer.uploaded(limits::CHUNK_BYTES);
            let used = n_chunks * limits::CHUNK_BYTES;
            assert!(granted <= 2 * used, "{granted} granted for {used}");
        }
        assert!(n_grants < 30, "{n_grants} commands for ten thousand chunks");
    }

    #[test]
    fn requests_come_at_their_rate_after_a_burst_and_long_answers_count_as_several() {
        let quotas = quotas();
        let n_served = |now_ms| (0..100).filter(|_| quotas.request_at(north(), now_ms).is_ok()).count();
        assert_eq!(n_served(0), 20, "a burst");
        assert_eq!(n_served(0), 0);
        assert_eq!(n_served(500), 5);
        quotas.answered(&north(), 10 * BYTES_PER_REQUEST + 1);
        assert_eq!(n_served(1_000), 0, "what it had was spent on the answer");
        assert_eq!(n_served(2_500), 10);
        assert_eq!(n_served(500_000), 20, "a long silence saves up no more than a burst");
        assert!(quotas.request(&"coordinator/1".parse().unwrap()).is_ok());
    }
}
