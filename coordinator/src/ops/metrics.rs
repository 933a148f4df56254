//! Every Prometheus metric of a coordinator: one static each, and one line in [`register_all`].
//!
//! Metric labels are closed sets: kinds, outcomes, roles. Never a task, a digest or a name.

use std::{collections::BTreeMap, sync::LazyLock};

use archipelago_cluster::Cluster;
use archipelago_common::{
    health::{HealthRecord, NodeState},
    limits,
};
use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, core::Collector, exponential_buckets,
};

/// 1 on the leader, 0 elsewhere.
pub static RAFT_IS_LEADER: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("archipelago_raft_is_leader", "1 on the leader, 0 elsewhere"));
/// Raft term.
pub static RAFT_TERM: LazyLock<IntGauge> = LazyLock::new(|| gauge("archipelago_raft_term", "Raft term"));
/// Last applied index.
pub static RAFT_APPLIED_INDEX: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("archipelago_raft_applied_index", "Last log entry applied"));
/// Last committed index.
pub static RAFT_COMMITTED_INDEX: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("archipelago_raft_committed_index", "Last log entry known to be committed"));
/// Length of the log.
pub static RAFT_LOG_ENTRIES: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("archipelago_raft_log_entries", "Entries in the log since it was last cut"));
/// From proposal to answer.
pub static RAFT_COMMIT_SECONDS: LazyLock<Histogram> =
    LazyLock::new(|| histogram("archipelago_raft_commit_seconds", "Time from a proposal to its answer"));
/// Number of blobs.
pub static BLOB_OBJECTS: LazyLock<IntGauge> = LazyLock::new(|| gauge("archipelago_blob_objects", "Blobs on this node"));
/// Bytes of blobs.
pub static BLOB_BYTES: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("archipelago_blob_bytes", "Bytes of the blobs on this node"));
/// Bytes of blobs that nothing referred to.
pub static BLOB_RECLAIMED_BYTES_TOTAL: LazyLock<IntCounter> = LazyLock::new(|| {
    counter("archipelago_blob_reclaimed_bytes_total", "Bytes of unreferenced blobs that were removed")
});
/// Blobs that were not what their digest says.
pub static BLOB_DAMAGED_TOTAL: LazyLock<IntCounter> =
    LazyLock::new(|| counter("archipelago_blob_damaged_total", "Blobs found damaged on this node's disk"));
/// Blobs that the state names and this node lacks.
pub static BLOB_MISSING: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("archipelago_blob_missing", "Blobs that the replicated state names and this node lacks"));
/// Free bytes.
pub static DISK_FREE_BYTES: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("archipelago_disk_free_bytes", "Bytes free where this node's data are"));
/// The node's state, one of a closed set.
pub static NODE_STATE: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let opts = Opts::new("archipelago_node_state", "1 for the state that this node is in, 0 for the others");
    IntGaugeVec::new(opts, &["state"]).expect("a well-formed metric")
});
/// Members, by role.
pub static MEMBERS: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let opts = Opts::new("archipelago_raft_members", "Members of the cluster as this node sees it");
    IntGaugeVec::new(opts, &["role"]).expect("a well-formed metric")
});
/// Refusals of sites at a limit, by limit.
pub static QUOTA_REFUSALS_TOTAL: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counters("archipelago_quota_refusals_total", "Requests and transfers of sites refused at a limit", &["quota"])
});
/// Bytes moved, by direction.
pub static TRANSFER_BYTES_TOTAL: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counters("archipelago_transfer_bytes_total", "Bytes of blobs received (in) and sent (out)", &["direction"])
});
/// Open sessions, by role and by what carries them.
pub static SESSIONS: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let opts = Opts::new("archipelago_sessions", "Open sessions");
    IntGaugeVec::new(opts, &["role", "transport"]).expect("a well-formed metric")
});
/// Requests, by kind and outcome.
pub static REQUESTS_TOTAL: LazyLock<IntCounterVec> =
    LazyLock::new(|| counters("archipelago_requests_total", "Requests answered", &["kind", "outcome"]));
/// From request to answer.
pub static REQUEST_SECONDS: LazyLock<Histogram> =
    LazyLock::new(|| histogram("archipelago_request_seconds", "Time from a request to its answer"));
/// Coordinators that hold another state.
pub static STATE_DIFFERS: LazyLock<IntGauge> = LazyLock::new(|| {
    gauge("archipelago_state_differs", "Coordinators that came to another state than this node, from the same commands")
});
/// Open tasks.
pub static TASKS_OPEN: LazyLock<IntGauge> = LazyLock::new(|| gauge("archipelago_tasks_open", "Open surgery tasks"));
/// Enrolled sites.
pub static SITES_ENROLLED: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("archipelago_sites_enrolled", "Enrolled sites that are not revoked"));
/// References.
pub static REFERENCES: LazyLock<IntGauge> = LazyLock::new(|| gauge("archipelago_references", "Published references"));
/// Bytes of the replicated state.
pub static STATE_BYTES: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("archipelago_state_bytes", "Bytes that the replicated state was said to take as it grew"));
/// Submissions accepted by this node as leader.
pub static SUBMISSIONS_ACCEPTED_TOTAL: LazyLock<IntCounter> = LazyLock::new(|| {
    let name = "archipelago_submissions_accepted_total";
    IntCounter::new(name, "Submissions accepted through this node").expect("a well-formed metric")
});

