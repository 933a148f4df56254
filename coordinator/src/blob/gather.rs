//! What has come of an upload elsewhere, taken from the other coordinators before the sender is told where to go on.
//!
//! A chunk is recorded only once a majority has recorded the one before ([`super::relay`]). So the most that any node of any
//! majority has is at most one chunk short of the most there is, and that is what the sender repeats. The node that
//! takes an upload over may itself have fallen far behind, or may have lost its disk.

use std::{cmp::Reverse, collections::BTreeSet, sync::Arc, time::Duration};

use archipelago_common::{BlobRef, NodeId};
use archipelago_protocol::message::{GetReply, Refusal, StreamOpen};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};

use super::{
    receiving::Receiving,
    replicate::{self, Replicas},
};
use crate::{
    error::{Error, Result},
    frames,
    links::Link,
};

/// Takes what the others have and this node lacks, as far as a majority knows of it.
///
/// # Errors  [`Error::NoMajority`] if too few answer; [`Error::Transport`] if one is lost that has more: the sender is to come
/// again; [`Error::BlobBusy`], [`Error::Common`]
pub(crate) async fn gather(replicas: &Replicas, receiving: &mut Receiving) -> Result<()> {
    for (n_chunks, link) in most_first(replicas, receiving.blob()).await? {
        if n_chunks <= receiving.next_chunk() {
            break;
        }
        match replicate::pull_into(&link, receiving).await {
            Ok(()) => {}
            // What a disk has spoilt does not count.
            Err(error @ (Error::Protocol(_) | Error::Refused(_))) => {
                tracing::warn!(node = %link.node(), blob = %receiving.blob(), %error, "a part of an upload is of no use");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The first coordinators to answer that are a majority with this one, and how many chunks each has; the most first.
async fn most_first(replicas: &Replicas, blob: BlobRef) -> Result<Vec<(u64, Arc<Link>)>> {
    let mut asking = JoinSet::new();
    for link in replicas.links().all() {
        asking.spawn(async move { (ask_until_answered(&link, blob).await, link) });
    }
    let (mut answered, mut found) = (BTreeSet::<NodeId>::new(), Vec::new());
    let deadline = Instant::now() + frames::STEP;
    while let lacking @ Some(_) = replicas.lacking(&answered) {
        match timeout_at(deadline, asking.join_next()).await {
            Ok(Some(Ok((n_chunks, link)))) => {
                answered.insert(link.node());
                found.push((n_chunks, link));
            }
            Ok(Some(Err(_))) => {}
            Ok(None) | Err(_) => replicate::none_lacking(blob, lacking)?,
        }
    }
    found.sort_by_key(|(n_chunks, _)| Reverse(*n_chunks));
    Ok(found)
}

async fn ask_until_answered(link: &Link, blob: BlobRef) -> u64 {
    loop {
        match ask(link, blob).await {
            Ok(n_chunks) => return n_chunks,
            Err(error) => tracing::debug!(node = %link.node(), %blob, %error, "it does not say what has come"),
        }
        sleep(RETRY).await;
    }
}

/// How many chunks another coordinator has, from the first. One of an earlier version says so of whole blobs only.
async fn ask(link: &Link, blob: BlobRef) -> Result<u64> {
    // Beyond the last chunk, so that none follows.
    let mut stream = link.open(&StreamOpen::Get { blob, from_chunk: blob.n_chunks() }).await?;
    match frames::receive::<GetReply>(&mut stream).await? {
        GetReply::Sending => Ok(blob.n_chunks()),
        GetReply::SendingPart { n_chunks } => Ok(n_chunks),
        GetReply::Refused(Refusal::NotFound { .. }) => Ok(0),
        GetReply::Refused(refusal) => Err(refusal.into()),
    }
}

/// Pause before one that did not answer is asked again; a connection from before its restart is found out by asking.
const RETRY: Duration = Duration::from_millis(100);
