//! Which sites are heard, and what is said of them.

use archipelago_cluster::{Body, Command};
use archipelago_common::Principal;

use super::*;

const ENROLLED_MS: u64 = 1_000_000;

fn cluster_of(sites: &[&str]) -> Cluster {
    let mut cluster = Cluster::founded();
    let anna: Principal = "operator/anna".parse().unwrap();
    for (n, site) in sites.iter().enumerate() {
        let body = Body::AddSite { site: site.parse().unwrap() };
        let command = Command { now_ms: ENROLLED_MS, principal: anna.clone(), key: [n as u8; 16], body };
        cluster.apply(&command).outcome.unwrap();
    }
    cluster
}

#[test]
fn silent_sites_are_counted_by_who_leads_and_named_only_on_request() {
    let cluster = cluster_of(&["north", "south", "west"]);
    let now_ms = ENROLLED_MS + 3 * 24 * HOUR_MS;
    let heard = |n_sessions, last_ms| Heard { n_sessions, since_ms: last_ms, last_ms };
    let heard = BTreeMap::from([
        ("north".parse().unwrap(), heard(1, now_ms - 1_000)),
        ("south".parse().unwrap(), heard(0, now_ms - 2 * HOUR_MS)),
        ("stranger".parse().unwrap(), heard(1, now_ms)),
    ]);
    let around = Around { now_ms, heard, leads_since_ms: Some(ENROLLED_MS), names: Names::Withheld };
    // South for two hours; west, which never came, for three days.
    let counted = Sites { n_connected: 1, n_silent: [2, 1, 0], named: BTreeMap::new() };
    assert_eq!(Sites::of(&cluster, &around), counted);

    let new_leader = Around { leads_since_ms: Some(now_ms - 1_000), ..around.clone() };
    assert_eq!(Sites::of(&cluster, &new_leader).n_silent, [0, 0, 0], "who has just come to lead cannot know");
    let follower = Around { leads_since_ms: None, names: Names::Shown, ..around };
    let found = Sites::of(&cluster, &follower);
    assert_eq!(found.n_silent, [0, 0, 0]);
    let named: Vec<_> = found.named.iter().map(|(site, last_ms)| (site.as_str(), now_ms - last_ms)).collect();
    assert_eq!(named, [("north", 1_000), ("south", 2 * HOUR_MS)]);
}
