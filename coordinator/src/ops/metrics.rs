//! Every Prometheus metric of a coordinator: one static each, and one line in [`register_all`].
//!
//! Metric labels are closed sets: kinds, outcomes, roles, all of them there from the start, so that a rate is right from the
//! first event on. Never a task or a digest; and a name only where the node's configuration has it so (`ops_names`).

use std::sync::LazyLock;

use archipelago_common::health::{HealthRecord, NodeState};
use archipelago_transport::Way;
use prometheus::{
    Encoder as _, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, core::Collector, exponential_buckets,
};

use super::requests;
use crate::quota;

/// What this program is.
pub static BUILD_INFO: LazyLock<IntGaugeVec> =
    LazyLock::new(|| gauges("archipelago_build_info", "1, with this program's version", &["version"]));
/// When this process came up.
pub static STARTED: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("archipelago_started_timestamp_seconds", "When this process came up, Unix time"));
/// The edition of the rules.
pub static EDITION: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("archipelago_cluster_edition", "Edition of the rules by which commands are carried out"));
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
/// The log's file on the disk.
pub static RAFT_LOG_BYTES: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("archipelago_raft_log_bytes", "Bytes that the log's file takes on the disk"));
/// The last snapshot in it.
pub static RAFT_SNAPSHOT_BYTES: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("archipelago_raft_snapshot_bytes", "Bytes of the last snapshot of the replicated state"));
/// Whether anybody leads.
pub static RAFT_HAS_LEADER: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("archipelago_raft_has_leader", "1 if this node knows a leader, itself included, 0 if not"));
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
/// When all blobs were last verified.
pub static BLOB_VERIFIED: LazyLock<IntGauge> = LazyLock::new(|| {
    let name = "archipelago_blob_verified_timestamp_seconds";
    gauge(
        name,
        "When a round of reading all blobs and comparing them with their digests ended, Unix time; 0 before the first",
    )
});
/// Bytes that stay free.
pub static DISK_RESERVE_BYTES: LazyLock<IntGauge> = LazyLock::new(|| {
    gauge("archipelago_disk_reserve_bytes", "Bytes free below which this node takes no blobs and does not lead")
});
/// Free bytes.
pub static DISK_FREE_BYTES: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("archipelago_disk_free_bytes", "Bytes free where this node's data are"));
/// The node's state, one of a closed set.
pub static NODE_STATE: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    gauges("archipelago_node_state", "1 for the state that this node is in, 0 for the others", &["state"])
});
/// Members, by role.
pub static MEMBERS: LazyLock<IntGaugeVec> =
    LazyLock::new(|| gauges("archipelago_raft_members", "Members of the cluster as this node sees it", &["role"]));
/// Refusals of sites at a limit, by limit.
pub static QUOTA_REFUSALS_TOTAL: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counters("archipelago_quota_refusals_total", "Requests and transfers of sites refused at a limit", &["quota"])
});
/// Bytes moved, by direction.
pub static TRANSFER_BYTES_TOTAL: LazyLock<IntCounterVec> = LazyLock::new(|| {
    counters("archipelago_transfer_bytes_total", "Bytes of blobs received (in) and sent (out)", &["direction"])
});
/// Open sessions, by role and by what carries them.
pub static SESSIONS: LazyLock<IntGaugeVec> =
    LazyLock::new(|| gauges("archipelago_sessions", "Open sessions", &["role", "transport"]));
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
    gauges("archipelago_certificates_ending", "Certificates that have ended or end within 30 days", &["role"])
});
/// The least that is left of anybody's, by role.
pub static CERTIFICATE_LEFT_SECONDS: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    gauges("archipelago_certificate_left_seconds", "Until the first certificate of a role ends; 0 after it", &["role"])
});
/// What is left of this node's own.
pub static OWN_CERTIFICATE_LEFT_SECONDS: LazyLock<IntGauge> = LazyLock::new(|| {
    gauge("archipelago_own_certificate_left_seconds", "Until this node's own certificate ends; 0 after it")
});
/// When everybody's ends, by name.
pub static CERTIFICATE_END: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let name = "archipelago_certificate_end_timestamp_seconds";
    gauges(name, "When a certificate ends, Unix time; with `ops_names` only", &["who"])
});
/// Sites that are heard here now.
pub static SITES_CONNECTED: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("archipelago_sites_connected", "Enrolled sites that have a session with this node"));
/// Sites that the leader has not heard for long.
pub static SITES_SILENT: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "Enrolled sites that this node, as leader, has not heard for so long; 0 on the others";
    gauges("archipelago_sites_silent", help, &["longer_than"])
});
/// When each site was last heard here, by name.
pub static SITES_LAST_CONTACT: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let name = "archipelago_sites_last_contact_timestamp_seconds";
    gauges(name, "When a site last said anything to this node, Unix time; with `ops_names` only", &["site"])
});
/// How old the oldest open task is.
pub static TASK_OLDEST_SECONDS: LazyLock<IntGauge> = LazyLock::new(|| {
    gauge("archipelago_task_oldest_open_seconds", "Since the oldest open task was published; 0 without one")
});
/// Until the first deadline of an open task, by whether anything was handed in for it.
pub static TASK_DEADLINE_SECONDS: LazyLock<GaugeVec> = LazyLock::new(|| {
    let help =
        "Until the first deadline of an open task for which some or no results were accepted; infinite without one";
    let opts = Opts::new("archipelago_task_deadline_seconds", help);
    GaugeVec::new(opts, &["results"]).expect("a well-formed metric")
});
/// Where the assignments of open tasks stand.
pub static ASSIGNMENTS: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "Sites that claimed an open task, once for each, by where they stand";
    gauges("archipelago_assignments", help, &["stage"])
});

