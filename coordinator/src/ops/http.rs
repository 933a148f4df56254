//! `/metrics`, `/healthz` and `/readyz` over plain HTTP. Bind it to a management network.

use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use tokio::net::TcpListener;

use crate::{
    error::{Error, Result},
    ops::metrics,
    raft::task::Raft,
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
pub async fn run(listener: TcpListener, raft: Raft) -> Result<()> {
    let address = listener.local_addr().map(|a| a.to_string()).unwrap_or_default();
    metrics::register_all();
    let router = Router::new()
        .route("/metrics", get(show_metrics))
        // The process answers: that is health.
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(show_readiness))
        .with_state(raft);
    axum::serve(listener, router).await.map_err(|source| Error::Ops { address, source })
}

async fn show_metrics(State(raft): State<Raft>) -> impl IntoResponse {
    // A node too busy to be looked at still shows what it last noted.
    let _ = raft.peek(metrics::cluster).await;
    ([("content-type", "text/plain; version=0.0.4")], metrics::render())
}

/// Ready is who knows a leader and has applied what it knows to be committed.
async fn show_readiness(State(raft): State<Raft>) -> impl IntoResponse {
    let view = raft.view();
    match view.leader {
        None => (StatusCode::SERVICE_UNAVAILABLE, "no leader is known\n".to_owned()),
        Some(_) if view.applied < view.committed => {
            let behind = view.committed - view.applied;
            (StatusCode::SERVICE_UNAVAILABLE, format!("{behind} entries behind\n"))
        }
        Some(leader) => (StatusCode::OK, format!("ready; node {leader} leads\n")),
    }
}
