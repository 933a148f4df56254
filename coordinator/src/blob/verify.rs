//! Finding blobs that a disk has spoilt or lost: what the state names is looked for every minute, and every blob is read
//! and compared with its digest, slowly and round after round. Whoever sends a blob compares every chunk as well
//! ([`super::file`]).
//!
//! A damaged blob is put aside, not deleted: it may help to find out what is wrong with the disk. From then on it is
//! missing, so [`super::replicate::Replicas::keep_complete`] fetches it again from a coordinator that has it.

use std::{
    collections::BTreeMap,
    fs::File,
    ops::Bound,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use archipelago_cluster::mutation::{self, Rule};
use archipelago_common::{BlobRef, Digest, fs};

use super::{
    digests::ChunkDigests,
    gc::digest_of,
    replicate::Replicas,
    store::{BlobStore, file_size},
};
use crate::{
    clock,
    error::{Error, Result},
    ops::metrics,
};

/// Looks for what is missing, and verifies round after round, for as long as the node runs.
pub async fn run(replicas: Replicas) {
    tokio::join!(call_rolls(&replicas), scrub(replicas.store()));
}

async fn call_rolls(replicas: &Replicas) {
    loop {
        tokio::time::sleep(ROLL_CALL).await;
        if let Err(error) = replicas.call_roll().await {
            tracing::warn!(%error, "the blobs could not be counted");
        }
    }
}

/// One blob after another. A restart begins anywhere, so that one that restarts often still comes to all of them.
async fn scrub(store: &Arc<BlobStore>) {
    let mut after = Digest::from_bytes(rand::random());
    let mut begun = after;
    loop {
        let here = store.clone();
        let scrubbed = tokio::task::spawn_blocking(move || here.scrub_next(after)).await;
        let (next, bytes) = scrubbed.ok().and_then(Result::ok).flatten().unwrap_or((after, 0));
        if passes(after, next, begun) {
            store.condition().note_verified(clock::now_ms());
            begun = next;
        }
        after = next;
        // Not faster than the disk has time for, and not more than a round in a while.
        let share = ROUND / u32::try_from(store.size().0.max(1)).unwrap_or(u32::MAX);
        tokio::time::sleep(Duration::from_secs_f64(bytes as f64 / SCRUB as f64).max(share)).await;
    }
}

/// Whether going round from `from` to `to` passes `place`.
fn passes(from: Digest, to: Digest, place: Digest) -> bool {
    if from < to { from < place && place <= to } else { place > from || place <= to }
}

/// Begins to verify all blobs, unless that is under way.
pub fn begin(replicas: &Replicas) {
    let store = replicas.store().clone();
    if store.condition().begin_verifying() {
        return;
    }
    let (replicas, runtime) = (replicas.clone(), tokio::runtime::Handle::current());
    // On a thread of its own, not the runtime's: it takes as long as it takes.
    std::thread::spawn(move || {
        let verified = store.verify_all(RATE);
        let missing = runtime.block_on(replicas.call_roll());
        let is_done = match (&verified, &missing) {
            (Ok(0), Ok(0)) => {
                tracing::info!("all blobs are there and what they should be");
                true
            }
            (Ok(damaged), Ok(missing)) => {
                tracing::error!(
                    damaged,
                    missing,
                    "blobs were damaged and put aside, or missing; look at this node's disk"
                );
                true
            }
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(%error, "the blobs could not be verified");
                false
            }
        };
        store.condition().end_verifying(is_done.then(clock::now_ms));
    });
}

impl Replicas {
    /// Compares what the state names with what is on this disk, and says how many are missing. They are fetched from then
    /// on.
    ///
    /// # Errors  [`Error::Common`]; [`Error::Refused`] of a node that has never been up
    pub async fn call_roll(&self) -> Result<u64> {
        let named = self.raft().named_blobs().await;
        let named = named.map_err(|dropped| Error::Refused(crate::server::refusal::dropped(dropped)))?;
        let store = self.store().clone();
        let counted = tokio::task::spawn_blocking(move || {
            let present = store.present()?;
            store.recount(&present);
            let is_there = |blob: &BlobRef| present.get(&blob.digest) == Some(&blob.size);
            let n_missing = named.iter().filter(|blob| !is_there(blob)).count() as u64;
            store.condition().note_missing(n_missing);
            if n_missing > 0 {
                store.note_lost();
            }
            Ok(n_missing)
        });
        counted.await.map_err(|_| Error::Ended { part: "the count of blobs" })?
    }
}

/// Which blob is read after another, so that every one is come to: the next by digest, going round.
pub fn next_to_read<T>(present: &BTreeMap<Digest, T>, after: Digest) -> Option<Digest> {
    if mutation::is_broken(Rule::Scrub) {
        return None;
    }
    let beyond = present.range((Bound::Excluded(after), Bound::Unbounded)).next();
    beyond.or_else(|| present.iter().next()).map(|(digest, _)| *digest)
}

