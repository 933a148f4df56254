//! The site's own log held against what coordinators have on record of it: where an entry was cut off, changed or written anew, the
//! first one that differs is known.
//!
//! A site says the hashes of its entries before what they are about leaves ([`Site::anchor`]); coordinators chain that with everything
//! else that is done ([`archipelago_common::act`]). So whoever rewrites a log would have to rewrite the consortium's record too.

use archipelago_common::{
    act::{Act, Anchor, Anchored},
    id::SiteId,
    limits,
};
use serde::Serialize;

use crate::{audit::AuditTrail, error::Result, session::Site};

impl Site {
    /// Tells the coordinators how far the audit log is.
    ///
    /// # Errors  [`crate::Error::Client`], [`crate::Error::AuditBroken`]
    pub(crate) async fn anchor(&self) -> Result<()> {
        let Some(known) = self.uplink.anchored().await? else { return Ok(()) };
        let trail = AuditTrail::read(&self.config.audit_path())?;
        let (mut after, hashes) = match trail.hashes_after(known) {
            Some(hashes) => (known, hashes),
            None => {
                tracing::error!(
                    n_known = known.n_records,
                    n_here = trail.entries.len(),
                    "the coordinators know another audit log of this site: this one was cut, changed or begun anew, and auditors are told so"
                );
                (Anchored::default(), trail.hashes_after(Anchored::default()).unwrap_or_default())
            }
        };
        for hashes in hashes.chunks(limits::ANCHOR_HASHES) {
            self.uplink.anchor(after, hashes.to_vec()).await?;
            after = Anchor { after, hashes: hashes.to_vec(), follows: true }.end();
        }
        Ok(())
    }
}

/// How a log stands beside its anchors.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Compared {
    /// Entries whose hashes were on record.
    pub(crate) n_anchored: u64,
    /// Entries that came after the last anchor.
    pub(crate) n_later: u64,
    /// The first entry that is not what was anchored, and how.
    pub(crate) differs: Option<Differs>,
}

/// An entry that is not what it was.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Differs {
    /// Its place, from 1.
    pub(crate) record: u64,
    /// The act of the consortium's record that says what it was.
    pub(crate) act: u64,
    /// In words.
    pub(crate) detail: String,
}

/// Compares a log with every anchor of its site.
pub(crate) fn compare(trail: &AuditTrail, site: &SiteId, acts: &[Act]) -> Compared {
    let who = format!("site/{site}");
    let anchors: Vec<(&Act, &Anchor)> =
        acts.iter().filter(|act| act.who == who).filter_map(|act| Some((act, act.anchor.as_ref()?))).collect();
    let n_here = trail.entries.len() as u64;
    let mut differs: Option<Differs> = None;
    let mut note = |record: u64, act: &Act, detail: String| {
        if differs.as_ref().is_none_or(|first| record < first.record) {
            differs = Some(Differs { record, act: act.seq, detail });
        }
    };
    for (act, anchor) in &anchors {
        for (record, hash) in (anchor.after.n_records + 1..).zip(&anchor.hashes) {
            match usize::try_from(record - 1).ok().and_then(|idx| trail.entries.get(idx)) {
                Some(entry) if entry.hash() == *hash => {}
                Some(_) => note(record, act, "it is another entry than the one that was anchored".to_owned()),
                None => note(record, act, format!("the log ends after {n_here} entries")),
            }
        }
        // Such a log may be the one that is here: then the earlier one is gone.
        if !anchor.follows {
            note(
                anchor.after.n_records + 1,
                act,
                "the log did not follow there what had been anchored before".to_owned(),
            );
        }
    }
    let n_anchored = anchors.iter().map(|(_, anchor)| anchor.end().n_records).max().unwrap_or_default();
    Compared { n_anchored, n_later: n_here.saturating_sub(n_anchored), differs }
}

#[cfg(test)]
mod tests {
    use archipelago_common::{hash::Digest, id::TaskId};

    use super::*;
    use crate::audit::{AuditLog, Kind, Release};

    /// A log of entries of these sizes.
    fn log_of(sizes: &[u64]) -> AuditTrail {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let mut log = AuditLog::open(&path).unwrap();
        for &size in sizes {
            let (site, digest) = ("north".parse().unwrap(), Digest::of(&size.to_le_bytes()));
            let release =
                Release { kind: Kind::Progress, site, task: TaskId(3), condition: None, digest, size, policy: digest };
            log.append(release).unwrap();
        }
        AuditTrail::read(&path).unwrap()
    }

    /// The record of a site that anchored after so many entries each time.
    fn anchored(trail: &AuditTrail, after: &[u64]) -> Vec<Act> {
        let mut place = Anchored::default();
        let act = |(seq, n): (u64, &u64)| {
            let hashes = trail.hashes_after(place).unwrap();
            let hashes = hashes[..(n - place.n_records) as usize].to_vec();
            let anchor = Anchor { after: place, hashes, follows: true };
            place = anchor.end();
            let (what, about) = ("anchor".to_owned(), String::new());
            let (outcome, who, digest) = ("done".to_owned(), "site/north".to_owned(), Digest::of(b""));
            Act {
                seq,
                at_ms: 0,
                who,
                key: None,
                what,
                about,
                outcome,
                command: digest,
                anchor: Some(anchor),
                previous: digest,
            }
        };
        (1..).zip(after).map(act).collect()
    }

    fn check(here: &AuditTrail, acts: &[Act], expected: Option<(u64, u64, &str)>) {
        let compared = compare(here, &"north".parse().unwrap(), acts);
        let found = compared.differs.as_ref().map(|d| (d.record, d.act));
        assert_eq!(found, expected.map(|(record, act, _)| (record, act)), "{compared:?}");
        if let (Some(differs), Some((_, _, detail))) = (compared.differs, expected) {
            assert!(differs.detail.contains(detail), "{}", differs.detail);
        }
    }

    #[test]
    fn the_first_entry_that_differs_is_named() {
        let whole = log_of(&[1, 2, 3, 4, 5, 6]);
        let acts = anchored(&whole, &[2, 5]);
        check(&whole, &acts, None);
        assert_eq!(compare(&whole, &"north".parse().unwrap(), &acts).n_later, 1);
        let mut cut = whole.clone();
        cut.entries.truncate(4);
        check(&cut, &acts, Some((5, 2, "ends after 4 entries")));
        check(&AuditTrail::default(), &acts, Some((1, 1, "ends after 0 entries")));
        // Times differ, so every hash does; what is anchored is named by its place.
        check(&log_of(&[1, 2, 9, 4, 5, 6]), &anchored(&log_of(&[7, 8]), &[2]), Some((1, 1, "another entry")));
        let mut rewritten = whole.clone();
        rewritten.entries[3].release.size = 9;
        check(&rewritten, &acts, Some((4, 2, "another entry")));
        check(&log_of(&[1]), &[], None);
    }

    #[test]
    fn a_log_that_was_begun_anew_is_told_even_where_the_rest_agrees() {
        let whole = log_of(&[1, 2, 3]);
        let mut acts = anchored(&whole, &[3]);
        acts[0].anchor.as_mut().unwrap().follows = false;
        check(&whole, &acts, Some((1, 1, "did not follow")));
    }
}
