//! A founder whose log holds nothing asks the others whether they take it for one, and takes part in elections when all do.
//!
//! Such a log is that of a new cluster, or of a member whose disk was lost and that was founded anew under its old id. Those
//! who know its first life refuse it; a founder that was never there knows nobody's. Two that know nothing would elect a leader
//! in a term that the lost log had seen, if they did not have to hear from all.

use std::{collections::BTreeMap, time::Duration};

use archipelago_cluster::awaited_founder;
use archipelago_common::{NodeId, member::Origin};
use archipelago_protocol::message::PeerAsk;
use tokio::task::JoinSet;

use super::Executor;
use crate::error::Error;

/// Asks for as long as the log holds nothing.
pub(super) async fn run(executor: Executor) {
    let mut view = executor.raft().watch();
    let (mut takers, mut told) = (BTreeMap::new(), None);
    while let Ok(view) = view.wait_for(|view| view.is_founding).await.map(|view| view.clone()) {
        ask_all(&executor, &mut takers).await;
        if let Some(own) = executor.replicas().links().acquaintance().own().await {
            let others = view.configuration.voters.into_iter().filter(|node| *node != view.node);
            let awaited = awaited_founder(own.origin, others, |node| takers.get(&node).copied());
            if let Some(node) = awaited
                && told.replace(node) != Some(node)
            {
                tracing::info!(%node, "a new consortium begins when this founder has said that it has the same list of members");
            }
            executor.raft().note_founders(awaited.is_none()).await;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Notes who takes this node for a coordinator, and how its own log began. Who says nothing may be away for a moment.
async fn ask_all(executor: &Executor, takers: &mut BTreeMap<NodeId, Origin>) {
    let links = executor.replicas().links();
    let mut asking = JoinSet::new();
    for link in links.all() {
        asking.spawn(async move { (link.node(), tokio::time::timeout(ASK, link.ask(PeerAsk::Clock)).await) });
    }
    while let Some(Ok((node, answer))) = asking.join_next().await {
        match answer {
            Ok(Ok(_)) => takers.extend(links.acquaintance().heard(node).map(|said| (node, said.origin))),
            Ok(Err(Error::Refused(_))) => drop(takers.remove(&node)),
            Ok(Err(_)) | Err(_) => {}
        }
    }
}

/// Pause between two rounds.
const PAUSE: Duration = Duration::from_millis(250);
/// Longest wait for one founder: a handshake may take two seconds.
const ASK: Duration = Duration::from_secs(3);
