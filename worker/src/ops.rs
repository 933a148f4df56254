//! What a running worker tells a site's own monitoring: Prometheus metrics and two health answers.
//!
//! The port is the site's: it is off unless the configuration names an address, and nothing here reaches the coordinators.
//! No metric carries a task, a condition or any value of the data.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use archipelago_client::{Contact, Contacts};
use archipelago_common::record::Progress;
use archipelago_transport::Credentials;
use axum::{Router, extract::State, http::StatusCode, routing::get};
use prometheus::{
    Gauge, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
    core::{Collector, Desc},
};

use crate::{
    audit::{AuditTrail, Kind},
    chain::now_ms,
    error::{Error, Result},
    output,
};

/// The worker's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    released_bytes: IntCounterVec,
    tasks: IntCounterVec,
    /// Epochs trained, over all conditions.
    pub epochs: IntCounter,
    /// Cells passed through training, once for each epoch.
    pub trained_cells: IntCounter,
    /// Cells trained on per second, of the condition that finished an epoch last.
    pub cells_per_second: Gauge,
    /// Tasks that wait for a person's consent.
    pub awaiting_consent: IntGauge,
    task_epochs: IntGaugeVec,
    contacts: IntCounter,
    connected: IntGauge,
    last_contact: IntGauge,
    shut_out: IntGauge,
    audit_entries: IntGauge,
    audit_broken: IntGauge,
    audit_verified: IntGauge,
    is_connected: AtomicBool,
    is_shut_out: AtomicBool,
    certificate_left: IntGauge,
    credentials: OnceLock<Credentials>,
    descriptions: Vec<Desc>,
}

/// How a task ended at this site.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TaskEnd {
    /// The coordinator accepted the submission.
    Accepted,
    /// The site gave up.
    GivenUp,
    /// The coordinator refused.
    Refused,
}

impl Metrics {
    /// All metrics at zero.
    ///
    /// # Errors  [`Error::Metrics`]
    pub fn new() -> Result<Self> {
        let mut registered = Registered::default();
        let build_info = registered.gauges("build_info", "1, with this program's version", "version")?;
        let started = registered.gauge("started_timestamp_seconds", "When this process came up, Unix time")?;
        let connected = registered
            .gauge("connected", "1 if the site's last question to the coordinators was answered, 0 if not")?;
        let shut_out = registered.gauge("shut_out", "1 if every coordinator refuses this site, 0 if not")?;
        let contacts = registered.counter("contacts_total", "Times that contact with the coordinators was made")?;
        let last_contact = registered.gauge(
            "last_contact_timestamp_seconds",
            "When a coordinator last answered, Unix time; 0 before the first",
        )?;
        let certificate_left =
            registered.gauge("certificate_left_seconds", "Until the site's certificate ends; 0 after it")?;
        let released_bytes =
            registered.counters("released_bytes_total", "Bytes that left the site through the egress gate", "kind")?;
        let audit_entries = registered.gauge("audit_entries", "Entries of the audit log when it was last verified")?;
        let audit_broken =
            registered.gauge("audit_broken", "1 if the chain of the audit log does not hold, 0 if it does")?;
        let audit_verified = registered
            .gauge("audit_verified_timestamp_seconds", "When the audit log was last verified, Unix time; 0 before")?;
        let tasks = registered.counters("tasks_total", "Surgery tasks by how they ended at this site", "end")?;
        let awaiting_consent =
            registered.gauge("tasks_awaiting_consent", "Tasks that wait for a person at the site to consent")?;
        let task_epochs =
            registered.gauges("task_epochs", "Epochs done and planned of the task under way; 0 without one", "of")?;
        let epochs = registered.counter("epochs_total", "Training epochs over all conditions")?;
        let trained_cells =
            registered.counter("trained_cells_total", "Cells passed through training, once for each epoch")?;
        let cells_per_second = registered.add(Gauge::new(
            named("cells_per_second"),
            "Cells trained on per second, of the condition that finished an epoch last",
        )?)?;
        // Every series exists from the start, so that a rate over it is right from the first event on.
        Kind::ALL.iter().for_each(|kind| drop(released_bytes.with_label_values(&[kind.name()])));
        for end in [TaskEnd::Accepted, TaskEnd::GivenUp, TaskEnd::Refused] {
            tasks.with_label_values(&[end.name()]);
        }
        for of in ["done", "planned"] {
            task_epochs.with_label_values(&[of]);
        }
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        started.set(now_s());
        let Registered { registry, descriptions } = registered;
        Ok(Self {
            registry,
            released_bytes,
            tasks,
            epochs,
            trained_cells,
            cells_per_second,
            awaiting_consent,
            task_epochs,
            contacts,
            connected,
            last_contact,
            shut_out,
            audit_entries,
            audit_broken,
            audit_verified,
            is_connected: AtomicBool::new(false),
            is_shut_out: AtomicBool::new(false),
            certificate_left,
            credentials: OnceLock::new(),
            descriptions,
        })
    }

