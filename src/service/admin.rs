//! The admin port: liveness, readiness, metrics and the log level, over plain HTTP.

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, State},
    http::{
        HeaderMap, StatusCode,
        header::{ACCEPT, CONTENT_TYPE},
    },
    response::IntoResponse,
    routing::get,
};
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    chain::Chain,
    listener::Listener,
    logs,
    metrics::{Format, render},
};

/// The most bytes of a log level.
const LEVEL_BYTES_MAX: usize = 4096;

/// What the admin port shows.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Whether the service takes calls.
    pub ready: watch::Receiver<bool>,
    /// The metrics.
    pub metrics: Arc<Registry>,
}

/// Serves until it is dropped: `/healthz` (the process runs), `/readyz` (it takes calls), `/metrics`, and, where only this
/// machine can connect, `/log-level`, which `PUT` changes.
///
/// Liveness never depends on a registry, a model or a disk: restarting helps none of them.
pub async fn serve(listener: Listener, shown: Shown) {
    let mut router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics));
    // Nobody is authenticated here.
    if listener.local_addr().ip().is_loopback() {
        router = router.route("/log-level", get(log_level).put(set_log_level));
    }
    let router = router.layer(DefaultBodyLimit::max(LEVEL_BYTES_MAX)).with_state(shown);
    let kill = CancellationToken::new();
    let _kill_on_drop = kill.clone().drop_guard();
    let connections = listener.into_connections(kill.clone(), kill);
    if let Err(error) = axum::serve(connections, router).await {
        tracing::warn!(%error, "the admin port is served no more");
    }
}

async fn readyz(State(shown): State<Shown>) -> (StatusCode, &'static str) {
    if *shown.ready.borrow() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

async fn metrics(State(shown): State<Shown>, headers: HeaderMap) -> impl IntoResponse {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    let format = Format::wanted(accept.unwrap_or_default());
    match render(&shown.metrics, format) {
        Ok(text) => Ok(([(CONTENT_TYPE, format.content_type())], text)),
        Err(_refused) => Err(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

async fn log_level() -> (StatusCode, String) {
    match logs::level() {
        Some(level) => (StatusCode::OK, format!("{level}\n")),
        None => (StatusCode::NOT_FOUND, format!("{}\n", logs::LevelError::NotHere)),
    }
}

async fn set_log_level(text: String) -> (StatusCode, String) {
    match logs::set_level(text.trim()) {
        Ok(()) => log_level().await,
        Err(error @ logs::LevelError::Malformed(_)) => (StatusCode::BAD_REQUEST, format!("{}\n", Chain(&error))),
        Err(error @ logs::LevelError::NotHere) => (StatusCode::NOT_FOUND, format!("{}\n", Chain(&error))),
    }
}
