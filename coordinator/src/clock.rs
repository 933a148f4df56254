//! Time as this node stamps commands with it. Its own clock says little: what counts is what a majority's clocks agree on when
//! it comes to lead, and again every few seconds; in between it counts by itself, and no jump of its clock is seen.

use std::{
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use archipelago_cluster::mutation::{self, Rule};
use tokio::sync::Notify;

/// This node's clock, Unix milliseconds.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// What a leader stamps commands with. A value without a clock: whoever asks says what its clocks show.
#[derive(Clone, Copy, Default, Debug)]
pub struct Stamps {
    /// Of which term the rest is.
    term: u64,
    base: Option<Base>,
}

/// From where time is counted.
#[derive(Clone, Copy, Debug)]
enum Base {
    /// It was this time when the node had counted so far, both in milliseconds.
    Agreed { at_ms: u64, counted_ms: u64 },
    /// The clock of the node itself, as in the first edition.
    OwnClock,
}

impl Stamps {
    /// The node leads in `term`, and the state says what time it is. Time goes on from there; in a new consortium there is
    /// none until clocks have agreed.
    pub fn lead(&mut self, term: u64, state_ms: u64, counted_ms: u64) {
        if self.term != term {
            let base = (state_ms > 0).then_some(Base::Agreed { at_ms: state_ms, counted_ms });
            *self = Self { term, base };
        }
    }

    /// A majority's clocks agree that it is `at_ms`.
    pub fn agree(&mut self, term: u64, at_ms: u64, counted_ms: u64) {
        *self = Self { term, base: Some(Base::Agreed { at_ms, counted_ms }) };
    }

    /// The members do not all know how to agree.
    pub fn trust_own_clock(&mut self, term: u64) {
        *self = Self { term, base: Some(Base::OwnClock) };
    }

    /// What time it is, where this is known.
    pub fn now_ms(&self, term: u64, counted_ms: u64, clock_ms: u64) -> Option<u64> {
        if mutation::is_broken(Rule::SmallSteps) {
            return Some(clock_ms);
        }
        match self.base.filter(|_| self.term == term)? {
            Base::Agreed { at_ms, counted_ms: then_ms } => Some(at_ms + counted_ms.saturating_sub(then_ms)),
            Base::OwnClock => Some(clock_ms),
        }
    }
}

/// The stamps of a live node, with its clocks.
#[derive(Debug)]
pub struct Clock {
    started: Instant,
    stamps: Mutex<Stamps>,
    changed: Notify,
}

impl Default for Clock {
    fn default() -> Self {
        Self { started: Instant::now(), stamps: Mutex::default(), changed: Notify::new() }
    }
}

impl Clock {
    /// What time it is, to a leader in `term`, where this is known.
    pub fn now_ms(&self, term: u64) -> Option<u64> {
        self.stamps().now_ms(term, self.counted_ms(), now_ms())
    }

    /// Milliseconds since this value was made.
    pub fn counted_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// As [`Self::now_ms`]; a leader that is new waits until it knows, `patience` at most.
    pub async fn known_ms(&self, term: u64, patience: Duration) -> Option<u64> {
        let known = async {
            loop {
                let changed = self.changed.notified();
                if let Some(now_ms) = self.now_ms(term) {
                    return now_ms;
                }
                changed.await;
            }
        };
        tokio::time::timeout(patience, known).await.ok()
    }

    /// Changes the stamps.
    pub fn change(&self, change: impl FnOnce(&mut Stamps, u64)) {
        change(&mut self.stamps(), self.counted_ms());
        self.changed.notify_waiters();
    }

    fn stamps(&self) -> MutexGuard<'_, Stamps> {
        self.stamps.lock().unwrap_or_else(|e| e.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_from_the_state_and_no_clock_moves_it() {
        let mut stamps = Stamps::default();
        assert_eq!(stamps.now_ms(1, 0, 99), None);
        stamps.lead(1, 0, 500);
        assert_eq!(stamps.now_ms(1, 600, 99), None, "in a new consortium no time was ever agreed");
        stamps.lead(2, 1_000, 500);
        assert_eq!(stamps.now_ms(2, 700, u64::MAX), Some(1_200));
        assert_eq!(stamps.now_ms(1, 700, 99), None, "of another term");
        stamps.agree(2, 5_000, 800);
        stamps.lead(2, 1_000, 900);
        assert_eq!(stamps.now_ms(2, 900, 0), Some(5_100));
        stamps.trust_own_clock(3);
        assert_eq!(stamps.now_ms(3, 900, 77), Some(77));
    }
}
