//! The admin port: liveness and readiness over plain HTTP.

use axum::{Router, extract::State, http::StatusCode, routing::get};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::listener::Listener;

/// Serves `/healthz` (the process runs) and `/readyz` (it takes calls) until `stop` is cancelled.
///
/// Liveness never depends on a registry, a model or a disk: restarting helps none of them.
///
/// # Errors
///
/// When the listener fails for good.
pub async fn serve(listener: Listener, ready: watch::Receiver<bool>, stop: CancellationToken) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(ready);
    let connections = listener.into_connections(stop.clone(), stop.clone());
    axum::serve(connections, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

async fn readyz(State(ready): State<watch::Receiver<bool>>) -> (StatusCode, &'static str) {
    if *ready.borrow() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}
