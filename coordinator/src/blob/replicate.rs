//! Blobs on more than one node: pushed to a majority before anybody is told that they are durable, and fetched by
//! digest where one is missing.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use archipelago_common::{BlobRef, NodeId};
use archipelago_protocol::{
    frame::Message as _,
    message::{Chunk, GetReply, PutReply, Refusal, StreamOpen},
};
use tokio::sync::mpsc;

use super::{
    chunks::{receive_chunk, send_chunks},
    receiving::Receiving,
    store::BlobStore,
};
use crate::{
    error::{Error, Result},
    frames::receive,
    links::{Link, Links, majority_of},
    raft::task::Raft,
};

/// This node's blobs and the ways to the other nodes'.
#[derive(Clone)]
pub struct Replicas {
    store: Arc<BlobStore>,
    links: Links,
    raft: Raft,
}

impl Replicas {
    /// Replication from and to this store.
    pub fn new(store: Arc<BlobStore>, links: Links, raft: Raft) -> Self {
        Self { store, links, raft }
    }

    /// This node's own blobs.
    pub fn store(&self) -> &Arc<BlobStore> {
        &self.store
    }

    /// The node whose state says what is to be here.
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// The ways to the other coordinators.
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// Waits until a blob that has just come here, or was held, is durable on a majority of the voters, this node included
    /// if it is one. While members change, on a majority before and after. It goes on to the others, learners too.
    ///
    /// # Errors  [`Error::NoMajority`], [`Error::NoBlob`]
    pub async fn ensure_majority(&self, blob: BlobRef) -> Result<()> {
        if !self.store.contains(&blob) {
            return Err(Error::NoBlob { blob });
        }
        let links = self.links.all();
        let (done, mut results) = mpsc::channel(links.len().max(1));
        for link in links {
            let (store, done) = (self.store.clone(), done.clone());
            tokio::spawn(async move {
                let result = push(&link, &store, blob).await;
                if let Err(error) = &result {
                    tracing::debug!(node = %link.node(), %blob, %error, "a blob was not replicated");
                }
                // Nobody listens any more once the majority is reached.
                let _ = done.send((link.node(), result.is_ok())).await;
            });
        }
        drop(done);
        let mut holders = BTreeSet::from([self.links.own()]);
        loop {
            // Looked at anew each time: members may have changed meanwhile.
            let Some((found, needed)) = shortfall(&self.raft.view().electorates(), &holders) else { return Ok(()) };
            match results.recv().await {
                Some((node, true)) => drop(holders.insert(node)),
                Some((_, false)) => {}
                None => return Err(Error::NoMajority { blob, found, needed }),
            }
        }
    }

    /// What these and this node lack to a majority of the voters; while members change, of those before and after. Holders
    /// and needed holders, as of [`shortfall`].
    pub(super) fn lacking(&self, others: &BTreeSet<NodeId>) -> Option<(usize, usize)> {
        let holders = others.iter().copied().chain([self.links.own()]).collect();
        shortfall(&self.raft.view().electorates(), &holders)
    }

    /// Fetches a blob that is missing here from whoever has it.
    ///
    /// # Errors  [`Error::NoBlob`] if nobody who can be reached has it
    pub async fn fetch(&self, blob: BlobRef) -> Result<()> {
        if self.store.contains(&blob) {
            return Ok(());
        }
        for link in self.links.all() {
            match pull(&link, &self.store, blob).await {
                Ok(()) => return Ok(()),
                Err(error) => tracing::debug!(node = %link.node(), %blob, %error, "a blob was not fetched"),
            }
        }
        Err(Error::NoBlob { blob })
    }

    /// Fetches, for as long as the node runs, every blob that the replicated state names and this node lacks.
    pub async fn keep_complete(self) {
        let raft = self.raft.clone();
        let mut view = raft.watch();
        let mut present = BTreeSet::new();
        let mut lost = std::pin::pin!(self.store.lost());
        loop {
            let named = raft.named_blobs().await.unwrap_or_default();
            let (mut is_complete, mut n_missing) = (true, 0);
            for blob in named {
                if present.contains(&blob) {
                    continue;
                }
                match self.fetch(blob).await {
                    Ok(()) => drop(present.insert(blob)),
                    Err(_) => {
                        is_complete = false;
                        n_missing += 1;
                    }
                }
            }
            self.store.condition().note_missing(n_missing);
            tokio::time::sleep(LOOK_AGAIN).await;
            tokio::select! {
                biased;
                () = &mut lost => {
                    // Damaged, or collected: what was here is looked for again.
                    present.clear();
                    lost.set(self.store.lost());
                }
                changed = view.changed(), if is_complete => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = std::future::ready(()), if !is_complete => {}
            }
        }
    }
}

