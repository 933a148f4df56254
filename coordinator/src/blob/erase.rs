//! Deleting what was erased: bytes go from this node's disk as soon as it has applied the erasure, also on one that was away, and also
//! copies that were put aside as damaged. What the state names, by whatever name, stays.
//!
//! What is being received, or was held a moment ago because somebody is about to rely on it, is looked at again: it may be named by then.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use archipelago_common::BlobRef;

use super::{replicate::Replicas, store::BlobStore};
use crate::error::{Error, Result};

/// Deletes what is erased for as long as the node runs. It begins with everything that ever was: a file that a power cut brought
/// back goes again.
pub async fn run(replicas: Replicas) {
    let mut view = replicas.raft().watch();
    let mut done = 0;
    loop {
        match replicas.erase(done).await {
            Ok(Erased { seq, is_all: true }) => {
                done = seq;
                if view.changed().await.is_err() {
                    return;
                }
            }
            Ok(Erased { is_all: false, .. }) => {}
            Err(error) => tracing::warn!(%error, "what was erased is deleted another time"),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// How far a node is with deleting.
struct Erased {
    seq: u64,
    is_all: bool,
}

impl Replicas {
    async fn erase(&self, since: u64) -> Result<Erased> {
        let found = self.raft().peek(move |cluster| cluster.erased_since(since)).await;
        let (seq, blobs) = found.map_err(|dropped| Error::Refused(crate::server::refusal::dropped(dropped)))?;
        let store = self.store().clone();
        let deleted = tokio::task::spawn_blocking(move || store.erase(&blobs, HELD)).await;
        let is_all = deleted.map_err(|_| Error::Ended { part: "the deletion of what was erased" })??;
        Ok(Erased { seq, is_all })
    }
}

impl BlobStore {
    /// Deletes these blobs in every form in which they may be here, but for what was touched within `held`. Says whether nothing of them
    /// is left.
    ///
    /// # Errors  [`Error::Common`]
    pub fn erase(self: &Arc<Self>, blobs: &BTreeSet<BlobRef>, held: Duration) -> Result<bool> {
        let mut is_all = true;
        for BlobRef { digest, .. } in blobs {
            let whole = self.path(digest);
            if let Some(bytes) = self.remove_if_idle(&whole, *digest, held, false)? {
                self.uncount(bytes);
                tracing::info!(blob = %digest, bytes, "a blob was erased");
            }
            // What is told of a blob goes after it.
            for file in [self.chunks_path(digest), self.damaged_dir().join(digest.to_string())] {
                if !whole.exists() {
                    self.remove_if_idle(&file, *digest, Duration::ZERO, false)?;
                }
            }
            for extension in ["data", "record"] {
                self.remove_if_idle(&self.partial_path(digest, extension), *digest, held, false)?;
            }
            is_all &= !whole.exists() && !self.partial_path(digest, "data").exists();
        }
        Ok(is_all)
    }
}

/// How long what somebody is about to rely on is left alone: longer than a command takes that names it.
const HELD: Duration = Duration::from_secs(10);
/// Time until the next look.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::test_blobs::{chunks, put, store};

    /// Files below a directory whose bytes have this text.
    fn holding(dir: &std::path::Path, text: &[u8]) -> usize {
        std::fs::read_dir(dir).unwrap().fold(0, |n, entry| {
            let path = entry.unwrap().path();
            let of_file = || std::fs::read(&path).unwrap().windows(text.len()).any(|window| window == text);
            n + if path.is_dir() { holding(&path, text) } else { usize::from(of_file()) }
        })
    }

    #[test]
    fn what_is_erased_is_in_no_file_and_what_is_held_goes_later() {
        let (dir, store) = store();
        let (erased, other) = (put(&store, b"cells of a donor"), put(&store, b"other"));
        let blobs = BTreeSet::from([erased, BlobRef::of(b"never here")]);
        assert!(!store.erase(&blobs, Duration::from_secs(3_600)).unwrap(), "it came just now");
        assert_eq!(holding(dir.path(), b"a donor"), 1);
        assert!(store.erase(&blobs, Duration::ZERO).unwrap());
        assert_eq!(holding(dir.path(), b"a donor"), 0);
        assert!(store.contains(&other));
        assert_eq!(store.size(), (1, 5));
    }

    #[test]
    fn a_damaged_copy_and_a_half_way_one_go_too() {
        let (dir, store) = store();
        let blob = put(&store, b"cells of a donor");
        let file = std::fs::File::open(store.path(&blob.digest)).unwrap();
        store.put_aside(blob.digest, &file).unwrap();
        let large: Vec<u8> = b"a donor's ".iter().copied().cycle().take(3 << 20).collect();
        let half = BlobRef::of(&large);
        let mut receiving = store.receive(half).unwrap();
        receiving.write(&chunks(&large)[0]).unwrap();
        drop(receiving);
        assert_eq!(holding(dir.path(), b"a donor"), 2);
        assert!(store.erase(&[blob, half].into(), Duration::ZERO).unwrap());
        assert_eq!(holding(dir.path(), b"a donor"), 0);
    }
}
