//! `/metrics`, `/healthz` and `/readyz` over plain HTTP. Bind it to a management network.

use archipelago_common::health::NodeState;
use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use tokio::net::TcpListener;

use super::Executor;
use crate::{
    error::{Error, Result},
    ops::metrics,
};

/// Opens the port.
///
/// # Errors  [`Error::Ops`]
pub async fn listen(address: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|source| Error::Ops { address: address.to_owned(), source })
}

/// Answers until the node ends.
///
/// # Errors  [`Error::Ops`]
pub async fn run(listener: TcpListener, executor: Executor) -> Result<()> {
    let address = listener.local_addr().map(|a| a.to_string()).unwrap_or_default();
    metrics::register_all();
    let router = Router::new()
        .route("/metrics", get(show_metrics))
        .route("/healthz", get(show_health))
        .route("/readyz", get(show_readiness))
        .with_state(executor);
    axum::serve(listener, router).await.map_err(|source| Error::Ops { address, source })
}

/// The process answers: that is health. What else is wrong it says, but to start it anew would not help.
async fn show_health(State(executor): State<Executor>) -> String {
    match executor.condition().state() {
        NodeState::Serving => "ok\n".to_owned(),
        state => format!("ok, but {state}: {}\n", state.advice().unwrap_or_default()),
    }
}

async fn show_metrics(State(executor): State<Executor>) -> impl IntoResponse {
    // A node too busy to be looked at still shows what it last noted.
    let _ = executor.raft().peek(metrics::cluster).await;
    ([("content-type", "text/plain; version=0.0.4")], metrics::render())
}

/// Ready is who takes new work, knows a leader and has applied what it knows to be committed.
async fn show_readiness(State(executor): State<Executor>) -> impl IntoResponse {
    let (view, state) = (executor.raft().view(), executor.condition().state());
    if state != NodeState::Serving {
        let advice = state.advice().unwrap_or_default();
        return (StatusCode::SERVICE_UNAVAILABLE, format!("{state}: {advice}\n"));
    }
    match view.leader {
        None => (StatusCode::SERVICE_UNAVAILABLE, "no leader is known\n".to_owned()),
        Some(_) if view.applied < view.committed => {
            let behind = view.committed - view.applied;
            (StatusCode::SERVICE_UNAVAILABLE, format!("{behind} entries behind\n"))
        }
        Some(leader) => (StatusCode::OK, format!("ready; node {leader} leads\n")),
    }
}
