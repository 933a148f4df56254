//! Who may come in.
//!
//! A node that is behind, as one that was started a moment ago, does not know who was let in meanwhile, and whoever is refused for good
//! goes away for good. So a refusal is the cluster's: the leader confirms that it leads, and another node waits for what it may lack.

use std::time::Duration;

use archipelago_cluster::{Cluster, Refusal};
use archipelago_common::{Fingerprint, Principal};
use tokio::time::{Instant, timeout_at};

use super::Executor;

/// What becomes of a peer.
pub(super) enum Admission {
    /// It may be here.
    Granted,
    /// It may not.
    Refused(Refusal),
    /// Nobody can tell at the moment.
    Unknown,
}

/// Whether a peer with this key may be here.
pub(super) async fn decide(who: &Principal, key: Option<Fingerprint>, executor: &Executor) -> Admission {
    let raft = executor.raft();
    let look = || {
        let who = who.clone();
        move |cluster: &Cluster| {
            let found = cluster.admit(&who).and_then(|()| key.map_or(Ok(()), |key| cluster.recognise_key(&who, key)));
            found.map_err(|refusal| (refusal, cluster.is_shut_out(&who, key)))
        }
    };
    let (mut view, until) = (raft.watch(), Instant::now() + CATCHING_UP);
    loop {
        let leads = view.borrow_and_update().is_leader();
        let refusal = match raft.peek(look()).await {
            Ok(Err((refusal, is_final))) if is_final => return Admission::Refused(refusal),
            Ok(Err((refusal, _))) => refusal,
            // A node too busy to look lets the peer in: every command is checked again where it is applied.
            Ok(Ok(())) | Err(_) => return Admission::Granted,
        };
        if leads {
            match timeout_at(until, raft.read(look())).await {
                Ok(Ok(Ok(()))) => return Admission::Granted,
                Ok(Ok(Err((refusal, _)))) => return Admission::Refused(refusal),
                // It does not lead any more, or cannot show that it does.
                Ok(Err(_)) => {}
                Err(_) => return Admission::Unknown,
            }
        }
        // Until something is applied, or somebody else leads.
        match timeout_at(until, view.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Admission::Unknown,
            Err(_) if !leads && view.borrow().leader.is_some() => return Admission::Refused(refusal),
            Err(_) => return Admission::Unknown,
        }
    }
}

/// Longer than an election, and than it takes a follower to hear of the leader's last entry. A peer that waits less comes again, and waits
/// longer then.
const CATCHING_UP: Duration = Duration::from_millis(1_500);
