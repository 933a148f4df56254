//! What was done in a consortium, as its coordinators record it: every act holds the hash of the one before, so the record can
//! be verified wherever it is taken.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{
    blob::BlobRef,
    condition::ConditionKey,
    enrolment::Fingerprint,
    error::{Error, Result},
    fs,
    hash::Digest,
    id::{Name, TaskId},
};

/// One act, at its place in the record.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Act {
    /// Its place, from 1.
    pub seq: u64,
    /// When, by the coordinators' clock, Unix milliseconds.
    pub at_ms: u64,
    /// Role and name of whoever did it.
    pub who: String,
    /// The key that the coordinators know this name by at the time.
    pub key: Option<Fingerprint>,
    /// What was done, in one word: `publish-task`.
    pub what: String,
    /// What it was done to.
    pub about: String,
    /// What came of it.
    pub outcome: String,
    /// Digest of all that was said, as the replicated log holds it.
    pub command: Digest,
    /// What a site's own log holds, where it says so.
    pub anchor: Option<Anchor>,
    /// The hash of the act before; that of no bytes for the first.
    pub previous: Digest,
}

impl Act {
    /// Hash of the act: BLAKE3 of its JSON, without spaces and in the order of the fields.
    pub fn hash(&self) -> Digest {
        Digest::of(&serde_json::to_vec(self).unwrap_or_default())
    }
}

/// Hashes of records of a site's own log, which is chained as this one is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anchor {
    /// What they follow: so many records, and the hash of the last of them.
    pub after: Anchored,
    /// The hashes of the records after that, in their order.
    pub hashes: Vec<Digest>,
    /// Whether that is what was anchored before. Otherwise the site's log was cut, changed or begun anew.
    pub follows: bool,
}

impl Anchor {
    /// What is anchored by it.
    pub fn end(&self) -> Anchored {
        let n_records = self.after.n_records.saturating_add(self.hashes.len() as u64);
        Anchored { n_records, head: self.hashes.last().copied().unwrap_or(self.after.head) }
    }
}

/// How long a site's log is, and where its chain stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anchored {
    /// Records.
    pub n_records: u64,
    /// Hash of the last; that of no bytes if there is none.
    pub head: Digest,
}

impl Default for Anchored {
    fn default() -> Self {
        Self { n_records: 0, head: Digest::of(b"") }
    }
}

/// The receipt of an erasure: what of a condition was deleted on every coordinator. Digests stay, bytes do not.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Erasure {
    /// Which erasure it was, from 1; of several of one condition the last.
    pub seq: u64,
    /// The reference.
    pub reference: Name,
    /// The condition.
    pub key: ConditionKey,
    /// What was deleted, unless something else names it.
    pub blobs: Vec<BlobRef>,
    /// Submissions for these tasks held it.
    pub tasks: Vec<TaskId>,
    /// Changes of the reference that are covered: it may come again in a later one.
    pub n_changes: u64,
    /// Role and name of whoever asked for it.
    pub by: String,
    /// When, by the coordinators' clock, Unix milliseconds.
    pub at_ms: u64,
}

/// Follows a record from act to act.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Follower {
    /// The last act and its hash; none before the first.
    last: Option<(u64, Digest)>,
}

impl Follower {
    /// Takes the next act. Where a record begins is not asked: earlier acts may be kept elsewhere.
    ///
    /// # Errors  [`Error::Decode`] naming the act that does not follow
    pub fn follow(&mut self, act: &Act) -> Result<()> {
        let (n_before, head) = self.last.unwrap_or((act.seq.saturating_sub(1), act.previous));
        let broken = |detail: String| Err(Error::Decode { what: "record of acts", detail });
        if act.seq != n_before + 1 {
            return broken(format!("act {} comes after act {n_before}; acts between them are missing", act.seq));
        }
        if act.previous != head || (act.seq == 1 && head != Digest::of(b"")) {
            return broken(format!("act {} does not follow the one before: one of the two was changed", act.seq));
        }
        self.last = Some((act.seq, act.hash()));
        Ok(())
    }

    /// The number of the last act, and its hash.
    pub fn last(&self) -> Option<(u64, Digest)> {
        self.last
    }
}

/// A record that was exported, one act a line, and whose chain holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Record {
    /// All acts, oldest first.
    pub acts: Vec<Act>,
    /// Where it ends.
    pub end: Follower,
}

impl Record {
    /// Reads and verifies an export.
    ///
    /// # Errors  [`Error::Decode`] naming the line that does not hold, [`Error::File`], [`Error::TooLarge`]
    pub fn read(path: &Path) -> Result<Self> {
        Self::of_bytes(&fs::read_bounded(path, MAX_EXPORT_BYTES)?)
    }

    fn of_bytes(bytes: &[u8]) -> Result<Self> {
        let mut record = Self::default();
        let broken = |detail: String| Error::Decode { what: "record of acts", detail };
        for (line_idx, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
            let number = line_idx + 1;
            if !line.ends_with(b"\n") {
                return Err(broken(format!("line {number} has no end: the export was interrupted; cut that line off")));
            }
            let act: Act = serde_json::from_slice(line)
                .map_err(|_| broken(format!("line {number} is not an act, expected JSON")))?;
            record.end.follow(&act)?;
            record.acts.push(act);
        }
        Ok(record)
    }
}

/// An export larger than this is not ours: an act takes half a kilobyte.
const MAX_EXPORT_BYTES: u64 = 4 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    fn record(n: u64) -> Vec<Act> {
        let mut previous = Digest::of(b"");
        let act = |seq| {
            let who = "operator/anna".to_owned();
            let (what, about, outcome) = ("publish-task".to_owned(), format!("lung {seq}"), "done".to_owned());
            let command = Digest::of(&[seq as u8]);
            let act = Act { seq, at_ms: 7, who, key: None, what, about, outcome, command, anchor: None, previous };
            previous = act.hash();
            act
        };
        (1..=n).map(act).collect()
    }

    fn check(acts: &[Act], expected: Option<&str>) {
        let mut follower = Follower::default();
        let result = acts.iter().try_for_each(|act| follower.follow(act));
        match (result, expected) {
            (Ok(()), None) => assert_eq!(follower.last().map(|(seq, _)| seq), acts.last().map(|act| act.seq)),
            (Err(error), Some(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            (result, expected) => panic!("{result:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn a_record_holds_from_wherever_it_begins_and_what_was_changed_is_named() {
        let acts = record(5);
        check(&acts, None);
        check(&acts[2..], None);
        let changed = |idx: usize, change: fn(&mut Act)| {
            let mut acts = acts.clone();
            change(&mut acts[idx]);
            acts
        };
        check(&changed(1, |act| act.about = "liver".to_owned()), Some("act 3 does not follow"));
        check(&changed(0, |act| act.previous = Digest::of(b"x")), Some("act 1 does not follow"));
        check(&[&acts[..2], &acts[3..]].concat(), Some("act 4 comes after act 2"));
    }
}
