//! Removing blobs that nothing refers to: uploads whose submission was refused or never came, and half-way ones.
//!
//! What is kept: every blob that the replicated state names, in any version there ever was; whatever is being received;
//! and whatever was uploaded, asked about or relied upon within the grace period. Blobs that are being sent live on
//! until they are sent, as an open file does. A command that names a blob is proposed only after the leader has had it
//! held ([`BlobStore::hold`]) on a majority just then, so the grace period need only be longer than a commit; it is much
//! longer, for the sake of uploads that are resumed.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use archipelago_common::{Digest, health::Collected};
use archipelago_protocol::message::{PeerAsk, PeerReply, Refusal};

use super::{
    replicate::Replicas,
    store::{BlobStore, file_size},
};
use crate::{
    error::{Error, Result},
    ops::metrics,
};

/// Collects regularly for as long as the node runs.
pub async fn run(replicas: Replicas) {
    loop {
        tokio::time::sleep(EVERY).await;
        match replicas.collect(false).await {
            Ok(Collected { blobs: 0, partials: 0, .. }) => {}
            Ok(Collected { blobs, bytes, partials }) => tracing::info!(blobs, bytes, partials, "blobs were collected"),
            Err(error) => tracing::info!(%error, "blobs are collected another time"),
        }
    }
}

impl Replicas {
    /// Removes what nothing refers to, or only says what that is.
    ///
    /// # Errors  [`Error::Refused`] while this node cannot know what is referred to; [`Error::Common`]
    pub async fn collect(&self, dry_run: bool) -> Result<Collected> {
        self.catch_up().await?;
        let named = self.raft().named_blobs().await;
        let named = named.map_err(|dropped| Error::Refused(crate::server::refusal::dropped(dropped)))?;
        let digests: BTreeSet<_> = named.iter().map(|blob| blob.digest).collect();
        let store = self.store().clone();
        let swept = tokio::task::spawn_blocking(move || store.sweep(&digests, GRACE, dry_run)).await;
        swept.map_err(|_| Error::Ended { part: "the collection of blobs" })?
    }

    /// Waits until this node has applied everything that was acknowledged until now: a node that is behind does not
    /// know what must stay.
    async fn catch_up(&self) -> Result<()> {
        let busy = || Error::Refused(Refusal::Busy { retry_after_ms: 1_000 });
        let view = self.raft().view();
        let leader = view.leader.ok_or_else(busy)?;
        if leader == view.node {
            self.raft().barrier().await.map_err(|_| busy())?;
            return Ok(());
        }
        let link = self.links().to(leader).ok_or_else(busy)?;
        let PeerReply::Barrier { index } = link.ask(PeerAsk::Barrier).await? else { return Err(busy()) };
        let applied = tokio::time::timeout(CATCH_UP, async {
            self.raft().watch().wait_for(|view| view.applied >= index).await.is_ok()
        });
        if applied.await.is_ok_and(|is_there| is_there) { Ok(()) } else { Err(busy()) }
    }
}

impl BlobStore {
    /// Removes whole and half-way blobs that are not in `named`, nobody is sending, and that have been left alone for
    /// `grace`; or only counts them.
    ///
    /// # Errors  [`Error::Common`]
    pub fn sweep(self: &Arc<Self>, named: &BTreeSet<Digest>, grace: Duration, dry_run: bool) -> Result<Collected> {
        let mut collected = Collected::default();
        for file in self.whole_files()? {
            let Some(digest) = digest_of(&file).filter(|digest| !named.contains(digest)) else { continue };
            if let Some(bytes) = self.remove_if_idle(&file, digest, grace, dry_run)? {
                collected.blobs += 1;
                collected.bytes += bytes;
                if !dry_run {
                    self.uncount(bytes);
                }
            }
        }
        for file in self.chunks_files()? {
            let Some(digest) = digest_of(&file).filter(|digest| !self.path(digest).exists()) else { continue };
            collected.bytes += self.remove_if_idle(&file, digest, grace, dry_run)?.unwrap_or_default();
        }
        for file in self.partial_files()? {
            let Some(digest) = digest_of(&file) else { continue };
            if let Some(bytes) = self.remove_if_idle(&file, digest, grace, dry_run)? {
                collected.partials += u64::from(file.extension().is_some_and(|extension| extension == "data"));
                collected.bytes += bytes;
            }
        }
        if !dry_run {
            self.condition().note_reclaimed(collected.bytes);
            metrics::BLOB_RECLAIMED_BYTES_TOTAL.inc_by(collected.bytes);
        }
        Ok(collected)
    }

    /// Removes a file unless its blob is being received or was touched within `grace`; says how large it was.
    pub(super) fn remove_if_idle(
        &self,
        file: &Path,
        digest: Digest,
        grace: Duration,
        dry_run: bool,
    ) -> Result<Option<u64>> {
        let receiving = self.lock();
        let Ok(modified) = std::fs::metadata(file).and_then(|metadata| metadata.modified()) else { return Ok(None) };
        // A stamp from the future, after a clock was set back, is young.
        let age = SystemTime::now().duration_since(modified).unwrap_or_default();
        if receiving.contains(&digest) || age < grace {
            return Ok(None);
        }
        let bytes = file_size(file)?;
        if !dry_run {
            let error = |source| archipelago_common::Error::File { action: "remove", path: file.to_owned(), source };
            std::fs::remove_file(file).map_err(error)?;
        }
        Ok(Some(bytes))
    }
}

/// The digest in a file's name; none for a file that is not ours.
pub(super) fn digest_of(file: &Path) -> Option<Digest> {
    file.file_stem()?.to_str()?.parse().ok()
}

/// How long a blob that nothing refers to is kept: a site that was cut off over the weekend goes on where it was.
pub const GRACE: Duration = Duration::from_secs(72 * 3_600);
/// Time between two collections.
const EVERY: Duration = Duration::from_secs(3_600);
/// Longest wait for this node to apply what the others have.
const CATCH_UP: Duration = Duration::from_secs(10);

#[cfg(test)]
#[path = "gc_tests.rs"]
mod tests;
