//! Which protocol version two peers speak: the lower of both sides' newest, as long as both still know it.
//!
//! A session's version decides which message variants may be sent. Encoding is versioned on its own, by the first byte
//! of every message ([`archipelago_common::codec`]).

use crate::error::{Error, Result};

/// The newest version that this build speaks. Version 2 brought members, health, quality gates and collection of blobs;
/// version 3 keys of further axes and of parts, tasks that leave some of their training to the model, and answers in pages;
/// version 4 tasks for annotations; version 5 the question what time it is; version 6 tasks of so many steps; version 7 invitations and
/// signatures of publishers; version 8 renewals over the session, and how everybody stands; version 9 people with some of an operator's roles, and what two persons do
/// together, acts on record, anchors of logs, and erasures; version 10 the question which sites are heard.
pub const NEWEST: u16 = 10;
/// The oldest version that this build speaks.
pub const OLDEST: u16 = 1;

/// The version to speak with a peer whose newest is `theirs`.
///
/// # Errors  [`Error::ProtocolTooOld`]
pub fn negotiate(theirs: u16) -> Result<u16> {
    if theirs < OLDEST {
        return Err(Error::ProtocolTooOld { found: theirs, oldest: OLDEST });
    }
    Ok(theirs.min(NEWEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_version_is_spoken_and_a_lost_one_refused() {
        assert_eq!(negotiate(NEWEST).unwrap(), NEWEST);
        assert_eq!(negotiate(NEWEST + 7).unwrap(), NEWEST);
        assert_eq!(negotiate(OLDEST).unwrap(), OLDEST);
        assert!(matches!(negotiate(OLDEST - 1), Err(Error::ProtocolTooOld { found: 0, .. })));
    }
}
