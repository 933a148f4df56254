//! What an interrupted transfer sends again, from a site's own steps and the records on the receivers' disks.

use archipelago_common::{BlobRef, limits};
use archipelago_protocol::ChunkRecord;

use crate::event::{Event, Step, Transfer};

/// One transfer that was interrupted and went on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resumed {
    /// Bytes that were recorded as arrived and were sent again.
    pub arrived: u64,
    /// Bytes that had been handed to the transport and were handed to it again.
    pub handed: u64,
}

/// Bytes that a record file of this size says have arrived.
pub fn recorded_bytes(blob: BlobRef, record_size: u64) -> u64 {
    let n_chunks = record_size.saturating_sub(ChunkRecord::size(0)) / (ChunkRecord::size(1) - ChunkRecord::size(0));
    (n_chunks * limits::CHUNK_BYTES).min(blob.size)
}

/// The blob that a site was moving at a moment.
pub fn moving_at(steps: &[Event], at_us: u64) -> Option<Transfer> {
    match steps.iter().rev().find(|event| event.at_us <= at_us)?.step {
        Step::Uploading(transfer) | Step::Downloading(transfer) => Some(transfer),
        _ => None,
    }
}

/// How the transfer under way at `at_us` went on, if it did; `recorded` bytes of it had arrived then.
pub fn resumed(steps: &[Event], at_us: u64, recorded: u64) -> Option<Resumed> {
    let blob = moving_at(steps, at_us)?.blob;
    let (mut high, mut is_new_process) = (0, false);
    for event in steps {
        match event.step {
            Step::Ready if event.at_us > at_us => is_new_process = true,
            Step::Uploading(now) | Step::Downloading(now) if now.blob == blob => {
                if event.at_us > at_us && (is_new_process || now.done <= high) {
                    let handed = (high + limits::CHUNK_BYTES).min(blob.size).saturating_sub(now.done);
                    return Some(Resumed { arrived: recorded.saturating_sub(now.done), handed });
                }
                high = high.max(now.done);
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use archipelago_common::TaskId;

    use super::*;

    fn steps(chunks: &[(u64, u64)]) -> Vec<Event> {
        let blob = BlobRef { size: 10 * limits::CHUNK_BYTES, ..BlobRef::of(b"x") };
        let step = |done| Step::Uploading(Transfer { task: TaskId(1), blob, done: done * limits::CHUNK_BYTES });
        chunks.iter().map(|&(at_us, done)| Event { at_us, step: step(done) }).collect()
    }

    #[test]
    fn a_transfer_that_goes_on_elsewhere_sends_again_what_had_arrived() {
        let steps = steps(&[(1, 0), (2, 1), (3, 2), (5, 3), (9, 1), (10, 2)]);
        let resumed = resumed(&steps, 4, 2 * limits::CHUNK_BYTES).unwrap();
        assert_eq!(resumed, Resumed { arrived: limits::CHUNK_BYTES, handed: 3 * limits::CHUNK_BYTES });
    }

    #[test]
    fn a_transfer_that_nothing_interrupted_is_no_sample() {
        assert_eq!(resumed(&steps(&[(1, 0), (2, 1), (5, 2), (6, 3)]), 3, 0), None);
    }

    #[test]
    fn a_new_process_that_goes_on_where_the_record_ends_sends_nothing_again() {
        let mut steps = steps(&[(1, 0), (2, 1), (3, 2)]);
        steps.push(Event { at_us: 6, step: Step::Ready });
        steps.extend(self::steps(&[(7, 2)]));
        assert_eq!(resumed(&steps, 4, 2 * limits::CHUNK_BYTES).unwrap().arrived, 0);
    }

    #[test]
    fn a_record_tells_whole_chunks() {
        let blob = BlobRef { size: 5 * limits::CHUNK_BYTES / 2, ..BlobRef::of(b"x") };
        assert_eq!(recorded_bytes(blob, ChunkRecord::size(2)), 2 * limits::CHUNK_BYTES);
        assert_eq!(recorded_bytes(blob, ChunkRecord::size(3)), blob.size);
        assert_eq!(recorded_bytes(blob, 3), 0);
    }
}
