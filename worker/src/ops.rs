//! What a running worker tells a site's own monitoring: Prometheus metrics and two health answers.
//!
//! The port is the site's: it is off unless the configuration names an address, and nothing here reaches the coordinators.
//! No metric carries a task, a condition or any value of the data.

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use archipelago_transport::Credentials;
use axum::{Router, extract::State, http::StatusCode, routing::get};
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

use crate::{
    audit::Kind,
    error::{Error, Result},
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
    contacts: IntCounter,
    is_connected: AtomicBool,
    certificate_left: IntGauge,
    credentials: OnceLock<Credentials>,
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
        let released_bytes = IntCounterVec::new(
            Opts::new("archipelago_site_released_bytes_total", "Bytes that left the site through the egress gate."),
            &["kind"],
        )?;
        let tasks = IntCounterVec::new(
            Opts::new("archipelago_site_tasks_total", "Surgery tasks by how they ended at this site."),
            &["end"],
        )?;
        let epochs = IntCounter::new("archipelago_site_epochs_total", "Training epochs over all conditions.")?;
        let trained_cells =
            IntCounter::new("archipelago_site_trained_cells_total", "Cells passed through training, once per epoch.")?;
        let cells_per_second = Gauge::new(
            "archipelago_site_cells_per_second",
            "Cells trained on per second, of the condition that finished an epoch last.",
        )?;
        let contacts =
            IntCounter::new("archipelago_site_contacts_total", "Times that contact with the coordinators was made.")?;
        let certificate_left = IntGauge::new(
            "archipelago_site_certificate_left_seconds",
            "Seconds until the site's certificate ends; 0 after it.",
        )?;
        let registry = Registry::new();
        registry.register(Box::new(certificate_left.clone()))?;
        registry.register(Box::new(released_bytes.clone()))?;
        registry.register(Box::new(tasks.clone()))?;
        registry.register(Box::new(epochs.clone()))?;
        registry.register(Box::new(trained_cells.clone()))?;
        registry.register(Box::new(cells_per_second.clone()))?;
        registry.register(Box::new(contacts.clone()))?;
        // Every series exists from the start, so that a rate over it is right from the first event on.
        Kind::ALL.iter().for_each(|kind| drop(released_bytes.with_label_values(&[kind.name()])));
        for end in [TaskEnd::Accepted, TaskEnd::GivenUp, TaskEnd::Refused] {
            tasks.with_label_values(&[end.name()]);
        }
        let is_connected = AtomicBool::new(false);
        let credentials = OnceLock::new();
        Ok(Self {
            registry,
            released_bytes,
            tasks,
            epochs,
            trained_cells,
            cells_per_second,
            contacts,
            is_connected,
            certificate_left,
            credentials,
        })
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
        if is_connected && !was_connected {
            self.contacts.inc();
        }
    }

    /// The metrics in Prometheus' text form.
    pub fn render(&self) -> String {
        if let Some(credentials) = self.credentials.get() {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let now_s = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
            self.certificate_left.set(credentials.expires_unix_s().saturating_sub(now_s).max(0));
        }
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

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
    if metrics.is_connected.load(Ordering::Relaxed) {
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
}
