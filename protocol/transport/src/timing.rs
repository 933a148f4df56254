//! How long peers wait for each other.

use std::time::Duration;

/// How soon a silent peer is given up, and how it is kept from being silent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// An idle side says something this often: often enough for three tries within `idle_timeout`, and for the NAT
    /// bindings of hospital firewalls, which live for 30 s or more.
    pub keep_alive: Duration,
    /// A peer that has said nothing for this long is gone. A dead worker must be noticed within 15 s,
    /// and the last it said may have been on its way for a while.
    pub idle_timeout: Duration,
    /// How long a handshake may take, from the first packet to the peer's word that it lets this side in.
    pub handshake_timeout: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            keep_alive: Duration::from_secs(4),
            idle_timeout: Duration::from_secs(12),
            handshake_timeout: Duration::from_secs(5),
        }
    }
}
