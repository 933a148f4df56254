//! Finding blobs that a disk has spoilt: every blob is read and compared with its digest, slowly and now and then.
//!
//! A damaged blob is put aside, not deleted: it may help to find out what is wrong with the disk. From then on it is
//! missing, so [`super::replicate::Replicas::keep_complete`] fetches it again from a coordinator that has it.

use std::{
    fs::File,
    io::Read as _,
    sync::Arc,
    time::{Duration, Instant},
};

use archipelago_common::{Digest, fs, hash::StreamHasher, limits};

use super::{
    gc::digest_of,
    store::{BlobStore, file_size},
};
use crate::{clock, error::Result, ops::metrics};

/// Verifies regularly for as long as the node runs.
pub async fn run(store: Arc<BlobStore>) {
    loop {
        tokio::time::sleep(EVERY).await;
        begin(&store);
    }
}

/// Begins to verify all blobs, unless that is under way.
pub fn begin(store: &Arc<BlobStore>) {
    if store.condition().begin_verifying() {
        return;
    }
    let store = store.clone();
    // On a thread of its own, not the runtime's: it takes as long as it takes.
    std::thread::spawn(move || {
        let verified = store.verify_all(RATE);
        match &verified {
            Ok(0) => tracing::info!("all blobs are what they should be"),
            Ok(damaged) => tracing::error!(damaged, "blobs were damaged and put aside; look at this node's disk"),
            Err(error) => tracing::warn!(%error, "the blobs could not be verified"),
        }
        store.condition().end_verifying(verified.is_ok().then(clock::now_ms));
    });
}

impl BlobStore {
    /// Compares every blob with its digest, at no more than `bytes_per_s`, and puts aside what is not what it should
    /// be. Says how many were not.
    ///
    /// # Errors  [`crate::Error::Common`]
    pub fn verify_all(self: &Arc<Self>, bytes_per_s: u64) -> Result<u64> {
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
    pub fn verify(self: &Arc<Self>, digest: Digest) -> Result<bool> {
        let path = self.path(&digest);
        let Ok(mut file) = File::open(&path) else { return Ok(true) };
        // A sector that cannot be read is as good as a wrong one.
        if hash(&mut file).is_ok_and(|found| found == digest) {
            return Ok(true);
        }
        let aside = self.damaged_dir();
        fs::create_dir(&aside)?;
        let _receiving = self.lock();
        let bytes = file_size(&path)?;
        fs::persist(&path, &aside.join(digest.to_string()))?;
        tracing::error!(blob = %digest, aside = %aside.display(), "a blob is damaged; it is fetched again from another coordinator");
        self.condition().note_damaged();
        metrics::BLOB_DAMAGED_TOTAL.inc();
        self.uncount(bytes);
        Ok(false)
    }
}

fn hash(file: &mut File) -> std::io::Result<Digest> {
    let (mut hasher, mut piece) = (StreamHasher::default(), vec![0; limits::CHUNK_BYTES as usize]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hasher.finish()),
            n => {
                hasher.update(&piece[..n]);
            }
        }
    }
}

/// Time between two verifications.
const EVERY: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Bytes a second that verifying may read: a disk does ten times as much, and a terabyte still takes only a few hours.
const RATE: u64 = 64 << 20;

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