    /// Every metric: its name, its labels and what it says.
    pub fn descriptions(&self) -> &[Desc] {
        &self.descriptions
    }

    /// From here on the metrics say how much is left of these.
    pub fn watch_certificate(&self, credentials: Credentials) {
        // A worker has one.
        let _ = self.credentials.set(credentials);
    }

    /// Counts bytes that the gate let out.
    pub fn count_released(&self, kind: Kind, n_bytes: u64) {
        self.released_bytes.with_label_values(&[kind.name()]).inc_by(n_bytes);
    }

    /// Bytes that the gate let out since the worker started.
    pub fn released_bytes(&self, kind: Kind) -> u64 {
        self.released_bytes.with_label_values(&[kind.name()]).get()
    }

    /// Counts a task that ended.
    pub fn count_task(&self, end: TaskEnd) {
        self.tasks.with_label_values(&[end.name()]).inc();
    }

    /// Notes whether the coordinators answer; `/readyz` says so.
    pub fn set_connected(&self, is_connected: bool) {
        let was_connected = self.is_connected.swap(is_connected, Ordering::Relaxed);
        self.connected.set(is_connected.into());
        if is_connected {
            self.last_contact.set(now_s());
        }
        if is_connected && !was_connected {
            self.contacts.inc();
        }
    }

    /// Follows how things stand with the coordinators, so that a session that ends is seen before anything is asked again.
    pub async fn follow(&self, mut contacts: Contacts) {
        while let Some(contact) = contacts.next().await {
            let is_shut_out = contact == Contact::ShutOut;
            self.is_shut_out.store(is_shut_out, Ordering::Relaxed);
            self.shut_out.set(is_shut_out.into());
            self.set_connected(contact == Contact::Standing);
        }
    }

    /// Verifies the audit log now and then.
    pub async fn watch_audit(&self, path: PathBuf) {
        let mut looks = tokio::time::interval(VERIFY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let path = path.clone();
            let Ok(verified) = tokio::task::spawn_blocking(move || AuditTrail::count(&path)).await else { continue };
            self.note_audit(verified);
        }
    }

    fn note_audit(&self, verified: Result<u64>) {
        match verified {
            Ok(n_entries) => self.audit_entries.set(i64::try_from(n_entries).unwrap_or(i64::MAX)),
            Err(ref error) => {
                tracing::error!(
                    error = output::chain(error),
                    "the audit log does not hold: what left is not proved any more"
                );
            }
        }
        self.audit_broken.set(verified.is_err().into());
        self.audit_verified.set(now_s());
    }

    /// Notes how far the task under way has come; none without one.
    pub fn set_progress(&self, progress: Option<Progress>) {
        let of = |epochs: fn(&Progress) -> u64| {
            progress.as_ref().map_or(0, |p| i64::try_from(epochs(p)).unwrap_or(i64::MAX))
        };
        self.task_epochs.with_label_values(&["done"]).set(of(|p| p.epochs_done));
        self.task_epochs.with_label_values(&["planned"]).set(of(|p| p.epochs_planned));
    }

    /// The metrics in Prometheus' text form.
    pub fn render(&self) -> String {
        if let Some(credentials) = self.credentials.get() {
            self.certificate_left.set(credentials.expires_unix_s().saturating_sub(now_s()).max(0));
        }
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

/// Makes metrics, and keeps them together with what they say.
#[derive(Default)]
struct Registered {
    registry: Registry,
    descriptions: Vec<Desc>,
}

impl Registered {
    fn add<C: Collector + Clone + 'static>(&mut self, collector: C) -> Result<C> {
        self.descriptions.extend(collector.desc().into_iter().cloned());
        self.registry.register(Box::new(collector.clone()))?;
        Ok(collector)
    }

    fn counter(&mut self, name: &str, help: &str) -> Result<IntCounter> {
        self.add(IntCounter::new(named(name), help)?)
    }

    fn counters(&mut self, name: &str, help: &str, label: &str) -> Result<IntCounterVec> {
        self.add(IntCounterVec::new(Opts::new(named(name), help), &[label])?)
    }

    fn gauge(&mut self, name: &str, help: &str) -> Result<IntGauge> {
        self.add(IntGauge::new(named(name), help)?)
    }

    fn gauges(&mut self, name: &str, help: &str, label: &str) -> Result<IntGaugeVec> {
        self.add(IntGaugeVec::new(Opts::new(named(name), help), &[label])?)
    }
}

fn named(name: &str) -> String {
    format!("archipelago_site_{name}")
}

fn now_s() -> i64 {
    (now_ms() / 1_000) as i64
}

/// How often the audit log is verified: it has half a kilobyte for each release.
const VERIFY: Duration = Duration::from_secs(300);

impl TaskEnd {
    const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::GivenUp => "given-up",
            Self::Refused => "refused",
        }
    }
}

