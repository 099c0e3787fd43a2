//! How servers do beside their calls, and what they tell of themselves.
//!
//! Each server of a model is asked on its own, whatever features lead to it, and only what has it generate nothing: `/health`
//! beside `/v1`, where it has none the model list, and where it has none either that it answers is all. Platforms
//! of others are not asked. What follows from a probe others decide.

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
        Upstream, UpstreamError,
        get::{Question, Reply},
        model_list::{self, ModelList},
    },
};

/// How long a server may take to say how it does.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may take to say what is only good to know.
const ASIDE_TIMEOUT: Duration = Duration::from_secs(1);
/// The most bytes of an answer, the model list's own limit.
const BYTES_MAX: usize = model_list::BYTES_MAX;
const HEALTH: &str = "/health";
const METRICS: &str = "/metrics";

/// Probes the servers of the catalog in use. A clone counts in the same place.
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

/// A server, as its model has it now.
struct ProbeTarget<'a> {
    identity: &'a ServerIdentity,
    model: &'a CompiledModel,
}

impl Prober {
    /// A prober of what `current` holds.
    #[must_use]
    pub fn new(current: Arc<Current>, upstream: Upstream) -> Self {
        Self {
            current,
            upstream,
            counts: Family::default(),
        }
    }

    /// Shows what is counted.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Probes of model servers, by what they found";
        registry.register("probes", help, self.counts.clone());
    }

    /// Probes until `stop`.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it drops the probes that run.
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
    /// Dropped, the server is left at once, and nothing is taken down.
    pub async fn probe(&self, identity: &ServerIdentity) {
        let catalog = self.current.load();
        let model = catalog.as_ref().and_then(|catalog| catalog.models.get(&identity.model));
        // Without its model it is not to be probed any longer.
        if let Some(ModelState::Ready(model)) = model {
            self.probe_server(&ProbeTarget { identity, model }).await;
        }
    }

    async fn probe_server(&self, server: &ProbeTarget<'_>) {
        let asked = timeout(TIMEOUT, self.health(server)).await;
        let (probed, list) = match asked {
            Ok((probed, list)) => (probed, list),
            Err(_elapsed) => (failed(&UpstreamError::FirstTokenTimeout(TIMEOUT)), None),
        };
        let outcome = match probed {
            Probed::Passed => "passed",
            Probed::Failed(_) => "failed",
        };
        self.counts.get_or_create_owned(&ProbeLabels { outcome }).inc();
        self.upstream.models().probed(server.identity, probed);
        if let Probed::Passed = probed {
            // Each is worth little alone, and nothing if it is late.
            timeout(ASIDE_TIMEOUT, self.name(server, list)).await.ok();
            timeout(ASIDE_TIMEOUT, self.load(server)).await.ok();
        }
    }

    /// How a server does, and its model list if it was asked for that.
    async fn health(&self, server: &ProbeTarget<'_>) -> (Probed, Option<Reply>) {
        match self.ask(server, HEALTH).await {
            Err(error) => return (failed(&error), None),
            Ok(reply) => {
                if let Some(probed) = told(reply.status) {
                    return (probed, None);
                }
            }
        }
        match self.ask(server, model_list::PATH).await {
            Err(error) => (failed(&error), None),
            Ok(list) => (told(list.status).unwrap_or(Probed::Passed), Some(list)),
        }
    }

    /// Learns the server's name for a model that was given none.
    async fn name(&self, server: &ProbeTarget<'_>, list: Option<Reply>) {
        if server.model.spec.identifier.is_some() {
            return;
        }
        let list = match list {
            Some(list) => Ok(list),
            None => self.ask(server, model_list::PATH).await,
        };
        // Without a list what was learnt before still holds.
        if let Ok(list) = list
            && list.status == StatusCode::OK
        {
            let list = ModelList::parse(&list.body);
            let identifier = list.as_ref().and_then(|list| list.identifier(server.model.name.id()));
            let models = self.upstream.models();
            models.listed(server.identity, identifier.map(str::to_owned));
        }
    }

    /// Learns what the server's engine has to do, where there is a choice that it may help.
    async fn load(&self, server: &ProbeTarget<'_>) {
        let models = self.upstream.models();
        if !models.wants_metrics(server.identity) {
            return;
        }
        let load = match self.ask(server, METRICS).await {
            // It may be there another time.
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
            // Only the model list is a question of the API that the token is for.
            credential: model.credential.as_deref().filter(|_| path == model_list::PATH),
            tls: identity.tls.as_ref(),
            connect_timeout: model.spec.limits.connect_timeout.map(Timeout::get),
            path,
            bytes_max: BYTES_MAX,
        };
        self.upstream.get(question).await
    }
}

/// What a status tells of a server's health. `None`: nothing, but that it answers.
fn told(status: StatusCode) -> Option<Probed> {
    if status.is_success() {
        Some(Probed::Passed)
    } else if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED {
        Some(failed(&UpstreamError::Server(Some(status.as_u16()))))
    } else {
        None
    }
}

const fn failed(error: &UpstreamError) -> Probed {
    Probed::Failed(error.fault().reason)
}
