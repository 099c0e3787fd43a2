//! Checks a model's servers step by step: shows what an inference call would find, and how to fix a problem.
//!
//! Each step uses the same clients, dialects and prompts as a call, so that a check cannot pass where calls fail. A
//! check uses none of the model's places and does not change the health of its servers, so it does not affect any call.

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

/// The maximum number of checks at a time; the others wait.
const RUNNING_MAX: usize = 4;
/// The maximum number of servers that one check contacts at a time.
const ENDPOINTS_AT_ONCE: usize = 4;

/// A model whose servers are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedServers {
    /// How to call the model.
    pub spec: Spec,
    /// The model's credential.
    pub credential: CheckCredential,
}

/// How to call a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The model's configuration.
    pub model: Arc<ModelSpec>,
    /// The name by which the servers know the model.
    pub identifier: NameOnServers,
    /// How the servers' certificates are verified. `None`: with the system's roots and the endpoint's host name.
    pub tls: Option<Arc<CompiledTls>>,
}

impl Spec {
    /// Creates what a check needs of a model. `name` is the model's name, if it has one yet.
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
    /// The administrator has set it.
    Given(String),
    /// It is not set: the server's model list and the model's own id decide. If the list does not help, the id is sent.
    Default(String),
    /// It is not set, and the model has no id that could be sent instead.
    None,
}

/// The credential that a check sends.
#[derive(Debug, Clone)]
pub enum CheckCredential {
    /// The model has none.
    None,
    /// The model's credential.
    Set(Arc<Credential>),
    /// The model has one, but it may not be sent to these servers.
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

/// The result of a check for one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The server. `None`: the check did not reach any server.
    pub endpoint: Option<EndpointUri>,
    /// The steps with their results, in order.
    pub steps: Vec<Step>,
}

impl Finding {
    /// Creates the result of a check that this router could not make.
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
            "the deadline passed before the check could begin",
            "allow the call more time, or check again when fewer checks are running",
        )
    }

    /// Whether no step failed.
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
    /// Creates a checker that contacts servers through `upstream`.
    #[must_use]
    pub fn new(upstream: Upstream) -> Self {
        Self {
            upstream,
            places: Arc::new(Semaphore::new(RUNNING_MAX)),
        }
    }

    /// Checks every server of a model until `deadline`. While too many checks are running, it waits.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes all connections.
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
        // The result is in `steps`.
        let _failed = server.walk(&mut steps).await;
        Finding {
            endpoint: Some(endpoint.clone()),
            steps: steps.finish(),
        }
    }
}
