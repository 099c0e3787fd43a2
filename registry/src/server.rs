//! The registry as a whole: [`assemble`] builds and connects all parts, [`RegistryParts::supervise`] runs them to the end.
//!
//! The end, in order: not serving in health; no new connections, and silent ones closed; followers of the change stream
//! get a goodbye and OK; calls that run finish within the drain time; what is open still is cut; the ready file goes; the
//! writer finishes its queue; the database closes.

use std::sync::Arc;

use switchboard::{
    bounded,
    pb::{
        registry::{
            feature_service_server::FeatureServiceServer, model_service_server::ModelServiceServer,
            settings_service_server::SettingsServiceServer,
        },
        shared::config_service_server::ConfigServiceServer,
    },
    service::{
        health::HealthPart,
        metrics,
        process::{ExitWith, FatalError},
        serve::{self, BindError, Ports, ServeError, ServiceSet, Services, TransportLimits},
        shutdown::{END_TIMEOUT, Shutdown, end_within},
    },
};
use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    commit::{self, Commit, OpenError, Writer},
    config::Config,
    control::ControlSocket,
    domain::items::Retention,
    exit,
    feed::{Feed, withheld::Withheld},
    fleet::Fleet,
    grpc::{config::ConfigApi, feature::FeatureApi, history::HistoryApi, model::ModelApi, settings::SettingsApi},
    store::{History, Store, WriteFailure},
    telemetry,
};

const LIMITS: TransportLimits = TransportLimits {
    streams_per_connection: 256,
    connections: 2048,
    message_bytes: 1024 * 1024,
};

/// A whole configuration, and what surrounds it in its request.
const CONFIG_BYTES_MAX: usize = (16 * 1024 + 64) * 1024;

/// Whether writes can be made, as health tells it: the services go on serving reads without.
const WRITING: &str = "registry-write";

/// Under which name health tells that no router refuses this registry's history.
const HISTORY: &str = "history";

/// Why the registry cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The database cannot be used.
    #[error("open database {path}")]
    Open {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: OpenError,
    },
}

impl StartError {
    /// The error that ends the process: some failures have an exit code of their own.
    #[must_use]
    pub fn into_fatal(self) -> FatalError {
        let code = match &self {
            Self::Open { source, .. } => exit::code_of(source.kind()),
            Self::Bind(_) => None,
        };
        match code {
            Some(code) => ExitWith {
                code,
                cause: self.into(),
            }
            .into(),
            None => self.into(),
        }
    }
}

