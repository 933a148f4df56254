//! What the replicated state, and the sites that this node hears, say in metrics: read anew for every scrape.

use std::collections::BTreeMap;

use archipelago_cluster::Cluster;
use archipelago_common::{
    SiteId, limits,
    record::{AssignmentState, TaskRecord},
};

use super::metrics::{
    ASSIGNMENTS, CERTIFICATE_END, CERTIFICATE_LEFT_SECONDS, CERTIFICATES_ENDING, EDITION, REFERENCES, REQUESTS_WAITING,
    SITES_CONNECTED, SITES_ENROLLED, SITES_LAST_CONTACT, SITES_SILENT, STATE_BYTES, TASK_DEADLINE_SECONDS,
    TASK_OLDEST_SECONDS, TASKS_OPEN,
};
use crate::contacts::Heard;

/// What is looked at beside the state.
#[derive(Clone, Debug)]
pub struct Around {
    /// What time it is, Unix milliseconds.
    pub now_ms: u64,
    /// The sites that are heard here.
    pub heard: BTreeMap<SiteId, Heard>,
    /// Since when this node leads, if it does.
    pub leads_since_ms: Option<u64>,
    /// Whether names are shown.
    pub names: Names,
}

/// Whether metrics say names of sites, operators and auditors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Names {
    /// They do.
    Shown,
    /// They count, and name nobody.
    Withheld,
}

/// Notes how much the state holds, and how those stand who are in it.
pub fn note(cluster: &Cluster, around: &Around) {
    let counts = cluster.counts();
    TASKS_OPEN.set(counts.open_tasks as i64);
    SITES_ENROLLED.set(counts.sites as i64);
    REFERENCES.set(counts.references as i64);
    STATE_BYTES.set(i64::try_from(cluster.size().0).unwrap_or(i64::MAX));
    REQUESTS_WAITING.set(cluster.n_waiting() as i64);
    EDITION.set(cluster.edition().number().into());
    certificates(cluster, around);
    sites(cluster, around);
    tasks(cluster.open_tasks(), around.now_ms);
}

/// Notes whose certificates end.
fn certificates(cluster: &Cluster, around: &Around) {
    let mut least: BTreeMap<&str, u64> = BTreeMap::new();
    let mut n_ending: BTreeMap<&str, i64> = ROLES.map(|role| (role, 0)).into();
    CERTIFICATE_END.reset();
    for (who, ends_ms) in cluster.ends() {
        let (role, left_ms) = (who.role(), ends_ms.saturating_sub(around.now_ms));
        least.entry(role).and_modify(|least| *least = left_ms.min(*least)).or_insert(left_ms);
        *n_ending.entry(role).or_default() += i64::from(left_ms <= limits::CERTIFICATE_WARNING_MS);
        if around.names == Names::Shown {
            CERTIFICATE_END.with_label_values(&[&who.to_string()]).set(seconds(ends_ms));
        }
    }
    CERTIFICATE_LEFT_SECONDS.reset();
    for (role, left_ms) in least {
        CERTIFICATE_LEFT_SECONDS.with_label_values(&[role]).set(seconds(left_ms));
    }
    for (role, n) in n_ending {
        CERTIFICATES_ENDING.with_label_values(&[role]).set(n);
    }
}

/// Notes which sites are heard.
fn sites(cluster: &Cluster, around: &Around) {
    let heard = Sites::of(cluster, around);
    SITES_CONNECTED.set(heard.n_connected);
    for ((name, _), n) in SILENCES.iter().zip(heard.n_silent) {
        SITES_SILENT.with_label_values(&[name]).set(n);
    }
    SITES_LAST_CONTACT.reset();
    for (site, last_ms) in heard.named {
        SITES_LAST_CONTACT.with_label_values(&[site.as_str()]).set(seconds(last_ms));
    }
}

/// How the sites of the consortium are heard.
#[derive(PartialEq, Eq, Debug)]
struct Sites<'a> {
    n_connected: i64,
    n_silent: [i64; SILENCES.len()],
    /// When each was last heard, where names are shown.
    named: BTreeMap<&'a SiteId, u64>,
}

impl<'a> Sites<'a> {
    /// One that was silent before this node led may have been heard by another: its silence counts from then on.
    fn of(cluster: &'a Cluster, around: &Around) -> Self {
        let mut of = Self { n_connected: 0, n_silent: SILENCES.map(|_| 0), named: BTreeMap::new() };
        for record in cluster.sites().filter(|record| record.revoked_ms.is_none()) {
            let heard = around.heard.get(&record.site);
            of.n_connected += i64::from(heard.is_some_and(|heard| heard.n_sessions > 0));
            if let (Some(heard), Names::Shown) = (heard, around.names) {
                of.named.insert(&record.site, heard.last_ms);
            }
            let Some(leads_since_ms) = around.leads_since_ms else { continue };
            let last_ms = heard.map_or(0, |heard| heard.last_ms).max(record.enrolled_ms).max(leads_since_ms);
            for ((_, longer_than_ms), n) in SILENCES.iter().zip(&mut of.n_silent) {
                *n += i64::from(around.now_ms.saturating_sub(last_ms) > *longer_than_ms);
            }
        }
        of
    }
}

/// Notes how open tasks stand.
fn tasks<'a>(open: impl Iterator<Item = &'a TaskRecord>, now_ms: u64) {
    let mut oldest_ms = now_ms;
    let mut stages: BTreeMap<&str, i64> = STAGES.map(|stage| (stage, 0)).into();
    let mut deadlines: BTreeMap<&str, f64> = RESULTS.map(|results| (results, f64::INFINITY)).into();
    for task in open {
        oldest_ms = oldest_ms.min(task.published_ms);
        let mut results = RESULTS[0];
        for assignment in task.assignments.values() {
            let stage = stage(&assignment.state);
            *stages.entry(stage).or_default() += 1;
            if matches!(assignment.state, AssignmentState::Accepted { .. }) {
                results = RESULTS[1];
            }
        }
        if let Some(deadline_ms) = task.task.deadline_ms {
            let left = deadline_ms.saturating_sub(now_ms) as f64 / 1_000.0;
            deadlines.entry(results).and_modify(|least| *least = least.min(left));
        }
    }
    TASK_OLDEST_SECONDS.set(seconds(now_ms.saturating_sub(oldest_ms)));
    for (stage, n) in stages {
        ASSIGNMENTS.with_label_values(&[stage]).set(n);
    }
    for (results, left) in deadlines {
        TASK_DEADLINE_SECONDS.with_label_values(&[results]).set(left);
    }
}

fn stage(state: &AssignmentState) -> &'static str {
    match state {
        AssignmentState::Assigned => STAGES[0],
        AssignmentState::Lapsed => STAGES[1],
        AssignmentState::GivenUp { .. } => STAGES[2],
        AssignmentState::Accepted { .. } => STAGES[3],
    }
}

fn seconds(ms: u64) -> i64 {
    (ms / 1_000) as i64
}

/// Who has certificates for long.
const ROLES: [&str; 4] = ["coordinator", "site", "operator", "auditor"];
const STAGES: [&str; 4] = ["assigned", "lapsed", "given-up", "accepted"];
const RESULTS: [&str; 2] = ["none", "some"];
/// Silences that are counted.
const SILENCES: [(&str, u64); 3] = [("1h", HOUR_MS), ("1d", 24 * HOUR_MS), ("7d", 7 * 24 * HOUR_MS)];
const HOUR_MS: u64 = 3_600_000;

#[cfg(test)]
#[path = "consortium_tests.rs"]
mod tests;
