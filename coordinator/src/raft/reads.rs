//! Linearizable reads under way: ReadIndex requests in batches, asked again when no answer comes.
//!
//! A leader that has not yet committed an entry of its own term drops ReadIndex requests without a word, and a
//! heartbeat that carries one may be lost; so every request is repeated until it is answered or too old.

/// The name of one read within this run of a node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ReadId(u64);

/// All reads that wait.
#[derive(Default)]
pub(crate) struct Reads {
    next_read: u64,
    next_batch: u64,
    waiting: Vec<Read>,
}

struct Read {
    id: ReadId,
    born: u64,
    stage: Stage,
}

#[derive(Clone, Copy)]
enum Stage {
    /// To be asked for in the next batch.
    Queued,
    /// Raft was asked, first in this batch and last at this tick. An answer to any of the batches since will do.
    Asked { first_batch: u64, at: u64 },
    /// May be answered once this index is applied.
    Confirmed { index: u64 },
}

impl Reads {
    /// Adds a read at tick `now`; none if too many wait.
    pub(crate) fn add(&mut self, now: u64) -> Option<ReadId> {
        if self.waiting.len() >= WAITING_READS {
            return None;
        }
        let id = ReadId(self.next_read);
        self.next_read += 1;
        self.waiting.push(Read { id, born: now, stage: Stage::Queued });
        Some(id)
    }

    /// The context of the ReadIndex request to make now, for all queued reads and those asked for too long ago.
    pub(crate) fn poll_request(&mut self, now: u64) -> Option<Vec<u8>> {
        let batch = self.next_batch;
        let mut asked = false;
        for read in &mut self.waiting {
            let first_batch = match read.stage {
                Stage::Queued => batch,
                Stage::Asked { first_batch, at } if now >= at + RETRY_TICKS => first_batch,
                Stage::Asked { .. } | Stage::Confirmed { .. } => continue,
            };
            read.stage = Stage::Asked { first_batch, at: now };
            asked = true;
        }
        asked.then(|| {
            self.next_batch += 1;
            batch.to_be_bytes().to_vec()
        })
    }

    /// Notes Raft's answer to the request with this context.
    pub(crate) fn confirm(&mut self, context: &[u8], index: u64) {
        let Ok(bytes) = <[u8; 8]>::try_from(context) else { return };
        let confirmed = u64::from_be_bytes(bytes);
        for read in &mut self.waiting {
            if matches!(read.stage, Stage::Asked { first_batch, .. } if first_batch <= confirmed) {
                read.stage = Stage::Confirmed { index };
            }
        }
    }

    /// Takes out the reads that the state at `applied` answers.
    pub(crate) fn take_ready(&mut self, applied: u64) -> Vec<ReadId> {
        self.take(|read| matches!(read.stage, Stage::Confirmed { index } if index <= applied))
    }

    /// Takes out the reads that have waited for too long.
    pub(crate) fn take_expired(&mut self, now: u64) -> Vec<ReadId> {
        self.take(|read| now >= read.born + TIMEOUT_TICKS)
    }

    /// Whether [`Self::take_expired`] would take out any.
    pub(crate) fn has_expired(&self, now: u64) -> bool {
        self.waiting.iter().any(|read| now >= read.born + TIMEOUT_TICKS)
    }

    /// Takes out all reads: this node is no leader.
    pub(crate) fn take_all(&mut self) -> Vec<ReadId> {
        self.take(|_| true)
    }

    fn take(&mut self, is_taken: impl Fn(&Read) -> bool) -> Vec<ReadId> {
        let taken = self.waiting.iter().filter(|read| is_taken(read)).map(|read| read.id).collect();
        self.waiting.retain(|read| !is_taken(read));
        taken
    }
}

/// A round trip to a quorum takes one or two ticks.
const RETRY_TICKS: u64 = 4;
/// Long enough for an election, after which a read that was dropped without a word can still be answered.
const TIMEOUT_TICKS: u64 = 60;
/// More reads than sites that ask at once.
const WAITING_READS: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_of_one_moment_share_a_request_and_wait_for_its_index() {
        let mut reads = Reads::default();
        let (a, b) = (reads.add(0).unwrap(), reads.add(0).unwrap());
        let context = reads.poll_request(0).unwrap();
        assert_eq!(reads.poll_request(0), None);
        reads.confirm(&context, 7);
        assert_eq!(reads.take_ready(6), []);
        assert_eq!(reads.take_ready(7), [a, b]);
        assert_eq!(reads.take_ready(7), []);
    }

    #[test]
    fn a_request_without_an_answer_is_repeated_and_then_given_up() {
        let mut reads = Reads::default();
        let id = reads.add(0).unwrap();
        let first = reads.poll_request(0).unwrap();
        assert_ne!(reads.poll_request(RETRY_TICKS).unwrap(), first);
        assert_eq!(reads.take_expired(TIMEOUT_TICKS - 1), []);
        assert_eq!(reads.take_expired(TIMEOUT_TICKS), [id]);
    }

    #[test]
    fn the_answer_to_an_older_request_does_not_answer_a_later_read() {
        let mut reads = Reads::default();
        let early = reads.add(0).unwrap();
        let first = reads.poll_request(0).unwrap();
        let late = reads.add(1).unwrap();
        let second = reads.poll_request(RETRY_TICKS).unwrap();
        reads.confirm(&first, 1);
        assert_eq!(reads.take_ready(1), [early], "a slow answer is still an answer");
        reads.confirm(&second, 1);
        assert_eq!(reads.take_ready(1), [late]);
    }
}
