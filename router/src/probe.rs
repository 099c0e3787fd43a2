//! Probes servers outside of calls: asks for their health and for what they report about themselves.
//!
//! Each server of a model is probed separately, whatever features lead to it, and only with requests that generate
//! nothing: first `/health`, next to `/v1`. If the server does not have that, its model list is read; if it has no list
//! either, any response is enough. Servers of hosted platforms are not probed. Other modules decide what follows from a
//! probe.

pub mod engine;

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use switchboard::resource::model::Timeout;

use crate::{
    catalog::{CompiledModel, ModelState},
    current::Current,
    endpoints::{Probed, ServerIdentity},
    rounds,
    upstream::{
        ServerLabel, Upstream, UpstreamError,
        get::{Question, Reply},
        model_list::{self, ModelList},
    },
};

/// How long a server may take to answer a health probe.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long a server may take to answer an optional question: its model list or its metrics.
const ASIDE_TIMEOUT: Duration = Duration::from_secs(1);
/// The maximum size of a response in bytes, which is that of a model list.
const BYTES_MAX: usize = model_list::BYTES_MAX;
const HEALTH: &str = "/health";
const METRICS: &str = "/metrics";

/// Probes the servers of the catalog in use. Clones share the counts.
#[derive(Debug, Clone)]
pub struct Prober {
    current: Arc<Current>,
    upstream: Upstream,
    counts: Family<ProbeLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProbeLabels {
    outcome: &'static str,
}

/// A server to probe, with the version of its model that is in use.
struct ProbeTarget<'a> {
    identity: &'a ServerIdentity,
    model: &'a CompiledModel,
}

impl Prober {
    /// Creates a prober for the servers of the catalog in `current`.
    #[must_use]
    pub fn new(current: Arc<Current>, upstream: Upstream) -> Self {
        Self {
            current,
            upstream,
            counts: Family::default(),
        }
    }

    /// Registers the metric.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Probes of model servers, by outcome";
        registry.register("probes", help, self.counts.clone());
    }

    /// Probes until `stop` is cancelled.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future aborts the probes in progress.
    pub async fn run(self, stop: CancellationToken) {
        let due = |_now| self.due();
        let turn = |identity: Arc<ServerIdentity>| {
            let prober = self.clone();
            async move { prober.probe(&identity).await }
        };
        rounds::run(due, turn, stop).await;
    }

    fn due(&self) -> Vec<Arc<ServerIdentity>> {
        let catalog = self.current.load();
        catalog.map_or_else(Vec::new, |catalog| self.upstream.models().to_probe(&catalog))
    }

    /// Probes one server.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection to the server; nothing is recorded.
    pub async fn probe(&self, identity: &ServerIdentity) {
        let catalog = self.current.load();
        let model = catalog.as_ref().and_then(|catalog| catalog.models.get(&identity.model));
        // If its model is no longer in use, the server need not be probed.
        if let Some(ModelState::Ready(model)) = model {
            self.probe_server(&ProbeTarget { identity, model }).await;
        }
    }

    async fn probe_server(&self, server: &ProbeTarget<'_>) {
        let asked = timeout(TIMEOUT, self.health(server)).await;
        let (health, list) = asked.unwrap_or((Err(UpstreamError::FirstTokenTimeout(TIMEOUT)), None));
        let (identity, models) = (server.identity, self.upstream.models());
        let (probed, outcome) = match &health {
            Ok(()) => (Probed::Passed, "passed"),
            Err(error) => {
                let reason = error.fault().reason;
                let label = ServerLabel::new(&identity.uri, identity.address);
                models.note_probe_error(identity, reason, &error.at(Some(&label)).to_string());
                (Probed::Failed(reason), "failed")
            }
        };
        self.counts.get_or_create_owned(&ProbeLabels { outcome }).inc();
        models.probed(identity, probed);
        if health.is_ok() {
            // Neither of them is essential, and a late answer is of no use.
            timeout(ASIDE_TIMEOUT, self.name(server, list)).await.ok();
            timeout(ASIDE_TIMEOUT, self.load(server)).await.ok();
        }
    }

    /// Returns the server's health, and its model list if that was asked for.
    async fn health(&self, server: &ProbeTarget<'_>) -> (Result<(), UpstreamError>, Option<Reply>) {
        match self.ask(server, HEALTH).await {
            Err(error) => return (Err(error), None),
            Ok(reply) => {
                if let Some(health) = told(reply.status) {
                    return (health, None);
                }
            }
        }
        match self.ask(server, model_list::PATH).await {
            Err(error) => (Err(error), None),
            Ok(list) => (told(list.status).unwrap_or(Ok(())), Some(list)),
        }
    }

    /// Reads the server's name for the model, if the model has no identifier of its own.
    async fn name(&self, server: &ProbeTarget<'_>, list: Option<Reply>) {
        if server.model.spec.identifier.is_some() {
            return;
        }
        let list = match list {
            Some(list) => Ok(list),
            None => self.ask(server, model_list::PATH).await,
        };
        // If there is no list, the name from an earlier list stays valid.
        if let Ok(list) = list
            && list.status == StatusCode::OK
        {
            let list = ModelList::parse(&list.body);
            let identifier = list.as_ref().and_then(|list| list.identifier(server.model.name.id()));
            let models = self.upstream.models();
            models.listed(server.identity, identifier.map(str::to_owned));
        }
    }

    /// Reads the load of the server's engine, if calls can choose among several servers.
    async fn load(&self, server: &ProbeTarget<'_>) {
        let models = self.upstream.models();
        if !models.wants_metrics(server.identity) {
            return;
        }
        let load = match self.ask(server, METRICS).await {
            // The metrics may be available next time.
            Ok(page) if page.status.is_server_error() => return,
            Ok(page) => engine::load(&String::from_utf8_lossy(&page.body)),
            Err(UpstreamError::TooLarge(_)) => None,
            Err(_) => return,
        };
        models.measured(server.identity, load);
    }

    async fn ask(&self, server: &ProbeTarget<'_>, path: &'static str) -> Result<Reply, UpstreamError> {
        let ProbeTarget { identity, model } = *server;
        let question = Question {
            endpoint: &identity.uri,
            address: identity.address,
            // Only the model list belongs to the API that the token is for.
            credential: model.credential.as_deref().filter(|_| path == model_list::PATH),
            tls: identity.tls.as_ref(),
            connect_timeout: model.spec.limits.connect_timeout.map(Timeout::get),
            path,
            bytes_max: BYTES_MAX,
        };
        self.upstream.get(question).await
    }
}

/// Returns what a status says about a server's health. `None`: only that the server responds.
fn told(status: StatusCode) -> Option<Result<(), UpstreamError>> {
    if status.is_success() {
        Some(Ok(()))
    } else if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED {
        Some(Err(UpstreamError::Server(Some(status.as_u16()))))
    } else {
        None
    }
}
