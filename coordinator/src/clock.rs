//! This node's clock: the time of day that the leader stamps commands with.

use std::time::{SystemTime, UNIX_EPOCH};

/// This node's clock, Unix milliseconds.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
