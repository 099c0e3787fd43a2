//! The router as a whole: bound, then run to its end.
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
        health::Part,
        metrics,
        serve::{self, BindError, END_TIMEOUT, Limits, Ports, ServeError, Services, Shutdown},
    },
};
use tokio::{task::JoinSet, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{server::NamedService as _, service::Routes};

use crate::{
    call,
    check::Checker,
    config::Config,
    current::Current,
    endpoints::Endpoints,
    grpc::{inference::InferenceApi, routing::RoutingApi},
    probe::Prober,
    subscription::{Subscription, SubscriptionConfig},
    telemetry,
    upstream::{Upstream, names::Names},
};

const LIMITS: Limits = Limits {
    streams_per_connection: 1024,
    connections: 4096,
    message_bytes: 4 * 1024 * 1024,
};

/// For dialling a model server: name, connection and TLS handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

const SERVICES: &[&str] = &[
    InferenceServiceServer::<InferenceApi>::NAME,
    RoutingServiceServer::<RoutingApi>::NAME,
];

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

/// A router that has its ports, and does not serve yet.
#[derive(Debug)]
pub struct Server {
    config: Config,
    ports: Ports,
    upstream: Upstream,
}

impl Server {
    /// Binds both ports and builds the client of the model servers.
    ///
    /// # Errors
    ///
    /// [`StartError`] says which of them failed.
    pub fn bind(config: Config) -> Result<Self, StartError> {
        let ports = Ports::bind(config.listen_addr, config.admin_addr, LIMITS)?;
        let names = Names::default();
        let endpoints = Endpoints::new(&config.group, names.clone());
        let upstream = Upstream::new(CONNECT_TIMEOUT, names, endpoints).map_err(StartError::Tls)?;
        Ok(Self {
            config,
            ports,
            upstream,
        })
    }

    /// Serves until `stop` is cancelled and all has ended in order.
    ///
    /// # Errors
    ///
    /// [`ServeError`] when it cannot begin, or the transport fails for good.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it ends all at once.
    pub async fn run(self, stop: CancellationToken) -> Result<(), ServeError> {
        let Self {
            config,
            ports,
            upstream,
        } = self;
        tracing::info!(?config, "starting");
        let current = Arc::new(Current::default());
        let mut metrics = metrics::of_service("router");
        let own = metrics.sub_registry_with_prefix("router");
        upstream.metrics().register(own);
        telemetry::register_current(&current, own);
        upstream.endpoints().register(&current, own);
        let subscription = Subscription::new(
            SubscriptionConfig {
                registry_addrs: config.registry_addrs,
                router_id: config.router_id,
                group: config.group,
                instance: InstanceId::random(),
                build: env!("CARGO_PKG_VERSION").to_owned(),
                snapshot: config.snapshot,
            },
            Arc::clone(&current),
            upstream.endpoints().clone(),
        )
        .checking(Checker::new(upstream.clone()));
        subscription.metrics().register(own);
        let progress = subscription.progress();
        let following_stop = CancellationToken::new();
        let mut following = JoinSet::new();
        // Best effort: without it the last catalog stays in use, as it does while the registry is away.
        following.spawn(subscription.run(following_stop.clone()));
        // Best effort too: without it servers are dialled by their names alone.
        let names = upstream.names().clone();
        following.spawn(names.follow(Arc::clone(&current), following_stop.clone()));

        let prober = Prober::new(Arc::clone(&current), upstream.clone());
        prober.register(own);
        // Best effort as well: calls tell more of a server than probes.
        following.spawn(prober.run(stop.clone()));

        let (calls, drain) = (TaskTracker::new(), CancellationToken::new());
        let (ready, confirmed) = (current.ready(), current.confirmed());
        let inference = InferenceApi::new(current, upstream, call::Limits::default(), calls.clone(), drain.clone())
            .padding(config.pad_messages);
        inference.calls().permits().register(own);
        let routing = RoutingApi::new(inference.calls().clone(), progress, stop.clone());
        let routes = Routes::default()
            .add_service(bounded!(InferenceServiceServer::new(inference), LIMITS.message_bytes))
            .add_service(bounded!(RoutingServiceServer::new(routing), LIMITS.message_bytes));
        let services = Services {
            routes,
            names: SERVICES,
            parts: vec![Part {
                name: CONFIG_FRESH,
                serves: confirmed,
            }],
            reflection: config.reflection,
            ready,
            metrics,
        };
        let shutdown = Shutdown {
            stop,
            grace: config.drain_timeout,
            end: drain,
        };
        let served = serve::serve(ports, services, LIMITS, config.ready_file.as_deref(), shutdown).await;

        calls.close();
        if timeout(END_TIMEOUT, calls.wait()).await.is_err() {
            tracing::warn!("calls did not end in time");
        }
        following_stop.cancel();
        let followed = async { while following.join_next().await.is_some() {} };
        if timeout(2 * END_TIMEOUT, followed).await.is_err() {
            tracing::warn!("the subscription to the registry did not end in time");
        }
        served?;
        tracing::info!("stopped");
        Ok(())
    }
}
