//! The router as a whole: [`assemble`] builds and connects all parts, [`RouterParts::supervise`] runs them until
//! shutdown.
//!
//! The shutdown order: the health service reports not serving; the listener accepts no new connections and closes idle
//! ones; running calls may finish within the drain time, and then end with `SERVER_DRAINING`; connections that are
//! still open are cut; the ready file is removed; the subscription to the registry ends.

use std::{sync::Arc, time::Duration};

use switchboard::{
    bounded,
    names::InstanceId,
    pb::router::{inference_service_server::InferenceServiceServer, routing_service_server::RoutingServiceServer},
    service::{
        health::HealthPart,
        metrics,
        serve::{self, BindError, Ports, ServeError, ServiceSet, Services, TransportLimits},
        shutdown::{END_TIMEOUT, Shutdown, end_within},
    },
};
use tokio::task::JoinSet;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    call,
    check::Checker,
    config::Config,
    current::Current,
    grpc::{inference::InferenceApi, routing::RoutingApi},
    live::LiveModels,
    probe::Prober,
    subscription::{Subscription, SubscriptionConfig},
    telemetry,
    upstream::{Upstream, names::Names},
};

const LIMITS: TransportLimits = TransportLimits {
    streams_per_connection: 1024,
    connections: 4096,
    message_bytes: 4 * 1024 * 1024,
};

/// Timeout for connecting to a model server: name resolution, TCP connection and TLS handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Name of a part in the health service. It serves once a registry has confirmed the configuration, which may have come
/// from the snapshot file.
const CONFIG_FRESH: &str = "config-fresh";

/// Why the router cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// TLS for connections to model servers cannot be set up.
    #[error("could not set up TLS for connections to model servers")]
    Tls(#[source] rustls::Error),
}

/// The parts of a router, connected to each other. None of them is running yet.
#[derive(Debug)]
pub struct RouterParts {
    services: Services,
    shutdown: Shutdown,
    subscription: Subscription,
    prober: Prober,
    /// Resolved addresses of the model servers' host names, for the catalog in `current`.
    names: Names,
    current: Arc<Current>,
    /// Tasks of the running calls.
    calls: TaskTracker,
}

/// Binds both ports and builds all parts. Binding comes first, so a taken port fails before anything else happens.
///
/// Cancelling `stop` shuts the router down.
///
/// # Errors
///
/// [`StartError`] if a port cannot be bound or TLS cannot be set up.
pub fn assemble(config: Config, stop: CancellationToken) -> Result<RouterParts, StartError> {
    let ports = Ports::bind(config.listen_addr, config.admin_addr, LIMITS)?;
    let names = Names::default();
    let models = LiveModels::new(config.group.as_str(), names.clone());
    let upstream = Upstream::new(CONNECT_TIMEOUT, names.clone(), models.clone()).map_err(StartError::Tls)?;
    config.log_start();

    let shutdown = Shutdown::new(stop, config.drain_timeout);
    let current = Arc::new(Current::default());
    let mut metrics = metrics::of_service("router");
    let own = metrics.sub_registry_with_prefix("router");
    upstream.metrics().register(own);
    telemetry::register_current(&current, own);
    models.register(&current, own);
    let subscription = Subscription::new(
        SubscriptionConfig {
            registry_addrs: config.registry_addrs,
            router_id: config.router_id,
            group: config.group,
            instance: InstanceId::random(),
            build: env!("CARGO_PKG_VERSION").into(),
            snapshot: config.snapshot,
        },
        Arc::clone(&current),
        models,
    )
    .checking(Checker::new(upstream.clone()));
    subscription.metrics().register(own);
    let prober = Prober::new(Arc::clone(&current), upstream.clone());
    prober.register(own);

    let calls = TaskTracker::new();
    let inference = InferenceApi::new(
        Arc::clone(&current),
        upstream,
        call::CallLimits::default(),
        calls.clone(),
        shutdown.end.clone(),
    )
    .padding(config.pad_messages);
    inference.calls().quotas().register(own);
    let routing = RoutingApi::new(
        inference.calls().clone(),
        subscription.progress(),
        shutdown.stop.clone(),
    );
    let set = ServiceSet::default()
        .with(bounded!(InferenceServiceServer::new(inference), LIMITS.message_bytes))
        .with(bounded!(RoutingServiceServer::new(routing), LIMITS.message_bytes));
    let services = Services {
        ports,
        limits: LIMITS,
        ready_file: config.ready_file,
        set,
        parts: vec![HealthPart {
            name: CONFIG_FRESH,
            serves: current.confirmed(),
        }],
        reflection: config.reflection,
        ready: current.ready(),
        metrics,
    };
    Ok(RouterParts {
        services,
        shutdown,
        subscription,
        prober,
        names,
        current,
        calls,
    })
}

impl RouterParts {
    /// Runs all parts until `stop` is cancelled and the shutdown is complete.
    ///
    /// # Errors
    ///
    /// [`ServeError`] if the services cannot start, or if the transport fails permanently.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops all parts at once, without the shutdown order.
    pub async fn supervise(self) -> Result<(), ServeError> {
        let Self {
            services,
            shutdown,
            subscription,
            prober,
            names,
            current,
            calls,
        } = self;
        let following_stop = CancellationToken::new();
        let mut following = JoinSet::new();
        // Best effort: without the subscription the last catalog stays in use, as it does while the registry is
        // unreachable.
        following.spawn(subscription.run(following_stop.clone()));
        // Best effort too: without resolved addresses, servers are dialled by host name.
        following.spawn(names.follow(current, following_stop.clone()));
        // Best effort as well: calls provide more evidence about a server's health than probes do.
        following.spawn(prober.run(shutdown.stop.clone()));
        let served = serve::serve(services, shutdown).await;

        calls.close();
        end_within(END_TIMEOUT, "calls", calls.wait()).await;
        following_stop.cancel();
        let followed = async { while following.join_next().await.is_some() {} };
        end_within(2 * END_TIMEOUT, "the subscription to the registry", followed).await;
        served?;
        tracing::info!("stopped");
        Ok(())
    }
}
