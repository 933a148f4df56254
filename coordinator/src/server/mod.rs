//! What peers reach: connections, sessions, requests; and [`serve`], which puts a whole node together.

pub mod accept;
mod admission;
mod answers;
mod certificates;
pub mod checks;
pub mod compare;
pub mod course;
pub mod deadlines;
pub mod disk;
pub mod enrolment;
mod executor;
mod founding;
mod greeting;
mod guests;
pub mod http;
mod membership;
mod peer;
mod proposals;
pub mod refusal;
mod session;
#[cfg(test)]
pub(crate) mod test_cluster;
pub mod ticker;
pub mod timekeeper;
pub mod transfer;

use std::{sync::Arc, time::Duration};

use archipelago_common::{Principal, fs};
use archipelago_transport::{
    CredentialFiles, Credentials, Transport as _,
    net::{NetTransport, Network},
};
use tokio::task::JoinSet;

pub use deadlines::Deadlines;
pub use executor::Executor;

use crate::{
    blob::{BlobStore, erase, gc, replicate::Replicas, verify},
    condition::Condition,
    config::NodeConfig,
    error::{Error, Result},
    links::{self, Links},
    ops::consortium::Names,
    quota::Quotas,
    raft::{
        log_store::LogStore,
        node::{Node, Options},
        peers::Peers,
        room,
        task::Raft,
    },
};

/// Runs a node until `shutdown` completes. A leader hands over first, so that the others need no election.
///
/// # Errors  whatever keeps the node from starting, or ends a part of it that it cannot do without
pub async fn serve(config: NodeConfig, shutdown: impl Future<Output = ()>) -> Result<()> {
    let files = CredentialFiles {
        authority: config.ca.clone(),
        certificate: config.certificate.clone(),
        key: config.key.clone(),
    };
    let credentials = files.load()?;
    require_own_certificate(&config, &credentials)?;
    if config.data_dir.is_dir() {
        // An earlier build, or a copy of its data, may have left them open to others.
        fs::create_private_dir(&config.data_dir)?;
    }
    let condition = Condition::new(config.storage.reserve_bytes);
    let space = disk::space_of(config.data_dir.clone());
    condition.note_free(space().ok());
    let store = BlobStore::open(&config.blob_dir(), condition.clone())?;
    let (path, node) = (config.log_path(), config.node);
    let log_path = path.clone();
    let open = {
        let path = path.clone();
        move || Node::new(node, LogStore::open(&path, node)?, Options::default())
    };
    let (raft, task) = Raft::start(node, Box::new(open), Box::new(move || room::around(&log_path)), condition)?;
    let network = Network::of_coordinator(config.transport)
        .map_err(|detail| Error::Config { place: "`transport`".to_owned(), detail })?;
    let mut listener =
        NetTransport::new(credentials.clone(), network.clone()).listen(&config.listen.to_string()).await?;
    let ops = match config.ops {
        Some(address) => Some(http::listen(&address.to_string()).await?),
        None => None,
    };

    let founders = config.peers.0;
    let transport = Arc::new(NetTransport::with_timing(credentials.clone(), links::TIMING, network));
    let links = Links::new(config.node, transport, &founders);
    let replicas = Replicas::new(store.clone(), links.clone(), raft.clone());
    let executor = Executor::new(raft.clone(), replicas.clone(), Quotas::new(config.quotas));
    executor.begin_to_greet();
    let ops_address = ops.as_ref().and_then(|ops| ops.local_addr().ok()).map(|address| address.to_string());
    tracing::info!(node = config.node.as_u64(), listen = listener.address(), ops = ops_address, "serving");

    // Dropped, and so ended, with this function.
    let mut parts = JoinSet::new();
    let peers = Peers::new(&links, &raft);
    parts.spawn(async move { ("consensus", task.run(peers).await) });
    parts.spawn(ended("the watch on the disk", disk::watch(executor.clone(), space, path)));
    parts.spawn(ended("members", membership::run(executor.clone(), founders)));
    parts.spawn(ended("the founding of a new cluster", founding::run(executor.clone())));
    parts.spawn(ended("the acquaintance of members", greeting::run(executor.clone())));
    parts.spawn(ended("the collection of blobs", gc::run(replicas.clone())));
    parts.spawn(ended("the verification of blobs", verify::run(replicas.clone())));
    parts.spawn(ended("the deletion of what was erased", erase::run(replicas.clone())));
    parts.spawn(ended("blob replication", replicas.keep_complete()));
    parts.spawn(ended("the agreement on time", timekeeper::run(executor.clone())));
    let comparing = executor.clone();
    parts.spawn(async move { ("the comparison of states", compare::run(&comparing).await) });
    parts.spawn(ended("the watch on certificates", certificates::run(executor.clone(), credentials.clone())));
    parts.spawn(ended("the use of new certificates", certificates::follow(executor.clone(), credentials.clone())));
    parts.spawn(ended("the watch on credential files", files.keep(credentials)));
    parts.spawn(ended("the clock of leases", ticker::run(executor.clone())));
    if let Some(ops) = ops {
        let names = if config.ops_names { Names::Shown } else { Names::Withheld };
        parts.spawn(ended("metrics and health", http::run(ops, executor.clone(), names)));
    }

    tokio::select! {
        () = accept::run(&mut listener, executor, Deadlines::default()) => Err(Error::Ended { part: "the listener" }),
        Some(part) = parts.join_next() => Err(match part {
            Ok((_, Err(error))) => error,
            Ok((part, Ok(()))) => Error::Ended { part },
            Err(_) => Error::Ended { part: "a part that failed unexpectedly" },
        }),
        () = shutdown => {
            tracing::info!("stopping");
            if raft.view().is_leader() {
                raft.hand_over(None, HAND_OVER).await;
            }
            listener.close("the coordinator stops").await;
            Ok(())
        }
    }
}

async fn ended(part: &'static str, run: impl Future<Output = ()>) -> (&'static str, Result<()>) {
    run.await;
    (part, Ok(()))
}

/// A node with another's certificate would be refused by every peer, one by one and without a word here.
fn require_own_certificate(config: &NodeConfig, credentials: &Credentials) -> Result<()> {
    let (found, expected) = (&credentials.identity().principal, Principal::Coordinator(config.node));
    if *found == expected {
        return Ok(());
    }
    let place = format!("certificate `{}`", config.certificate.display());
    Err(Error::Config { place, detail: format!("it is for `{found}`, expected `{expected}`") })
}

/// Longest wait for a successor; without one the others elect a leader when this one is silent.
const HAND_OVER: Duration = Duration::from_secs(2);

#[cfg(test)]
#[path = "upkeep_tests.rs"]
mod upkeep_tests;
