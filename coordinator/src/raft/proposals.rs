//! Proposals under way, so that each is answered once and by the right entry.
//!
//! An entry carries the id of its proposal. An index would not do: after a change of leader another node's entry may
//! stand at the index where ours was appended, and the wrong client would hear that its command was done.

use std::collections::BTreeMap;

/// The name of one proposal in all of a cluster's history: node, run of that node, number within the run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ProposalId {
    node: u64,
    start: u64,
    number: u64,
}

impl ProposalId {
    /// The bytes that an entry carries.
    pub(crate) fn to_bytes(self) -> Vec<u8> {
        [self.node, self.start, self.number].iter().flat_map(|n| n.to_be_bytes()).collect()
    }

    /// Reads what [`Self::to_bytes`] wrote; none for entries that nobody waits for.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (numbers, []) = bytes.as_chunks::<8>() else { return None };
        let [node, start, number] = numbers.try_into().ok()?;
        Some(Self {
            node: u64::from_be_bytes(node),
            start: u64::from_be_bytes(start),
            number: u64::from_be_bytes(number),
        })
    }
}

/// The proposals of this run that are not answered yet, with the term in which each was made.
pub(crate) struct Proposals {
    next: ProposalId,
    pending: BTreeMap<ProposalId, u64>,
}

impl Proposals {
    pub(crate) fn new(node: u64, start: u64) -> Self {
        Self { next: ProposalId { node, start, number: 0 }, pending: BTreeMap::new() }
    }

    /// The id that the next proposal will carry.
    pub(crate) fn next_id(&self) -> ProposalId {
        self.next
    }

    /// Notes that the proposal with the id [`Self::next_id`] was made in `term`.
    pub(crate) fn made(&mut self, term: u64) {
        self.pending.insert(self.next, term);
        self.next.number += 1;
    }

    /// Whether an applied entry is one that somebody still waits for; it is not waited for any longer.
    pub(crate) fn applied(&mut self, context: &[u8]) -> Option<ProposalId> {
        let id = ProposalId::from_bytes(context)?;
        self.pending.remove(&id).map(|_| id)
    }

    /// Gives up what was not proposed by the leader of `term`, who this node is; none if it is no leader. Whether
    /// the commands will be carried out is not known then: the callers ask again under the same request key.
    pub(crate) fn give_up_all_but(&mut self, term: Option<u64>) -> Vec<ProposalId> {
        let given_up: Vec<_> = self.pending.iter().filter(|(_, t)| Some(**t) != term).map(|(id, _)| *id).collect();
        for id in &given_up {
            self.pending.remove(id);
        }
        given_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_round_trips_and_other_bytes_are_nobodys() {
        let id = ProposalId { node: 1, start: 2, number: 3 };
        assert_eq!(ProposalId::from_bytes(&id.to_bytes()), Some(id));
        assert_eq!(ProposalId::from_bytes(&[]), None);
        assert_eq!(ProposalId::from_bytes(&[0; 23]), None);
    }

    #[test]
    fn an_entry_of_an_earlier_run_answers_nobody() {
        let (mut earlier, mut now) = (Proposals::new(1, 1), Proposals::new(1, 2));
        let context = earlier.next_id().to_bytes();
        earlier.made(5);
        now.made(6);
        assert_eq!(now.applied(&context), None);
        assert!(earlier.applied(&context).is_some());
        assert_eq!(earlier.applied(&context), None, "answered once");
    }

    #[test]
    fn a_new_term_gives_up_what_the_old_one_left() {
        let mut proposals = Proposals::new(1, 1);
        proposals.made(5);
        proposals.made(6);
        assert_eq!(proposals.give_up_all_but(Some(6)).len(), 1);
        assert_eq!(proposals.give_up_all_but(None).len(), 1);
    }
}
