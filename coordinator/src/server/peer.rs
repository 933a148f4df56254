//! What coordinators ask one another beside Raft, asked of all and answered.

use std::{sync::Arc, time::Duration};

use archipelago_cluster::Cluster;
use archipelago_common::{
    NodeId,
    health::{Collected, HealthRecord, OfNode},
};
use archipelago_protocol::{
    frame,
    message::{PeerAsk, PeerReply, Refusal, Reply},
};
use archipelago_transport::Stream;
use tokio::task::JoinSet;

use super::{Executor, refusal};
use crate::{blob::verify, clock, error::Result};

/// Answers another coordinator.
///
/// # Errors  [`crate::Error::Transport`]: the stream is gone
pub(super) async fn serve(mut stream: Stream, ask: PeerAsk, executor: &Executor) -> Result<()> {
    let reply = executor.answer(ask).await.unwrap_or_else(PeerReply::Refused);
    stream.send_frame(&frame::encode(&reply)?).await?;
    Ok(stream.finish().await?)
}

impl Executor {
    /// Everybody's health.
    pub(super) async fn health_of_all(&self) -> Result<Reply, Refusal> {
        Ok(Reply::Health(self.ask_all(PeerAsk::Health, health).await?))
    }

    /// Begins to verify blobs everywhere.
    pub(super) async fn verify_everywhere(&self) -> Result<Reply, Refusal> {
        Ok(Reply::Health(self.ask_all(PeerAsk::Verify, health).await?))
    }

    /// Removes what nothing refers to everywhere.
    pub(super) async fn collect_everywhere(&self, dry_run: bool) -> Result<Reply, Refusal> {
        let collected = |reply| match reply {
            PeerReply::Collected(collected) => Some(collected),
            _ => None,
        };
        Ok(Reply::Collected(self.ask_all::<Collected>(PeerAsk::Collect { dry_run }, collected).await?))
    }

    /// What this node has applied, and how many blobs that its state names it lacks.
    pub(super) async fn holdings(&self) -> Result<(u64, u64), Refusal> {
        let applied = self.raft().view().applied;
        let named = self.raft().named_blobs().await.map_err(refusal::dropped)?;
        let store = self.replicas().store();
        let missing = tokio::task::block_in_place(|| named.iter().filter(|blob| !store.contains(blob)).count());
        Ok((applied, missing as u64))
    }

    async fn answer(&self, ask: PeerAsk) -> Result<PeerReply, Refusal> {
        let node = self.raft().view().node;
        Ok(match ask {
            PeerAsk::Barrier => PeerReply::Barrier { index: self.raft().barrier().await.map_err(refusal::dropped)? },
            PeerAsk::Holdings => {
                let (applied, missing) = self.holdings().await?;
                PeerReply::Holdings { applied, missing }
            }
            PeerAsk::Health => PeerReply::Health(self.condition().record(node)),
            PeerAsk::Collect { dry_run } => {
                PeerReply::Collected(self.replicas().collect(dry_run).await.map_err(|e| refusal::of(&e))?)
            }
            PeerAsk::Vouch { node, incarnation } => self.vouch(node, incarnation).await.map(|()| PeerReply::Known)?,
            PeerAsk::Clock => PeerReply::Clock { now_ms: clock::now_ms() },
            PeerAsk::Marks => PeerReply::Marks(self.raft().peek(Cluster::marks).await.map_err(refusal::dropped)?),
            PeerAsk::Greet(_) | PeerAsk::Present(_) => {
                return Err(Refusal::Invalid { reason: "a greeting is said by a coordinator itself".to_owned() });
            }
            PeerAsk::Verify => {
                verify::begin(self.replicas());
                PeerReply::Health(self.condition().record(node))
            }
        })
    }

    /// Asks this node and all others at once; who does not answer in time has no answer.
    async fn ask_all<T: Send + 'static>(
        &self,
        ask: PeerAsk,
        read: fn(PeerReply) -> Option<T>,
    ) -> Result<Vec<OfNode<T>>, Refusal> {
        let own = self.raft().view().node;
        let mut asking = JoinSet::new();
        for link in self.replicas().links().all() {
            let link = Arc::clone(&link);
            asking.spawn(async move {
                let answer = tokio::time::timeout(ASK, link.ask(ask)).await;
                (link.node(), answer.ok().and_then(Result::ok).and_then(read))
            });
        }
        let mut answers: Vec<(NodeId, Option<T>)> = vec![(own, read(self.answer(ask).await?))];
        while let Some(answer) = asking.join_next().await {
            answers.extend(answer);
        }
        answers.sort_by_key(|(node, _)| *node);
        Ok(answers.into_iter().map(|(node, answer)| OfNode { node, answer }).collect())
    }
}

fn health(reply: PeerReply) -> Option<HealthRecord> {
    match reply {
        PeerReply::Health(health) => Some(health),
        _ => None,
    }
}

/// Longest wait for one coordinator; a request may take ten seconds.
const ASK: Duration = Duration::from_secs(5);
