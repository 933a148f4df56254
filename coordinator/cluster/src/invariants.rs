//! What is true of the state after every command. Tests and the simulation check it; so does a restored snapshot.

use crate::Cluster;

/// Checks every invariant.
///
/// # Errors  the first one that is broken, in words
pub fn check(cluster: &Cluster) -> Result<(), String> {
    CHECKS.iter().try_for_each(|check| check(cluster))
}

const CHECKS: &[fn(&Cluster) -> Result<(), String>] = &[requests_agree];

/// A key that is remembered has its place in the order of forgetting; else memory would grow, or answers be lost.
fn requests_agree(cluster: &Cluster) -> Result<(), String> {
    if cluster.requests.is_consistent() {
        Ok(())
    } else {
        Err("remembered requests disagree with their order".to_owned())
    }
}