static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::new);

/// Every metric.
fn all() -> Vec<Box<dyn Collector>> {
    vec![
        Box::new(BUILD_INFO.clone()),
        Box::new(STARTED.clone()),
        Box::new(EDITION.clone()),
        Box::new(RAFT_IS_LEADER.clone()),
        Box::new(RAFT_TERM.clone()),
        Box::new(RAFT_APPLIED_INDEX.clone()),
        Box::new(RAFT_COMMITTED_INDEX.clone()),
        Box::new(RAFT_LOG_ENTRIES.clone()),
        Box::new(RAFT_LOG_BYTES.clone()),
        Box::new(RAFT_SNAPSHOT_BYTES.clone()),
        Box::new(RAFT_HAS_LEADER.clone()),
        Box::new(RAFT_COMMIT_SECONDS.clone()),
        Box::new(BLOB_OBJECTS.clone()),
        Box::new(BLOB_BYTES.clone()),
        Box::new(BLOB_RECLAIMED_BYTES_TOTAL.clone()),
        Box::new(BLOB_DAMAGED_TOTAL.clone()),
        Box::new(BLOB_MISSING.clone()),
        Box::new(BLOB_VERIFIED.clone()),
        Box::new(DISK_RESERVE_BYTES.clone()),
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
        Box::new(OWN_CERTIFICATE_LEFT_SECONDS.clone()),
        Box::new(CERTIFICATE_END.clone()),
        Box::new(SITES_CONNECTED.clone()),
        Box::new(SITES_SILENT.clone()),
        Box::new(SITES_LAST_CONTACT.clone()),
        Box::new(TASK_OLDEST_SECONDS.clone()),
        Box::new(TASK_DEADLINE_SECONDS.clone()),
        Box::new(ASSIGNMENTS.clone()),
    ]
}

/// Registers every metric, and begins every series whose labels are known, so that those which nothing has touched yet are
/// shown too. Call it as often as you like.
pub fn register_all() {
    for collector in all() {
        // A second registration is refused and changes nothing.
        let _ = REGISTRY.register(collector);
    }
    begin_series();
}

fn begin_series() {
    BUILD_INFO.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    for state in NodeState::ALL {
        NODE_STATE.with_label_values(&[state.name()]);
    }
    for role in ["voter", "learner"] {
        MEMBERS.with_label_values(&[role]);
    }
    for quota in quota::NAMES {
        QUOTA_REFUSALS_TOTAL.with_label_values(&[quota]);
    }
    for direction in ["in", "out"] {
        TRANSFER_BYTES_TOTAL.with_label_values(&[direction]);
    }
    for role in SESSION_ROLES {
        for way in [Way::Quic, Way::Tcp] {
            SESSIONS.with_label_values(&[role, way.as_str()]);
        }
    }
    for kind in requests::KINDS {
        for outcome in requests::OUTCOMES {
            REQUESTS_TOTAL.with_label_values(&[kind, outcome]);
        }
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
    DISK_RESERVE_BYTES.set(i64::try_from(record.disk_reserve_bytes).unwrap_or(i64::MAX));
    BLOB_VERIFIED.set(record.verified_ms.map_or(0, |at_ms| (at_ms / 1_000) as i64));
    DISK_FREE_BYTES.set(record.disk_free_bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)));
}

/// Who may hold a session.
const SESSION_ROLES: [&str; 5] = ["coordinator", "site", "operator", "auditor", "invited"];

fn gauge(name: &str, help: &str) -> IntGauge {
    IntGauge::new(name, help).expect("a well-formed metric")
}

fn gauges(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    IntGaugeVec::new(Opts::new(name, help), labels).expect("a well-formed metric")
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
    #[test]
    fn labelled_series_are_there_before_anything_happened() {
        register_all();
        let text = String::from_utf8(render()).unwrap();
        for series in [
            r#"requests_total{kind="submit",outcome="invalid"}"#,
            r#"quota_refusals_total{quota="stored_bytes"}"#,
            r#"sessions{role="site",transport="tcp"}"#,
            r#"transfer_bytes_total{direction="out"}"#,
            r#"node_state{state="disk-full"}"#,
        ] {
            assert!(text.contains(&format!("archipelago_{series}")), "{series}");
        }
    }

    #[test]
    fn the_documentation_lists_every_metric() {
        const BEGIN: &str = "<!-- made by a test: metrics of a coordinator -->\n";
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/monitoring.md");
        let page = std::fs::read_to_string(path).unwrap();
        let (before, rest) = page.split_once(BEGIN).expect("the page has a place for the table");
        let (found, after) = rest.split_once("<!-- end -->").expect("and an end of it");
        let mut table = "| Metric | Labels | Says |\n|---|---|---|\n".to_owned();
        for desc in all().iter().flat_map(|collector| collector.desc()) {
            table += &format!("| `{}` | {} | {} |\n", desc.fq_name, desc.variable_labels.join(", "), desc.help);
        }
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, format!("{before}{BEGIN}{table}<!-- end -->{after}")).unwrap();
        } else {
            assert!(found == table, "docs/monitoring.md lists other metrics; `UPDATE=1` renews it");
        }
    }
}