/// Why the registry ended otherwise than it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It could not serve.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// What is in memory and in the database may differ: a new start reads the truth.
    #[error("write to the database")]
    Write(#[source] WriteFailure),
    /// The writer panicked.
    #[error("run the writer")]
    Writer(#[source] JoinError),
}

/// The parts of a registry, connected with each other. None of them runs yet.
#[derive(Debug)]
pub struct RegistryParts {
    services: Services,
    shutdown: Shutdown,
    writer: Writer,
    /// The change streams, and the control socket.
    streams: TaskTracker,
    /// `None`: it could not be bound.
    control: Option<ControlSocket>,
    commit: Commit,
    withheld: Arc<Withheld>,
}

/// Binds both ports, opens the database, and builds all parts on top of it. A taken port fails before anything is done.
///
/// `stop` ends what is assembled. No task runs yet but the one that wakes followers when a state is published.
///
/// # Errors
///
/// [`StartError`] says which of them failed.
pub async fn assemble(config: Config, stop: &CancellationToken) -> Result<RegistryParts, StartError> {
    let ports = Ports::bind(config.listen_addr, config.admin_addr, LIMITS)?;
    let opened = async {
        let (store, loaded) = Store::open_as(&config.database, config.store_id).await?;
        commit::begin(store, loaded, Retention::default()).await
    };
    let (writer, commit) = opened.await.map_err(|source| StartError::Open {
        path: config.database.display().to_string(),
        source,
    })?;
    // Best effort: without it what goes by it takes a stopped registry.
    let control = ControlSocket::bind(&config.database)
        .inspect_err(|error| {
            let error = error as &dyn std::error::Error;
            tracing::warn!(error, "the control socket cannot be made");
        })
        .ok();
    tracing::info!(?config, revision = %commit.state().items.revision(), "starting");

    // The writer's failure stops the rest, and leaves the caller's token alone.
    let shutdown = Shutdown::new(stop.child_token(), config.drain_timeout);
    let streams = TaskTracker::new();
    let fleet = Arc::new(Fleet::default());
    let feed = Feed::new(
        commit.published(),
        commit.pulse(),
        Arc::clone(&fleet),
        config.heartbeat,
        streams.clone(),
        shutdown.stop.clone(),
    );
    let withheld = feed.withheld();
    let mut metrics = metrics::of_service("registry");
    let own = metrics.sub_registry_with_prefix("registry");
    commit.metrics().register(own);
    telemetry::register_state(commit.published(), own);
    telemetry::register_feed(&feed, own);
    let parts = vec![
        HealthPart {
            name: WRITING,
            serves: commit.is_able(),
        },
        HealthPart {
            name: HISTORY,
            serves: withheld.is_accepted(),
        },
    ];
    // Open for reading and writing from the first moment on.
    let (_ready, ready) = watch::channel(true);
    let services = Services {
        ports,
        limits: LIMITS,
        ready_file: config.ready_file,
        set: services(&commit, fleet, feed, History::new(config.database)),
        parts,
        reflection: config.reflection,
        ready,
        metrics,
    };
    Ok(RegistryParts {
        services,
        shutdown,
        writer,
        streams,
        control,
        commit,
        withheld,
    })
}

fn services(commit: &Commit, fleet: Arc<Fleet>, feed: Feed, history: History) -> ServiceSet {
    let models = ModelServiceServer::new(ModelApi::new(commit.clone(), fleet));
    let features = FeatureServiceServer::new(FeatureApi::new(commit.clone()));
    let settings = SettingsServiceServer::new(SettingsApi::new(commit.clone()));
    let config = ConfigServiceServer::new(ConfigApi::new(feed, HistoryApi::new(commit.clone(), history)));
    ServiceSet::default()
        .with(bounded!(models, LIMITS.message_bytes))
        .with(bounded!(features, LIMITS.message_bytes))
        .with(bounded!(settings, LIMITS.message_bytes))
        .with(bounded!(config, CONFIG_BYTES_MAX))
}

impl RegistryParts {
    /// Runs all parts until they are stopped and have ended in order.
    ///
    /// # Errors
    ///
    /// [`RunError`] when a part ended by itself.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: cancel the token that [`assemble`] was given and wait, so that the writer finishes and the database
    /// closes.
    pub async fn supervise(self) -> Result<(), RunError> {
        let Self {
            services,
            shutdown,
            writer,
            streams,
            control,
            commit,
            withheld,
        } = self;
        let stop = shutdown.stop.clone();
        if let Some(control) = control {
            streams.spawn(control.serve(commit, withheld, stop.clone()));
        }
        let writer_stop = CancellationToken::new();
        let mut writing = JoinSet::new();
        // Essential: without it nothing can be changed, and memory may differ from the database.
        writing.spawn(writer.run(writer_stop.clone()));
        let mut serving = std::pin::pin!(serve::serve(services, shutdown));

        let (served, written) = tokio::select! {
            served = &mut serving => (served, None),
            written = writing.join_next() => {
                stop.cancel();
                (serving.await, written)
            }
        };
        streams.close();
        end_within(END_TIMEOUT, "followers of the change stream", streams.wait()).await;
        writer_stop.cancel();
        let written = match written {
            None => writing.join_next().await,
            ended => ended,
        };
        if let Some(written) = written {
            written.map_err(RunError::Writer)?.map_err(RunError::Write)?;
        }
        served?;
        tracing::info!("stopped");
        Ok(())
    }
}
