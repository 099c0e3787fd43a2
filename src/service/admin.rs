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

/// The maximum size of a request body, in bytes. Only changes of the log level have a body.
const LEVEL_BYTES_MAX: usize = 4096;

/// The state that the admin port serves.
#[derive(Debug, Clone)]
pub struct Shown {
    /// Whether the service accepts calls.
    pub ready: watch::Receiver<bool>,
    /// The metrics. A scrape locks them, so that scrapes run one at a time.
    pub metrics: Arc<Mutex<Registry>>,
}

/// The thread that serves the admin port, with its own runtime.
///
/// It serves `/healthz` (the process is running), `/readyz` (the service accepts calls) and `/metrics`. If only this
/// machine can connect, it also serves `/log-level`, which `PUT` changes. Liveness does not depend on a registry, a
/// model or a disk, because restarting this process would not repair them. It does not depend on the runtime of the
/// calls either, whose workers may all be busy or blocked.
///
/// Dropping this closes all connections without waiting for the thread.
#[derive(Debug)]
pub struct AdminThread {
    stop: DropGuard,
    /// Closed when the thread has ended.
    ended: oneshot::Receiver<()>,
}

impl AdminThread {
    /// Starts the thread and serves `listener`.
    ///
    /// # Errors
    ///
    /// An I/O error if the system refuses a thread or the resources of a runtime.
    pub fn start(listener: Listener, shown: Shown) -> io::Result<Self> {
        // One blocking thread is enough: scrapes run one at a time.
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
                tracing::warn!(%error, "the admin port has stopped serving");
            }
            // Closes the connections without waiting for a scrape that waits for a lock.
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
    // Callers are not authenticated, so only this machine may change the log level.
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
    // Rendering may wait for locks that calls hold, so it must not block this thread, which also serves `/healthz`.
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