/// Serves `/metrics`, `/healthz` and `/readyz` until the process ends; returns the address bound.
///
/// # Errors  [`Error::Bind`]
pub async fn serve(address: SocketAddr, metrics: Arc<Metrics>) -> Result<SocketAddr> {
    let bind = |source| Error::Bind { address, source };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(bind)?;
    let bound = listener.local_addr().map_err(bind)?;
    let router = Router::new()
        .route("/metrics", get(|State(metrics): State<Arc<Metrics>>| async move { metrics.render() }))
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .with_state(metrics);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the ops port closed");
        }
    });
    Ok(bound)
}

async fn ready(State(metrics): State<Arc<Metrics>>) -> (StatusCode, &'static str) {
    if metrics.is_shut_out.load(Ordering::Relaxed) {
        (StatusCode::SERVICE_UNAVAILABLE, "every coordinator refuses this site; the log says why\n")
    } else if metrics.is_connected.load(Ordering::Relaxed) {
        (StatusCode::OK, "in contact with the coordinators\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no contact with the coordinators\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_from_the_start() {
        let text = Metrics::new().unwrap().render();
        for kind in Kind::ALL {
            let series = format!("archipelago_site_released_bytes_total{{kind=\"{}\"}} 0", kind.name());
            assert!(text.contains(&series), "{text}");
        }
        assert!(text.contains("archipelago_site_tasks_total{end=\"accepted\"} 0"), "{text}");
    }

    #[tokio::test]
    async fn readiness_follows_the_session() {
        let metrics = Arc::new(Metrics::new().unwrap());
        assert_eq!(ready(State(metrics.clone())).await.0, StatusCode::SERVICE_UNAVAILABLE);
        metrics.set_connected(true);
        assert_eq!(ready(State(metrics.clone())).await.0, StatusCode::OK);
        metrics.set_connected(false);
        assert_eq!(ready(State(metrics)).await.0, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn a_site_that_is_shut_out_is_not_ready_whatever_was_answered_before() {
        let metrics = Arc::new(Metrics::new().unwrap());
        metrics.set_connected(true);
        metrics.is_shut_out.store(true, Ordering::Relaxed);
        let (status, why) = ready(State(metrics)).await;
        assert!(status == StatusCode::SERVICE_UNAVAILABLE && why.contains("refuses this site"), "{why}");
    }

    #[test]
    fn a_log_that_does_not_hold_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let (metrics, path) = (Metrics::new().unwrap(), dir.path().join("audit.jsonl"));
        std::fs::write(&path, "").unwrap();
        metrics.note_audit(AuditTrail::count(&path));
        assert!(metrics.render().contains("archipelago_site_audit_broken 0"));
        std::fs::write(&path, "no entry\n").unwrap();
        metrics.note_audit(AuditTrail::count(&path));
        assert!(metrics.render().contains("archipelago_site_audit_broken 1"));
    }

    #[test]
    fn the_documentation_lists_every_metric() {
        const BEGIN: &str = "<!-- made by a test: metrics of a worker -->\n";
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/monitoring.md");
        let page = std::fs::read_to_string(path).unwrap();
        let (before, rest) = page.split_once(BEGIN).expect("the page has a place for the table");
        let (found, after) = rest.split_once("<!-- end -->").expect("and an end of it");
        let mut table = "| Metric | Labels | Says |\n|---|---|---|\n".to_owned();
        for desc in Metrics::new().unwrap().descriptions() {
            table += &format!("| `{}` | {} | {} |\n", desc.fq_name, desc.variable_labels.join(", "), desc.help);
        }
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, format!("{before}{BEGIN}{table}<!-- end -->{after}")).unwrap();
        } else {
            assert!(found == table, "docs/monitoring.md lists other metrics; `UPDATE=1` renews it");
        }
    }
}
