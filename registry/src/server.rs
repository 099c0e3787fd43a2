//! The registry as a whole: [`assemble`] builds and connects all parts, [`RegistryParts::supervise`] runs and ends
//! them.
//!
//! The order of the shutdown: health reports not serving; no new connections are accepted, and idle ones are closed;
//! followers of the change stream get a goodbye and the status OK; running calls finish within the drain time;
//! connections that are still open are cut; the ready file is removed; the writer finishes its queue; the database
//! closes.

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

/// Maximum size of a message of `ConfigService`, in bytes: a whole configuration and the other fields of its request.
const CONFIG_BYTES_MAX: usize = (16 * 1024 + 64) * 1024;

/// Health name that reports whether the registry can write. If it cannot, the services still serve reads.
const WRITING: &str = "registry-write";

/// Health name that reports whether all routers accept this registry's history.
const HISTORY: &str = "history";

/// Why the registry cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The database cannot be used.
    #[error("could not open the database {path}")]
    Open {
        /// Path of the database file.
        path: String,
        /// The cause.
        #[source]
        source: OpenError,
    },
}

impl StartError {
    /// Converts the error into the one that ends the process; some failures have an exit code of their own.
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

/// Why the registry ended without being asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The services could not be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// A write failed, so memory and database may differ. A restart reads the database again.
    #[error("could not write to the database")]
    Write(#[source] WriteFailure),
    /// The writer's task panicked.
    #[error("the task of the writer failed")]
    Writer(#[source] JoinError),
}

/// The connected parts of a registry. None of them runs yet.
#[derive(Debug)]
pub struct RegistryParts {
    services: Services,
    shutdown: Shutdown,
    writer: Writer,
    /// Tracks the tasks of the change streams and of the control socket.
    streams: TaskTracker,
    /// `None` if the socket could not be bound.
    control: Option<ControlSocket>,
    commit: Commit,
    withheld: Arc<Withheld>,
}

/// Binds both ports, opens the database, and builds all parts on top of it. A port that is in use fails before any
/// other work is done.
///
/// Cancelling `stop` ends the assembled registry. Only one task runs already: it wakes followers when a state is
/// published.
///
/// # Errors
///
/// [`StartError`] names the step that failed.
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
    // Best effort: without the socket, `accept-history` only works while the registry is stopped.
    let control = ControlSocket::bind(&config.database)
        .inspect_err(|error| {
            let error = error as &dyn std::error::Error;
            tracing::warn!(error, "could not create the control socket");
        })
        .ok();
    config.log_start(commit.state().items.revision());

    // A failure of the writer stops the other parts but does not cancel the caller's token.
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
    // Reads and writes are possible from the start.
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
    /// Runs all parts until they are asked to stop and have ended in order.
    ///
    /// # Errors
    ///
    /// [`RunError`] if a part ended without being asked to.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: cancel the token that was passed to [`assemble`] and wait, so that the writer finishes and the
    /// database closes.
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
        // Essential: without the writer nothing can be changed, and memory may differ from the database.
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