/// Holders and needed holders in the first electorate of which there is no majority.
pub fn shortfall(electorates: &[BTreeSet<NodeId>], holders: &BTreeSet<NodeId>) -> Option<(usize, usize)> {
    let counts = electorates.iter().map(|voters| (voters.intersection(holders).count(), majority_of(voters.len())));
    counts.into_iter().find(|(found, needed)| found < needed)
}

/// That nothing is lacking to a majority, or an error that says what is.
///
/// # Errors  [`Error::NoMajority`]
pub(super) fn none_lacking(blob: BlobRef, lacking: Option<(usize, usize)>) -> Result<()> {
    lacking.map_or(Ok(()), |(found, needed)| Err(Error::NoMajority { blob, found, needed }))
}

async fn push(link: &Link, store: &Arc<BlobStore>, blob: BlobRef) -> Result<()> {
    for _ in 0..BUSY_TRIES {
        match push_once(link, store, blob).await {
            Err(Error::Refused(Refusal::Busy { retry_after_ms })) => {
                tokio::time::sleep(Duration::from_millis(retry_after_ms)).await;
            }
            result => return result,
        }
    }
    Err(Error::BlobBusy { blob })
}

async fn push_once(link: &Link, store: &Arc<BlobStore>, blob: BlobRef) -> Result<()> {
    let mut stream = link.open(&StreamOpen::Put(blob)).await?;
    loop {
        match receive::<PutReply>(&mut stream).await? {
            PutReply::Send { from_chunk } => send_chunks(&mut stream.send, store, blob, from_chunk).await?,
            PutReply::Durable => return Ok(()),
            PutReply::Refused(refusal) => return Err(refusal.into()),
            PutReply::Has { .. } => return Err(archipelago_transport::Error::StreamReset.into()),
        }
    }
}

async fn pull(link: &Link, store: &Arc<BlobStore>, blob: BlobRef) -> Result<()> {
    let mut receiving = tokio::task::block_in_place(|| store.receive(blob))?;
    pull_into(link, &mut receiving).await?;
    match receiving.is_complete() {
        true => tokio::task::block_in_place(|| receiving.finish()),
        false => Err(Error::NoBlob { blob }),
    }
}

/// Takes the chunks that another coordinator has, from the first that is missing here.
pub(super) async fn pull_into(link: &Link, receiving: &mut Receiving) -> Result<()> {
    let (blob, from_chunk) = (receiving.blob(), receiving.next_chunk());
    let mut stream = link.open(&StreamOpen::Get { blob, from_chunk }).await?;
    let to_chunk = match receive::<GetReply>(&mut stream).await? {
        GetReply::Sending => blob.n_chunks(),
        GetReply::SendingPart { n_chunks } => n_chunks.min(blob.n_chunks()),
        GetReply::Refused(refusal) => return Err(refusal.into()),
    };
    let mut chunks = stream.recv.ahead(Chunk::LIMIT);
    while receiving.next_chunk() < to_chunk {
        let chunk = receive_chunk(&mut chunks, receiving).await?;
        tokio::task::block_in_place(|| receiving.write(&chunk))?;
    }
    Ok(())
}

/// Pause between two looks for missing blobs.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Attempts at a peer that receives the blob from somebody else already.
const BUSY_TRIES: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().filter_map(|id| NodeId::new(*id)).collect()
    }

    #[test]
    fn a_majority_is_needed_of_every_electorate_and_learners_are_none() {
        let voters = [set(&[1, 2, 3])];
        assert_eq!(shortfall(&voters, &set(&[1])), Some((1, 2)));
        assert_eq!(shortfall(&voters, &set(&[1, 4])), Some((1, 2)), "4 is a learner");
        assert_eq!(shortfall(&voters, &set(&[1, 3])), None);
        let changing = [set(&[1, 2, 4]), set(&[1, 2, 3])];
        assert_eq!(shortfall(&changing, &set(&[1, 4])), Some((1, 2)), "no majority of those before the change");
        assert_eq!(shortfall(&changing, &set(&[1, 2])), None);
    }
}
