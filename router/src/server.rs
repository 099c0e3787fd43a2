//! The router as a whole: [`assemble`] builds and connects all parts, [`RouterParts::supervise`] runs them to the end.
//!
//! The end, in order: not serving in health; no new connections, and silent ones closed; calls that run finish within the
//! drain time, and end with `SERVER_DRAINING` after it; what is open still is cut; the ready file goes; the subscription to
//! the registry ends.

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

/// For dialling a model server: name, connection and TLS handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// In health: whether a registry has confirmed the configuration, which may come from the snapshot file.
const CONFIG_FRESH: &str = "config-fresh";

/// Why the router cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// TLS towards model servers cannot be set up.
    #[error("set up TLS")]
    Tls(#[source] rustls::Error),
}

/// The parts of a router, connected with each other. None of them runs yet.
#[derive(Debug)]
pub struct RouterParts {
    services: Services,
    shutdown: Shutdown,
    subscription: Subscription,
    prober: Prober,
    /// The addresses behind the names of model servers, looked up for the catalog in `current`.
    names: Names,
    current: Arc<Current>,
    /// The calls that run.
    calls: TaskTracker,
}

/// Binds both ports, and builds all parts. A taken port fails before anything is done.
///
/// `stop` ends what is assembled.
///
/// # Errors
///
/// [`StartError`] says which of them failed.
pub fn assemble(config: Config, stop: CancellationToken) -> Result<RouterParts, StartError> {
    let ports = Ports::bind(config.listen_addr, config.admin_addr, LIMITS)?;
    let names = Names::default();
    let models = LiveModels::new(config.group.as_str(), names.clone());
    let upstream = Upstream::new(CONNECT_TIMEOUT, names.clone(), models.clone()).map_err(StartError::Tls)?;
    tracing::info!(?config, "starting");

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
    /// Runs all parts until they are stopped and have ended in order.
    ///
    /// # Errors
    ///
    /// [`ServeError`] when it cannot begin, or the transport fails for good.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it ends all at once.
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
        // Best effort: without it the last catalog stays in use, as it does while the registry is away.
        following.spawn(subscription.run(following_stop.clone()));
        // Best effort too: without it servers are dialled by their names alone.
        following.spawn(names.follow(current, following_stop.clone()));
        // Best effort as well: calls tell more of a server than probes.
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
