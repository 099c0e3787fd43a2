//! The admin port: liveness, readiness, metrics and the log level, over plain HTTP.

use std::{io, sync::Arc, thread};

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
use tokio::{
    runtime::Builder,
    sync::{Mutex, oneshot, watch},
    task::spawn_blocking,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    chain::Chain,
    listener::{Connections, Listener},
    logs,
    metrics::{MetricsFormat, render},
    shutdown::{END_TIMEOUT, end_within},
};

/// The most bytes of a log level.
const LEVEL_BYTES_MAX: usize = 4096;

/// What the admin port shows.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Whether the service takes calls.
    pub ready: watch::Receiver<bool>,
    /// The metrics, locked by one scrape at a time.
    pub metrics: Arc<Mutex<Registry>>,
}

/// The thread that serves the admin port, on a runtime of its own.
///
/// It serves `/healthz` (the process runs), `/readyz` (the service takes calls), `/metrics` and, if only this machine can
/// connect, `/log-level`, which `PUT` changes. Liveness never depends on a registry, a model or a disk: restarting helps
/// none of them. It does not depend on the runtime of the calls either: all its workers may be busy or blocked.
///
/// Dropped, it closes all connections, without waiting for the thread.
#[derive(Debug)]
pub struct AdminThread {
    stop: DropGuard,
    /// Closed when the thread has ended.
    ended: oneshot::Receiver<()>,
}

impl AdminThread {
    /// Starts to serve.
    ///
    /// # Errors
    ///
    /// When the system refuses a thread, or what a runtime needs.
    pub fn start(listener: Listener, shown: Shown) -> io::Result<Self> {
        // A single thread for scrapes: they are made one at a time.
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .build()?;
        let stop = CancellationToken::new();
        let is_local = listener.local_addr().ip().is_loopback();
        let connections = {
            let _entered = runtime.enter();
            listener.into_connections(stop.clone(), stop.clone())?
        };
        let (ending, ended) = oneshot::channel();
        let stopped = stop.clone();
        thread::Builder::new().name("admin".to_owned()).spawn(move || {
            let served = runtime.block_on(stopped.run_until_cancelled(serve(connections, is_local, shown)));
            if let Some(Err(error)) = served {
                tracing::warn!(%error, "the admin port is served no more");
            }
            // Closes the connections, and leaves alone a scrape that waits for a lock.
            runtime.shutdown_background();
            drop(ending);
        })?;
        Ok(Self {
            stop: stop.drop_guard(),
            ended,
        })
    }

    /// Closes all connections and waits for the thread to end, for at most [`END_TIMEOUT`].
    pub async fn end(self) {
        let Self { stop, ended } = self;
        drop(stop);
        end_within(END_TIMEOUT, "the admin port", ended).await;
    }
}

async fn serve(connections: Connections, is_local: bool, shown: Shown) -> io::Result<()> {
    let mut router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics));
    // Nobody is authenticated here.
    if is_local {
        router = router.route("/log-level", get(log_level).put(set_log_level));
    }
    let router = router.layer(DefaultBodyLimit::max(LEVEL_BYTES_MAX)).with_state(shown);
    axum::serve(connections, router).await
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
    let format = MetricsFormat::wanted(accept.unwrap_or_default());
    // What is read at a scrape may be locked by a call for a while: this must not stop the thread that answers `/healthz`.
    let metrics = shown.metrics.lock_owned().await;
    match spawn_blocking(move || render(&metrics, format)).await {
        Ok(Ok(text)) => Ok(([(CONTENT_TYPE, format.content_type())], text)),
        Ok(Err(_)) | Err(_) => Err(StatusCode::INTERNAL_SERVER_ERROR),
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
