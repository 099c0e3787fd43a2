//! Checks of a model's servers, step by step: what an inference call would find, and what to do about it.
//!
//! Each step goes out by the same clients, dialects and prompts as a call, so that a check cannot pass where calls fail. It
//! takes no place of the model and says nothing to the health of its servers: nobody's call depends on it.

mod advice;
mod dial;
mod models;
mod server;
mod steps;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use http::HeaderMap;
use switchboard::{
    endpoint::EndpointUri, names::ModelName, reason::Reason, resource::model::ModelSpec, service::request_id::RequestId,
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

pub use self::steps::{Problem, Step, StepKind, StepOutcome};
use self::{server::ServerCheck, steps::Steps};
use crate::{
    catalog::{CompiledTls, Credential},
    upstream::{Upstream, fault::Culprit},
};

/// Checks that are made at a time; the others wait.
const RUNNING_MAX: usize = 4;
/// Servers that one check asks at a time.
const ENDPOINTS_AT_ONCE: usize = 4;

/// A model whose servers are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedServers {
    /// How to call it.
    pub spec: Spec,
    /// Its credential.
    pub credential: CheckCredential,
}

/// How to call a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// What the model is.
    pub model: Arc<ModelSpec>,
    /// The name by which the servers know it.
    pub identifier: NameOnServers,
    /// How its servers prove who they are.
    pub tls: Option<Arc<CompiledTls>>,
}

impl Spec {
    /// What a check needs of a model. `name`: that of the model, if it has one.
    #[must_use]
    pub fn new(model: &Arc<ModelSpec>, name: Option<&ModelName>) -> Self {
        let identifier = match (model.sent_identifier(), name) {
            (Some(given), _) => NameOnServers::Given(given.to_owned()),
            (None, Some(name)) => NameOnServers::Default(name.id().to_owned()),
            (None, None) => NameOnServers::None,
        };
        Self {
            identifier,
            tls: CompiledTls::of(&model.tls).map(Arc::new),
            model: Arc::clone(model),
        }
    }
}

/// The name by which servers know a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameOnServers {
    /// The administrator gave it.
    Given(String),
    /// Nobody gave one: the server's list decides with the model's own id, which is sent where the list tells nothing.
    Default(String),
    /// There is none, not even by default.
    None,
}

/// The credential that goes along.
#[derive(Debug, Clone)]
pub enum CheckCredential {
    /// None is wanted.
    None,
    /// This one.
    Set(Arc<Credential>),
    /// There is one, but not for these servers.
    Dropped,
}

impl PartialEq for CheckCredential {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Set(one), Self::Set(other)) => one.id == other.id,
            (Self::None, Self::None) | (Self::Dropped, Self::Dropped) => true,
            (Self::None | Self::Set(_) | Self::Dropped, _) => false,
        }
    }
}

impl Eq for CheckCredential {}

/// What a check has found of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The server. `None`: the check did not come that far.
    pub endpoint: Option<EndpointUri>,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

impl Finding {
    /// That this router could not check.
    #[must_use]
    pub fn unable(reason: Reason, message: impl Into<String>, remedy: &'static str) -> Self {
        let problem = Problem {
            culprit: Culprit::Switchboard,
            reason,
            message: message.into(),
            remedy: remedy.into(),
        };
        Self {
            endpoint: None,
            steps: vec![Step {
                kind: StepKind::Router,
                outcome: StepOutcome::Failed(problem),
                latency: None,
            }],
        }
    }

    fn late() -> Self {
        Self::unable(
            Reason::DeadlineExceeded,
            "the time was over before this could be checked",
            "allow the call more time, or check again when fewer checks are made",
        )
    }

    /// Whether no step has failed.
    #[must_use]
    pub fn passed(&self) -> bool {
        !self
            .steps
            .iter()
            .any(|step| matches!(step.outcome, StepOutcome::Failed(_)))
    }
}

/// Makes checks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Checker {
    upstream: Upstream,
    places: Arc<Semaphore>,
}

impl Checker {
    /// A checker that goes out as `upstream` does.
    #[must_use]
    pub fn new(upstream: Upstream) -> Self {
        Self {
            upstream,
            places: Arc::new(Semaphore::new(RUNNING_MAX)),
        }
    }

    /// Checks every server of a model until `deadline`, and waits for its turn before.
    ///
    /// # Cancel safety
    ///
    /// Dropped, all connections are closed.
    pub async fn check(&self, subject: &CheckedServers, deadline: Instant) -> Vec<Finding> {
        let Ok(Ok(_place)) = timeout_at(deadline, self.places.acquire()).await else {
            return vec![Finding::late()];
        };
        let endpoints = subject.spec.model.uris();
        let checks: Vec<_> = endpoints
            .map(|endpoint| self.endpoint(subject, endpoint, deadline))
            .collect();
        stream::iter(checks).buffered(ENDPOINTS_AT_ONCE).collect().await
    }

    async fn endpoint(&self, subject: &CheckedServers, endpoint: &EndpointUri, deadline: Instant) -> Finding {
        if Instant::now() >= deadline {
            return Finding {
                endpoint: Some(endpoint.clone()),
                ..Finding::late()
            };
        }
        let server = ServerCheck {
            upstream: &self.upstream,
            subject,
            endpoint,
            request_id: RequestId::from_headers(&HeaderMap::new()),
            deadline,
        };
        let mut steps = Steps::default();
        // What it ends with is in the steps.
        let _failed = server.walk(&mut steps).await;
        Finding {
            endpoint: Some(endpoint.clone()),
            steps: steps.finish(),
        }
    }
}
