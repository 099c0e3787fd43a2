//! Serves gRPC with limits, and with a shutdown that takes a bounded time.
//!
//! For every limit that is not set, tonic passes "no limit" to hyper and so disables hyper's own protection. Therefore
//! every limit is set here. tonic's graceful shutdown waits for open streams without a limit; here the wait is limited.

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
    cause::Cause,
    health::{self, HealthPart, ServiceHealth},
    listener::Listener,
    metrics::CallMetrics,
    ready_file::ReadyFile,
    shutdown::{END_TIMEOUT, Shutdown},
};

/// The maximum number of connections to the admin port, which is for probes, scrapers and people.
const ADMIN_CONNECTIONS: usize = 64;

/// Limits of a service's gRPC transport.
#[derive(Debug, Clone, Copy)]
pub struct TransportLimits {
    /// The maximum number of concurrent streams on one connection. Clients queue further calls without an error.
    pub streams_per_connection: u32,
    /// The maximum number of concurrent connections.
    pub connections: usize,
    /// The maximum size of one request message, in bytes.
    pub message_bytes: usize,
}

/// A listen address could not be bound: it is in use, or is not an address of this machine.
#[derive(Debug, thiserror::Error)]
#[error("could not listen on {addr} ({flag})")]
pub struct BindError {
    addr: SocketAddr,
    /// The flag that sets the address.
    flag: &'static str,
    #[source]
    cause: Cause,
}

/// Why a service could not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The socket of the gRPC port could not be registered with the runtime.
    #[error("could not start to accept connections")]
    Accept(#[source] io::Error),
    /// The gRPC transport failed.
    #[error("the gRPC transport failed")]
    Transport(#[source] transport::Error),
    /// The thread of the admin port could not be started.
    #[error("could not start to serve the admin port")]
    Admin(#[source] io::Error),
    /// The ready file could not be written.
    #[error("could not write the ready file {}", path.display())]
    ReadyFile {
        /// Path of the file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The compiled-in descriptors of gRPC reflection are damaged.
    #[error("could not set up gRPC reflection")]
    Reflection(#[source] tonic_reflection::server::Error),
}

/// The two bound ports of a service: the gRPC port and the admin port.
#[derive(Debug)]
pub struct Ports {
    listener: Listener,
    admin: Listener,
}

impl Ports {
    /// Binds both ports. Port 0 picks a free port.
    ///
    /// # Errors
    ///
    /// [`BindError`] with the address that could not be bound, and the flag that sets it.
    pub fn bind(listen_addr: SocketAddr, admin_addr: SocketAddr, limits: TransportLimits) -> Result<Self, BindError> {
        let bind = |flag, addr, connections| {
            let bound = Listener::bind(addr, connections);
            bound.map_err(|error| BindError {
                addr,
                flag,
                cause: Cause::of(&error),
            })
        };
        Ok(Self {
            listener: bind("--listen-addr", listen_addr, limits.connections)?,
            admin: bind("--admin-addr", admin_addr, ADMIN_CONNECTIONS)?,
        })
    }

    /// The bound address of the admin port, which serves liveness, readiness and metrics.
    #[must_use]
    pub const fn admin_addr(&self) -> SocketAddr {
        self.admin.local_addr()
    }
}

/// A set of gRPC services, with their full names.
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

/// What [`serve`] needs: the services, their ports and their options.
#[derive(Debug)]
pub struct Services {
    /// The ports on which the services are served.
    pub ports: Ports,
    /// The limits of the transport.
    pub limits: TransportLimits,
    /// The file to which the bound addresses are written once the services are served. `None`: no file is written.
    pub ready_file: Option<PathBuf>,
    /// The gRPC services. [`serve`] adds health and reflection.
    pub set: ServiceSet,
    /// Further parts whose status the health service reports.
    pub parts: Vec<HealthPart>,
    /// Whether gRPC reflection is served.
    pub reflection: bool,
    /// Whether the services can accept calls. Health and readiness report this value.
    pub ready: watch::Receiver<bool>,
    /// The services' own metrics, created by [`of_service`](super::metrics::of_service). [`serve`] adds the metrics of
    /// calls and connections.
    pub metrics: Registry,
}

/// Serves until `shutdown.stop` is cancelled and all running calls have ended or were ended.
///
/// Returns at most `grace` plus three [`END_TIMEOUT`]s after `stop`, regardless of what clients do. The ready file
/// exists while calls are accepted.
///
/// # Errors
///
/// [`ServeError`] if serving cannot start, or the transport fails.
///
/// # Cancel safety
///
/// Dropping the future closes all connections.
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
        "Open connections to the gRPC port",
        listener.open().clone(),
    );
    let (health, mut routes) = ServiceHealth::add_to(routes, &names).await;
    if reflection {
        routes = health::add_reflection(routes, &names).map_err(ServeError::Reflection)?;
    }

    let (serving, is_serving) = watch::channel(false);
    let (listen_addr, admin_addr) = (listener.local_addr(), admin.local_addr());
    let mut helpers = JoinSet::new();
    // Best effort: if one of these tasks fails, probes fail and calls continue.
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

/// Copies `ready` to health and readiness, and sets both to false when the service stops.
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
            biased; // Once `stop` is cancelled, `ready` no longer matters.
            () = stop.cancelled() => break,
            changed = ready.changed() => if changed.is_err() { stop.cancelled().await },
        }
    }
    serving.send_replace(false);
    health.set_serving(false).await;
    // Keeps the sender alive until the admin port has stopped, which reads readiness until then.
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
    // Closes all connections when this function returns, and also when its future is dropped.
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
