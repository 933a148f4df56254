//! How many connections one identity has. One too many ends the oldest: whoever lost its connections without our hearing of
//! it comes back at once, and whoever opens more and more only ends its own.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
};

use archipelago_common::Principal;
use archipelago_transport::Connection;

/// The connections there are, by identity. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Guests(Arc<Mutex<Seats>>);

#[derive(Default)]
struct Seats {
    by_identity: BTreeMap<Principal, VecDeque<(u64, Connection)>>,
    n_seated: u64,
}

/// A connection that counts until this is dropped.
pub(super) struct Place {
    guests: Guests,
    who: Principal,
    number: u64,
}

impl Guests {
    /// Takes a connection in.
    pub(super) fn seat(&self, connection: &Connection) -> Place {
        let who = connection.peer().principal.clone();
        let mut seats = self.0.lock().unwrap_or_else(|e| e.into_inner());
        seats.n_seated += 1;
        let number = seats.n_seated;
        let seated = seats.by_identity.entry(who.clone()).or_default();
        seated.push_back((number, connection.clone()));
        if seated.len() > CONNECTIONS
            && let Some((_, oldest)) = seated.pop_front()
        {
            tracing::info!(%who, remote = oldest.remote(), "the oldest of too many connections is ended");
            oldest.close(&format!("an identity has {CONNECTIONS} connections at most"));
        }
        Place { guests: self.clone(), who, number }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut seats = self.guests.0.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(seated) = seats.by_identity.get_mut(&self.who) {
            seated.retain(|(number, _)| *number != self.number);
            if seated.is_empty() {
                seats.by_identity.remove(&self.who);
            }
        }
    }
}

/// Connections of one identity: a site's workers have one each, a person's commands one after another.
const CONNECTIONS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::test_cluster::TestCluster;

    #[tokio::test(flavor = "multi_thread")]
    async fn one_too_many_ends_the_oldest_of_the_same_identity_and_nobody_elses() {
        let (cluster, node) = TestCluster::single().await;
        let id = node.executor.raft().view().node;
        let address = cluster.addresses()[&id].clone();
        let other = cluster.transport("auditor/eve").dial(&address, id).await.unwrap();
        let transport = cluster.transport("operator/anna");
        let mut all = Vec::new();
        for _ in 0..=CONNECTIONS {
            all.push(transport.dial(&address, id).await.unwrap());
        }
        assert!(all[0].closed().await.to_string().contains("at most"));
        let is_open = async |connection: &Connection| {
            tokio::time::timeout(std::time::Duration::from_millis(200), connection.closed()).await.is_err()
        };
        assert!(is_open(&all[1]).await && is_open(&other).await);
        drop(all.remove(1));
        all.push(transport.dial(&address, id).await.unwrap());
        assert!(is_open(&all[1]).await, "a connection that has ended does not count");
    }
}
