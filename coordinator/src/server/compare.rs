//! Whether coordinators that have carried out the same commands have come to the same. Where two have not, a disk, a memory or
//! a program is wrong, and nobody can say which but by counting: a node that a majority of the voters contradicts stops.

use std::{collections::BTreeMap, time::Duration};

use archipelago_cluster::{
    Cluster, Edition,
    mutation::{self, Rule},
};
use archipelago_common::Digest;
use archipelago_protocol::message::{PeerAsk, PeerReply};
use tokio::task::JoinSet;

use super::Executor;
use crate::{
    error::{Error, Result},
    ops::metrics,
};

/// Compares for as long as the node runs.
///
/// # Errors  [`Error::Diverged`]: this node is the one that is wrong
pub(super) async fn run(executor: &Executor) -> Result<()> {
    loop {
        tokio::time::sleep(EVERY).await;
        compare(executor).await?;
    }
}

/// Compares once.
///
/// # Errors  as [`run`]
pub(super) async fn compare(executor: &Executor) -> Result<()> {
    let look = |cluster: &Cluster| (cluster.edition() >= Edition::Third).then(|| cluster.marks());
    let Ok(Some(own)) = executor.raft().peek(look).await else { return Ok(()) };
    let voters = executor.raft().view().configuration.voters;
    let mut asking = JoinSet::new();
    for link in executor.replicas().links().all().into_iter().filter(|link| voters.contains(&link.node())) {
        asking.spawn(async move {
            let marks = tokio::time::timeout(ASK, link.ask(PeerAsk::Marks)).await;
            (link.node(), marks)
        });
    }
    let mut differences = Vec::new();
    while let Some(answer) = asking.join_next().await {
        let Ok((node, Ok(Ok(PeerReply::Marks(theirs))))) = answer else { continue };
        if let Some(length) = difference(&own, &theirs) {
            tracing::error!(%node, length, "another coordinator holds another state than this node");
            differences.push(length);
        }
    }
    metrics::STATE_DIFFERS.set(differences.len() as i64);
    match is_outvoted(differences.len(), voters.len()) {
        true => Err(Error::Diverged {
            length: differences.iter().copied().min().unwrap_or_default(),
            n_others: differences.len(),
        }),
        false => Ok(()),
    }
}

/// Whether a node that so many voters contradict is the one that is wrong, and must stop.
pub fn is_outvoted(n_contradict: usize, n_voters: usize) -> bool {
    n_contradict > n_voters / 2 && !mutation::is_broken(Rule::MinorityStops)
}

/// The first moment that both know and at which they differ.
pub fn difference(own: &[(u64, Digest)], theirs: &[(u64, Digest)]) -> Option<u64> {
    let own: BTreeMap<_, _> = own.iter().copied().collect();
    let differs = |(length, digest): &&(u64, Digest)| own.get(length).is_some_and(|own| own != digest);
    theirs.iter().find(differs).map(|(length, _)| *length)
}

/// Pause between two comparisons.
const EVERY: Duration = Duration::from_secs(5);
/// Longest wait for another coordinator's word.
const ASK: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use archipelago_cluster::{Body, Command};
    use archipelago_common::member::Origin;

    use super::*;
    use crate::{
        raft::{
            log_store::{Beginning, LogStore},
            node::Options,
        },
        server::test_cluster::{TestCluster, wait_until},
    };

    #[test]
    fn what_only_one_knows_does_not_count() {
        let mark = |length, what: &[u8]| (length, Digest::of(what));
        assert_eq!(difference(&[mark(64, b"a"), mark(128, b"b")], &[mark(64, b"a"), mark(192, b"x")]), None);
        assert_eq!(difference(&[mark(64, b"a"), mark(128, b"b")], &[mark(64, b"a"), mark(128, b"x")]), Some(128));
        assert_eq!(difference(&[], &[mark(64, b"a")]), None);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_node_whose_state_is_another_is_told_apart_by_the_majority_and_stops() {
        let cluster = TestCluster::new(3, Options::default());
        // As if its memory had spoilt one: it begins with something that the others do not have.
        let mut spoilt = Cluster::founded();
        let (principal, body) = ("operator/anna".parse().unwrap(), Body::AddSite { site: "ghost".parse().unwrap() });
        spoilt.apply(&Command { key: [9; 16], principal, now_ms: 1, body }).outcome.unwrap();
        let odd = archipelago_common::NodeId::new(3).unwrap();
        std::fs::create_dir_all(cluster.home(odd)).unwrap();
        let voters = (1..=3).map(|id| archipelago_common::NodeId::new(id).unwrap()).collect();
        let beginning = Beginning { voters, origin: Origin::Unknown, state: spoilt.snapshot().unwrap() };
        LogStore::create(&cluster.home(odd).join("log.redb"), odd, &beginning).unwrap();
        let nodes = [cluster.start(1).await, cluster.start(2).await, cluster.start(3).await];
        wait_until("a leader that all know", || nodes.iter().all(|n| n.executor.raft().view().leader.is_some())).await;
        let leads = |node: &&crate::server::test_cluster::LiveNode| node.executor.raft().view().is_leader();
        let n_marks = async |node: &crate::server::test_cluster::LiveNode| {
            node.executor.raft().peek(|cluster: &Cluster| cluster.marks().len()).await.unwrap()
        };
        let mut number = 0_u64;
        while n_marks(&nodes[0]).await < 3 || n_marks(&nodes[2]).await < 3 {
            let Some(leader) = nodes.iter().find(leads) else { continue };
            number += 1;
            let site = format!("site{number}").parse().unwrap();
            let key = archipelago_protocol::message::RequestKey(rand::random());
            let who = std::sync::Arc::new("operator/anna".parse::<archipelago_common::Principal>().unwrap());
            let _ = leader.executor.execute(who, key, archipelago_protocol::message::Request::AddSite { site }).await;
        }
        wait_until("all have greeted", || nodes.iter().all(|node| node.executor.replicas().links().all().len() == 2))
            .await;
        assert!(compare(&nodes[0].executor).await.is_ok(), "one of two contradicts it");
        let error = compare(&nodes[2].executor).await.unwrap_err();
        assert!(matches!(error, Error::Diverged { n_others: 2, .. }), "{error}");
    }
}
