//! What those cost us who have not proven who they are: places for handshakes by address, whom we let in before all others, and
//! how many lines are written about them.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, info};

use crate::{Connection, Result};

/// Where handshakes begin. Clones are the same door.
#[derive(Clone)]
pub(crate) struct Door {
    handshakes: Arc<Semaphore>,
    turns: Turns,
    known: Known,
    complaints: Complaints,
}

impl Default for Door {
    fn default() -> Self {
        Self {
            handshakes: Arc::new(Semaphore::new(HANDSHAKES)),
            turns: Turns::default(),
            known: Known::default(),
            complaints: Complaints::default(),
        }
    }
}

impl Door {
    /// Whether so many handshakes are under way that a peer has to show first that it hears us.
    pub(crate) fn is_busy(&self) -> bool {
        self.handshakes.available_permits() < HANDSHAKES - UNPROVEN_HANDSHAKES
    }

    /// A place for one handshake with somebody at `address`, if there is one.
    pub(crate) fn admit(&self, address: IpAddr) -> Option<Admitted> {
        // The last places are for those that have proven who they are before: the other coordinators, and whoever was here.
        let is_last = self.handshakes.available_permits() <= RESERVED_HANDSHAKES;
        if is_last && !self.known.contains(address) {
            return None;
        }
        let turn = Turn::take(&self.turns, address)?;
        let permit = self.handshakes.clone().try_acquire_owned().ok()?;
        Some(Admitted { door: self.clone(), _place: (permit, turn) })
    }
}

/// A place for one handshake.
pub(crate) struct Admitted {
    door: Door,
    _place: (OwnedSemaphorePermit, Turn),
}

impl Admitted {
    /// Waits for the handshake with `remote`, no longer than `limit`; one that fails is only logged.
    pub(crate) async fn complete(
        self,
        remote: SocketAddr,
        limit: Duration,
        handshake: impl Future<Output = Result<Connection>>,
    ) -> Option<Connection> {
        let connection = match tokio::time::timeout(limit, handshake).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                self.door.complaints.note(remote, &error.to_string());
                return None;
            }
            Err(_) => {
                self.door.complaints.note(remote, "it took too long");
                return None;
            }
        };
        self.door.known.note(remote.ip());
        debug!(%remote, way = %connection.way(), peer = %connection.peer(), "connected");
        Some(connection)
    }
}

/// Addresses from which somebody has proven who it is, the latest.
#[derive(Clone, Default)]
struct Known(Arc<Mutex<VecDeque<IpAddr>>>);

impl Known {
    fn contains(&self, address: IpAddr) -> bool {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).contains(&address)
    }

    fn note(&self, address: IpAddr) {
        let mut known = self.0.lock().unwrap_or_else(|e| e.into_inner());
        known.retain(|other| *other != address);
        known.push_back(address);
        if known.len() > KNOWN_ADDRESSES {
            known.pop_front();
        }
    }
}

/// Lines about handshakes that failed: anybody can cause them, so that they are only so many.
#[derive(Clone, Default)]
struct Complaints(Arc<Mutex<Said>>);

#[derive(Default)]
struct Said {
    since: Option<Instant>,
    n_said: u32,
    n_left_out: u64,
}

impl Complaints {
    fn note(&self, remote: SocketAddr, error: &str) {
        if let Some(left_out) = self.may_say(Instant::now()) {
            info!(%remote, error, left_out, "handshake failed");
        }
    }

    /// Whether one more line may be written, and how many were left out before it.
    fn may_say(&self, now: Instant) -> Option<u64> {
        let mut said = self.0.lock().unwrap_or_else(|e| e.into_inner());
        if said.since.is_none_or(|since| now.duration_since(since) >= COMPLAINTS_EVERY) {
            (said.since, said.n_said) = (Some(now), 0);
        }
        if said.n_said >= COMPLAINTS {
            said.n_left_out += 1;
            return None;
        }
        said.n_said += 1;
        Some(std::mem::take(&mut said.n_left_out))
    }
}

/// Handshakes under way by address.
type Turns = Arc<Mutex<BTreeMap<IpAddr, usize>>>;

/// One of the handshakes that an address may have under way.
struct Turn {
    turns: Turns,
    address: IpAddr,
}

impl Turn {
    fn take(turns: &Turns, address: IpAddr) -> Option<Self> {
        let mut all = turns.lock().unwrap_or_else(|e| e.into_inner());
        let n_taken = all.entry(address).or_default();
        if *n_taken >= HANDSHAKES_BY_ADDRESS {
            return None;
        }
        *n_taken += 1;
        Some(Self { turns: turns.clone(), address })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut all = self.turns.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(n_taken) = all.get_mut(&self.address) {
            *n_taken -= 1;
            if *n_taken == 0 {
                all.remove(&self.address);
            }
        }
    }
}

/// Handshakes under way at once; more are refused and come again.
pub(crate) const HANDSHAKES: usize = 256;
/// Handshakes under way beyond which a peer has to show first that it hears us.
const UNPROVEN_HANDSHAKES: usize = 32;
/// Handshakes that only those may begin who were here before.
const RESERVED_HANDSHAKES: usize = 64;
/// Handshakes under way from one address: a hospital's sites may share one, and a hundred workers start at once.
const HANDSHAKES_BY_ADDRESS: usize = 128;
/// Addresses that are remembered as those of somebody who was here.
const KNOWN_ADDRESSES: usize = 1_024;
/// Lines about handshakes that failed, in each [`COMPLAINTS_EVERY`].
const COMPLAINTS: u32 = 10;
const COMPLAINTS_EVERY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn lines_that_strangers_cause_are_only_so_many_and_those_left_out_are_counted() {
        let (complaints, begun) = (Complaints::default(), Instant::now());
        let n_said = (0..100).filter(|_| complaints.may_say(begun).is_some()).count();
        assert_eq!(n_said, COMPLAINTS as usize);
        assert_eq!(complaints.may_say(begun + COMPLAINTS_EVERY), Some(100 - u64::from(COMPLAINTS)));
        assert_eq!(complaints.may_say(begun + COMPLAINTS_EVERY), Some(0));
    }

    #[test]
    fn the_latest_addresses_are_remembered_and_no_more() {
        let known = Known::default();
        let address = |n: u32| IpAddr::from(Ipv4Addr::from(n));
        (0..KNOWN_ADDRESSES as u32).for_each(|n| known.note(address(n)));
        known.note(address(0));
        known.note(address(u32::MAX));
        assert!(known.contains(address(0)) && known.contains(address(u32::MAX)));
        assert!(!known.contains(address(1)), "the one that was not here for longest");
    }
}
