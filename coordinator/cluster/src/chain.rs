//! A digest of all that was ever carried out here, and of what came of it: two coordinators that have carried out as much
//! have the same one, or one of them is wrong. It costs the digest of one command, where a digest of the state would cost
//! the state.

use std::collections::VecDeque;

use archipelago_common::{Digest, codec, limits};
use serde::{Deserialize, Serialize};

use crate::{Body, Cluster, Command, Edition, Outcome};

/// Where the digest stands, and where it stood now and then.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Chain {
    /// Commands that are in it.
    length: u64,
    digest: Digest,
    /// The latest marks, from the oldest: one at every [`EVERY`] commands.
    marks: VecDeque<(u64, Digest)>,
}

impl Chain {
    fn beginning_with(state: Digest) -> Self {
        Self { length: 0, digest: state, marks: VecDeque::from([(0, state)]) }
    }

    fn add(&mut self, command: &[u8], outcome: &[u8], (now_ms, n_bytes): (u64, u64)) {
        let mut all = self.digest.as_bytes().to_vec();
        for part in [command, outcome, &now_ms.to_le_bytes(), &n_bytes.to_le_bytes()] {
            // With its length, so that nothing moves from one part into the next unseen.
            all.extend_from_slice(&(part.len() as u64).to_le_bytes());
            all.extend_from_slice(part);
        }
        self.digest = Digest::of(&all);
        self.length += 1;
        if self.length.is_multiple_of(EVERY) {
            self.marks.push_back((self.length, self.digest));
            if self.marks.len() > KEPT {
                self.marks.pop_front();
            }
        }
    }
}

impl Cluster {
    /// How many commands were carried out at some moments, and the digest of all that came of them; the latest last. None
    /// before the third edition.
    pub fn marks(&self) -> Vec<(u64, Digest)> {
        self.chain.iter().flat_map(|chain| chain.marks.iter().copied()).collect()
    }

    /// The chain begins with all that there is.
    pub(crate) fn begin_chain(&mut self) {
        if self.edition >= Edition::Third && self.chain.is_none() {
            // A state that cannot be encoded has no snapshot either, and is refused long before.
            self.chain = self.digest_of_edition().ok().map(Chain::beginning_with);
        }
    }

    /// A command was carried out. One that was refused changes nothing; where another carries it out, the lengths tell. That
    /// time has passed is in what comes next.
    pub(crate) fn add_to_chain(&mut self, command: &Command, outcome: &Outcome) {
        let about = (self.now_ms, self.n_bytes);
        let Some(chain) = self.chain.as_mut().filter(|_| command.body != Body::Tick) else { return };
        let command = command.to_bytes().unwrap_or_default();
        let outcome = codec::encode("outcome", outcome, limits::FRAME_BYTES).unwrap_or_default();
        chain.add(&command, &outcome, about);
    }
}

/// Commands between two marks.
const EVERY: u64 = 64;
/// Marks that are kept: whoever is not further behind than this can be compared.
const KEPT: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn after(n: u64, but: Option<u64>) -> Cluster {
        let mut cluster = Cluster::founded();
        for i in 0..n {
            let site = format!("site{}", if but == Some(i) { n } else { i }).parse().unwrap();
            let principal = "operator/anna".parse().unwrap();
            let key = std::array::from_fn(|k| (i >> (8 * (k % 8))) as u8);
            cluster.apply(&Command { key, principal, now_ms: 1_000 + i, body: Body::AddSite { site } });
        }
        cluster
    }

    #[test]
    fn marks_are_equal_exactly_where_the_same_came_of_the_same() {
        let (one, other, odd) = (after(150, None), after(200, None), after(150, Some(70)));
        let lengths = |cluster: &Cluster| cluster.marks().iter().map(|(length, _)| *length).collect::<Vec<_>>();
        assert_eq!(lengths(&one), [0, 64, 128]);
        assert_eq!(one.marks()[..3], other.marks()[..3]);
        assert_eq!(one.marks()[1], odd.marks()[1]);
        assert_ne!(one.marks()[2], odd.marks()[2], "one of the commands was another");
        assert!(after(64 * 40, None).marks().len() <= KEPT);
        assert_eq!(Cluster::restore(&one.snapshot().unwrap()).unwrap(), one);
    }

    #[test]
    fn earlier_editions_have_none_and_the_chain_begins_with_what_there_is() {
        let mut cluster = Cluster { edition: Edition::Second, ..Cluster::default() };
        let raise = |cluster: &mut Cluster| {
            let (principal, body) = ("coordinator/1".parse().unwrap(), Body::RaiseEdition { edition: Edition::Third });
            cluster.apply(&Command { key: [1; 16], principal, now_ms: 1, body }).outcome.unwrap();
        };
        assert!(cluster.marks().is_empty());
        raise(&mut cluster);
        let mut other = Cluster { edition: Edition::Second, latest_ms: 7, ..Cluster::default() };
        raise(&mut other);
        assert_ne!(cluster.marks(), other.marks(), "what was there before counts");
    }
}
