//! Serving gRPC with limits, and ending it inside a bound.
//!
//! tonic hands hyper an explicit "no limit" for what is not set, and so switches hyper's own defences off: every limit is
//! set here. Its graceful end waits without limit for open streams: here the wait has one.

#[cfg(test)]
mod tests;

use std::{convert::Infallible, io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::response::IntoResponse;
use prometheus_client::registry::Registry;
use tokio::{
    sync::{Mutex, watch},
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tonic::{
    body::Body,
    codegen::Service,
    server::NamedService,
    service::Routes,
    transport::{self, Server},
};

use super::{
    admin::{AdminThread, Shown},
    call::CallLayer,
    health::{self, HealthPart, ServiceHealth},
    listener::Listener,
    metrics::CallMetrics,
    ready_file::ReadyFile,
    shutdown::{END_TIMEOUT, Shutdown},
};

/// Connections to the admin port: probes and people.
const ADMIN_CONNECTIONS: usize = 64;

/// What a service takes at most.
#[derive(Debug, Clone, Copy)]
pub struct TransportLimits {
    /// Streams on one connection at a time. Clients queue silently above it.
    pub streams_per_connection: u32,
    /// Connections at a time.
    pub connections: usize,
    /// Bytes of one request message.
    pub message_bytes: usize,
}

/// An address is taken, or not this machine's.
#[derive(Debug, thiserror::Error)]
#[error("listen on {addr}")]
pub struct BindError {
    addr: SocketAddr,
    #[source]
    source: io::Error,
}

/// Why a service could not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The runtime cannot watch the gRPC port.
    #[error("accept connections")]
    Accept(#[source] io::Error),
    /// The transport failed for good.
    #[error("serve gRPC")]
    Transport(#[source] transport::Error),
    /// The thread of the admin port cannot be started.
    #[error("serve the admin port")]
    Admin(#[source] io::Error),
    /// The ready file cannot be written.
    #[error("write the ready file {}", path.display())]
    ReadyFile {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The compiled-in descriptors are damaged.
    #[error("serve reflection")]
    Reflection(#[source] tonic_reflection::server::Error),
}

/// The two ports of a service, bound.
#[derive(Debug)]
pub struct Ports {
    listener: Listener,
    admin: Listener,
}

impl Ports {
    /// Binds both; port 0 picks a free one.
    ///
    /// # Errors
    ///
    /// [`BindError`] names the address that cannot be had.
    pub fn bind(listen_addr: SocketAddr, admin_addr: SocketAddr, limits: TransportLimits) -> Result<Self, BindError> {
        let bind = |addr, connections| Listener::bind(addr, connections).map_err(|source| BindError { addr, source });
        Ok(Self {
            listener: bind(listen_addr, limits.connections)?,
            admin: bind(admin_addr, ADMIN_CONNECTIONS)?,
        })
    }

    /// Where liveness, readiness and metrics are served.
    #[must_use]
    pub const fn admin_addr(&self) -> SocketAddr {
        self.admin.local_addr()
    }
}

/// Services with their full names.
#[derive(Debug, Default)]
pub struct ServiceSet {
    routes: Routes,
    names: Vec<&'static str>,
}

impl ServiceSet {
    /// Adds a service.
    #[must_use]
    pub fn with<S>(mut self, service: S) -> Self
    where
        S: Service<http::Request<Body>, Error = Infallible, Response: IntoResponse, Future: Send>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
    {
        self.names.push(S::NAME);
        self.routes = self.routes.add_service(service);
        self
    }
}

/// What is served, and how.
#[derive(Debug)]
pub struct Services {
    /// Where they are served.
    pub ports: Ports,
    /// What they take at most.
    pub limits: TransportLimits,
    /// Where the bound addresses are written once the services are served. `None`: nowhere.
    pub ready_file: Option<PathBuf>,
    /// The services themselves; health and reflection come on top.
    pub set: ServiceSet,
    /// What health tells besides, under names of its own.
    pub parts: Vec<HealthPart>,
    /// Whether reflection is served.
    pub reflection: bool,
    /// Whether the services can take calls: what health and readiness tell.
    pub ready: watch::Receiver<bool>,
    /// The services' own metrics, begun by [`of_service`](super::metrics::of_service); those of calls and connections come on top.
    pub metrics: Registry,
}

/// Serves until `shutdown.stop` is cancelled and the calls that run have ended or were ended.
///
/// Returns at the latest `grace` and three [`END_TIMEOUT`]s after `stop`, whatever clients do. The ready file is there while
/// calls are taken.
///
/// # Errors
///
/// [`ServeError`] when it cannot begin, or the transport fails for good.
///
/// # Cancel safety
///
/// Dropped, it closes all connections.
pub async fn serve(services: Services, shutdown: Shutdown) -> Result<(), ServeError> {
    let Services {
        ports: Ports { listener, admin },
        limits,
        ready_file,
        set: ServiceSet { routes, names },
        parts,
        reflection,
        ready,
        mut metrics,
    } = services;
    let calls = CallMetrics::new(&mut metrics, &names);
    metrics.register(
        "connections",
        "Connections to the gRPC port that are open",
        listener.open().clone(),
    );
    let (health, mut routes) = ServiceHealth::add_to(routes, &names).await;
    if reflection {
        routes = health::add_reflection(routes, &names).map_err(ServeError::Reflection)?;
    }

    let (serving, is_serving) = watch::channel(false);
    let (listen_addr, admin_addr) = (listener.local_addr(), admin.local_addr());
    let mut helpers = JoinSet::new();
    // Best effort: without them probes fail, and calls go on.
    for part in parts {
        helpers.spawn(health.clone().follow(part));
    }
    helpers.spawn(tell_health(health, ready, serving, shutdown.stop.clone()));
    let shown = Shown {
        ready: is_serving,
        metrics: Arc::new(Mutex::new(metrics)),
    };
    let admin = AdminThread::start(admin, shown).map_err(ServeError::Admin)?;

    let ready_file = ready_file
        .map(|path| {
            ReadyFile::write(&path, listen_addr, admin_addr).map_err(|source| ServeError::ReadyFile { path, source })
        })
        .transpose()?;
    tracing::info!(%listen_addr, %admin_addr, "serving");
    let result = transport(routes, listener, limits, calls, shutdown).await;
    drop(ready_file);
    admin.end().await;
    result
}

/// Keeps health and readiness true to `ready`, and says no once the service stops.
async fn tell_health(
    health: ServiceHealth,
    mut ready: watch::Receiver<bool>,
    serving: watch::Sender<bool>,
    stop: CancellationToken,
) {
    loop {
        let is_serving = *ready.borrow_and_update() && !stop.is_cancelled();
        serving.send_replace(is_serving);
        health.set_serving(is_serving).await;
        tokio::select! {
            biased; // Once stopped, what `ready` says no longer counts.
            () = stop.cancelled() => break,
            changed = ready.changed() => if changed.is_err() { stop.cancelled().await },
        }
    }
    serving.send_replace(false);
    health.set_serving(false).await;
    // Readiness is asked until the end.
    serving.closed().await;
}

async fn transport(
    routes: Routes,
    listener: Listener,
    limits: TransportLimits,
    calls: CallMetrics,
    shutdown: Shutdown,
) -> Result<(), ServeError> {
    let Shutdown { stop, grace, end } = shutdown;
    let kill = CancellationToken::new();
    // Whoever leaves this function, also by dropping it, takes the connections along.
    let _kill_on_drop = kill.clone().drop_guard();
    let connections = listener
        .into_connections(stop.clone(), kill.clone())
        .map_err(ServeError::Accept)?
        .into_stream();

    let serving = Server::builder()
        .max_concurrent_streams(limits.streams_per_connection)
        .http2_max_local_error_reset_streams(Some(1024))
        .http2_max_pending_accept_reset_streams(Some(20))
        .http2_max_header_list_size(16 * 1024)
        .max_frame_size(16 * 1024)
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .layer(CallLayer::new(limits.message_bytes, calls))
        .add_routes(routes)
        .serve_with_incoming_shutdown(connections, stop.clone().cancelled_owned());

    let out_of_time = async {
        stop.cancelled().await;
        sleep(grace).await;
        end.cancel();
        sleep(END_TIMEOUT).await;
        tracing::warn!("closing connections whose calls did not end in time");
        kill.cancel();
        sleep(END_TIMEOUT).await;
    };
    tokio::select! {
        result = serving => result.map_err(ServeError::Transport),
        () = out_of_time => Ok(()),
    }
}