impl BlobStore {
    /// Compares every blob with its digest, at no more than `bytes_per_s`, and puts aside what is not what it should
    /// be. Says how many were not.
    ///
    /// # Errors  [`crate::Error::Common`]
    pub fn verify_all(&self, bytes_per_s: u64) -> Result<u64> {
        let (begun, mut n_read, mut n_damaged) = (Instant::now(), 0, 0);
        for file in self.whole_files()? {
            let Some(digest) = digest_of(&file) else { continue };
            // It may have been collected meanwhile.
            let Ok(bytes) = file_size(&file) else { continue };
            n_damaged += u64::from(!self.verify(digest)?);
            n_read += bytes;
            let due = Duration::from_millis(n_read * 1_000 / bytes_per_s.max(1));
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
        }
        Ok(n_damaged)
    }

    /// Compares one blob with its digest, and puts it aside if it is something else. A blob that is not here is right.
    ///
    /// # Errors  [`crate::Error::Common`]
    pub fn verify(&self, digest: Digest) -> Result<bool> {
        let Ok(size) = file_size(&self.path(&digest)) else { return Ok(true) };
        Ok(self.make_digests(BlobRef { digest, size })?.is_some())
    }

    /// Verifies the next blob after a digest, going round; which it was, and how large.
    pub(super) fn scrub_next(&self, after: Digest) -> Result<Option<(Digest, u64)>> {
        let present = self.present()?;
        let Some(digest) = next_to_read(&present, after) else { return Ok(None) };
        self.verify(digest)?;
        Ok(Some((digest, present[&digest])))
    }

    /// Reads all of a blob, and writes the digests of its chunks if they are not there. None if it is something else, which
    /// is put aside then.
    ///
    /// # Errors  [`crate::Error::Common`]
    pub(super) fn make_digests(&self, blob: BlobRef) -> Result<Option<ChunkDigests>> {
        let path = self.path(&blob.digest);
        let Ok(mut file) = File::open(&path) else { return Ok(None) };
        // A sector that cannot be read is as good as a wrong one.
        let Some(digests) = ChunkDigests::read(blob, &mut file).ok().flatten() else {
            self.put_aside(blob.digest, &file)?;
            return Ok(None);
        };
        if blob.n_chunks() > 1 && self.recorded_digests(blob).is_none() {
            self.write_digests(&digests)?;
        }
        Ok(Some(digests))
    }

    /// The digests that were kept beside a blob.
    pub(super) fn recorded_digests(&self, blob: BlobRef) -> Option<ChunkDigests> {
        let bytes = fs::read_bounded(&self.chunks_path(&blob.digest), ChunkDigests::size(blob)).ok()?;
        ChunkDigests::from_bytes(blob, &bytes)
    }

    /// Keeps them beside the blob, durably.
    pub(super) fn write_digests(&self, digests: &ChunkDigests) -> Result<()> {
        Ok(fs::write_atomic(&self.chunks_path(&digests.blob().digest), &digests.to_bytes())?)
    }

    /// Puts a spoilt blob aside, as it was opened: another that has come in its place meanwhile stays.
    pub(super) fn put_aside(&self, digest: Digest, spoilt: &File) -> Result<()> {
        let (path, aside) = (self.path(&digest), self.damaged_dir().join(digest.to_string()));
        let _receiving = self.lock();
        let error = |source| archipelago_common::Error::File { action: "read", path: path.clone(), source };
        let (Ok(there), opened) = (std::fs::metadata(&path), spoilt.metadata().map_err(error)?) else { return Ok(()) };
        if there.ino() != opened.ino() {
            return Ok(());
        }
        fs::persist(&path, &aside)?;
        // Those of the blob that comes in its place are made with it.
        let _ = std::fs::remove_file::<PathBuf>(self.chunks_path(&digest));
        tracing::error!(blob = %digest, aside = %aside.display(), "a blob is damaged; it is fetched again from another coordinator");
        self.condition().note_damaged();
        metrics::BLOB_DAMAGED_TOTAL.inc();
        self.uncount(there.len());
        Ok(())
    }
}

/// Time between two looks for blobs that are missing.
const ROLL_CALL: Duration = Duration::from_secs(60);
/// Shortest time in which every blob is read once, unasked.
const ROUND: Duration = Duration::from_secs(24 * 3_600);
/// Bytes a second that are read unasked: a terabyte takes less than a day.
const SCRUB: u64 = 16 << 20;
/// Bytes a second that are read when somebody asks: a disk does ten times as much, and a terabyte takes a few hours.
const RATE: u64 = 64 << 20;

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