/// Requests to be let in.
pub static REQUESTS_WAITING: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("archipelago_enrolment_requests", "Sites that wait for an operator to let them in"));
/// Certificates that end within 30 days, by role.
pub static CERTIFICATES_ENDING: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let opts = Opts::new("archipelago_certificates_ending", "Whose certificate has ended or ends within 30 days");
    IntGaugeVec::new(opts, &["role"]).expect("a well-formed metric")
});
/// The least that is left of anybody's, by role.
pub static CERTIFICATE_LEFT_SECONDS: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let opts =
        Opts::new("archipelago_certificate_left_seconds", "Until the first certificate of a role ends; 0 after it");
    IntGaugeVec::new(opts, &["role"]).expect("a well-formed metric")
});

/// Who has certificates for long.
const ROLES: [&str; 4] = ["coordinator", "site", "operator", "auditor"];

static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::new);

/// Registers every metric, so that those which nothing has touched yet are shown too. Call it once.
pub fn register_all() {
    let collectors: [Box<dyn Collector>; 28] = [
        Box::new(RAFT_IS_LEADER.clone()),
        Box::new(RAFT_TERM.clone()),
        Box::new(RAFT_APPLIED_INDEX.clone()),
        Box::new(RAFT_COMMITTED_INDEX.clone()),
        Box::new(RAFT_LOG_ENTRIES.clone()),
        Box::new(RAFT_COMMIT_SECONDS.clone()),
        Box::new(BLOB_OBJECTS.clone()),
        Box::new(BLOB_BYTES.clone()),
        Box::new(BLOB_RECLAIMED_BYTES_TOTAL.clone()),
        Box::new(BLOB_DAMAGED_TOTAL.clone()),
        Box::new(BLOB_MISSING.clone()),
        Box::new(DISK_FREE_BYTES.clone()),
        Box::new(NODE_STATE.clone()),
        Box::new(MEMBERS.clone()),
        Box::new(QUOTA_REFUSALS_TOTAL.clone()),
        Box::new(TRANSFER_BYTES_TOTAL.clone()),
        Box::new(SESSIONS.clone()),
        Box::new(REQUESTS_TOTAL.clone()),
        Box::new(REQUEST_SECONDS.clone()),
        Box::new(STATE_DIFFERS.clone()),
        Box::new(TASKS_OPEN.clone()),
        Box::new(SITES_ENROLLED.clone()),
        Box::new(REFERENCES.clone()),
        Box::new(STATE_BYTES.clone()),
        Box::new(SUBMISSIONS_ACCEPTED_TOTAL.clone()),
        Box::new(REQUESTS_WAITING.clone()),
        Box::new(CERTIFICATES_ENDING.clone()),
        Box::new(CERTIFICATE_LEFT_SECONDS.clone()),
    ];
    for collector in collectors {
        // A second registration is refused and changes nothing.
        let _ = REGISTRY.register(collector);
    }
}

/// All metrics in the text format.
pub fn render() -> Vec<u8> {
    let mut text = Vec::new();
    // Writing to memory cannot fail.
    let _ = TextEncoder::new().encode(&REGISTRY.gather(), &mut text);
    text
}

/// Notes how the node is.
pub fn condition(record: &HealthRecord) {
    for state in NodeState::ALL {
        NODE_STATE.with_label_values(&[state.name()]).set((state == record.state).into());
    }
    BLOB_MISSING.set(record.blobs_missing as i64);
    DISK_FREE_BYTES.set(record.disk_free_bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)));
}

/// Notes how much the state holds.
pub fn cluster(cluster: &Cluster) {
    let counts = cluster.counts();
    TASKS_OPEN.set(counts.open_tasks as i64);
    SITES_ENROLLED.set(counts.sites as i64);
    REFERENCES.set(counts.references as i64);
    STATE_BYTES.set(i64::try_from(cluster.size().0).unwrap_or(i64::MAX));
    REQUESTS_WAITING.set(cluster.n_waiting() as i64);
    certificates(cluster, cluster.now_ms());
}

/// Notes whose certificates end, by role: names are no metric labels.
fn certificates(cluster: &Cluster, now_ms: u64) {
    let mut least: BTreeMap<&str, u64> = BTreeMap::new();
    let mut n_ending: BTreeMap<&str, i64> = ROLES.map(|role| (role, 0)).into();
    for (who, ends_ms) in cluster.ends() {
        let (role, left_ms) = (who.role(), ends_ms.saturating_sub(now_ms));
        least.entry(role).and_modify(|least| *least = left_ms.min(*least)).or_insert(left_ms);
        *n_ending.entry(role).or_default() += i64::from(left_ms <= limits::CERTIFICATE_WARNING_MS);
    }
    CERTIFICATE_LEFT_SECONDS.reset();
    for (role, left_ms) in least {
        CERTIFICATE_LEFT_SECONDS.with_label_values(&[role]).set(i64::try_from(left_ms / 1_000).unwrap_or(i64::MAX));
    }
    for (role, n) in n_ending {
        CERTIFICATES_ENDING.with_label_values(&[role]).set(n);
    }
}

fn gauge(name: &str, help: &str) -> IntGauge {
    IntGauge::new(name, help).expect("a well-formed metric")
}

fn counter(name: &str, help: &str) -> IntCounter {
    IntCounter::new(name, help).expect("a well-formed metric")
}

fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect("a well-formed metric")
}

fn histogram(name: &str, help: &str) -> Histogram {
    // From half a millisecond, an fsync on a fast disk, to 16 s, an election and more.
    let buckets = exponential_buckets(0.0005, 2.0, 16).expect("well-formed buckets");
    Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)).expect("a well-formed metric")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_shown_from_the_start() {
        register_all();
        register_all();
        RAFT_TERM.set(7);
        let text = String::from_utf8(render()).unwrap();
        assert!(text.contains("archipelago_raft_term 7"), "{text}");
        assert!(text.contains("archipelago_raft_commit_seconds_bucket"), "{text}");
    }
}
