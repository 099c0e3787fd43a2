//! The admin port: liveness and readiness over plain HTTP.

use axum::{Router, extract::State, http::StatusCode, routing::get};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::listener::Listener;

/// Serves `/healthz` (the process runs) and `/readyz` (it takes calls) until it is dropped.
///
/// Liveness never depends on a registry, a model or a disk: restarting helps none of them.
pub async fn serve(listener: Listener, ready: watch::Receiver<bool>) {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(ready);
    let kill = CancellationToken::new();
    let _kill_on_drop = kill.clone().drop_guard();
    let connections = listener.into_connections(kill.clone(), kill);
    if let Err(error) = axum::serve(connections, router).await {
        tracing::warn!(%error, "the admin port is served no more");
    }
}

async fn readyz(State(ready): State<watch::Receiver<bool>>) -> (StatusCode, &'static str) {
    if *ready.borrow() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}
