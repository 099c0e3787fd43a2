//! Checks of a model's servers, step by step: what an inference call would find, and what to do about it.
//!
//! Each step goes out by the same clients, dialects and prompts as a call, so that a check cannot pass where calls fail. It
//! takes no place of the model and says nothing to the health of its servers: nobody's call depends on it.

mod advice;
mod dial;
mod list;
mod steps;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use http::HeaderMap;
use switchboard::{
    catalogue::Family, endpoint::EndpointUri, names::FeatureName, reason::Reason, service::request_id::RequestId,
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

pub use self::steps::{Fault, Outcome, Problem, Step, StepKind};
use self::{list::Listed, steps::Steps};
use crate::{
    catalog::{Credential, InfillMode, Limits, Platform, Tls},
    prompt::{self, Infill, Input, InputNotSupported, Options, Request, Target, Text, Tools},
    upstream::{
        Outgoing, Upstream, UpstreamError,
        dialect::{
            Event,
            openai::{self, Post},
        },
    },
};

/// Checks that are made at a time; the others wait.
const RUNNING_MAX: usize = 4;
/// Servers that one check asks at a time.
const ENDPOINTS_AT_ONCE: usize = 4;
/// For connecting where the model says nothing else.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// For the list of models, which a server answers without computing anything.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);

/// A model whose servers are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// How to call it.
    pub spec: Spec,
    /// Its credential.
    pub credential: CheckCredential,
}

/// How to call a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Its family.
    pub family: &'static Family,
    /// The kind of API that its servers speak.
    pub platform: Platform,
    /// The name by which the servers know it.
    pub identifier: Identifier,
    /// Its servers.
    pub endpoints: Vec<EndpointUri>,
    /// How it completes code.
    pub infill_mode: InfillMode,
    /// The limits of its calls.
    pub limits: Limits,
    /// How its servers prove who they are.
    pub tls: Option<Arc<Tls>>,
}

// `Family` holds no number that is not equal to itself.
impl Eq for Spec {}

/// The name by which servers know a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identifier {
    /// The administrator gave it.
    Given(String),
    /// Nobody gave one: this one is sent where the server does not have exactly one model.
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
            fault: Fault::Switchboard,
            reason,
            message: message.into(),
            remedy: remedy.into(),
        };
        Self {
            endpoint: None,
            steps: vec![Step {
                kind: StepKind::Router,
                outcome: Outcome::Failed(problem),
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
        !self.steps.iter().any(|step| matches!(step.outcome, Outcome::Failed(_)))
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
    pub async fn check(&self, subject: &Subject, deadline: Instant) -> Vec<Finding> {
        let Ok(Ok(_place)) = timeout_at(deadline, self.places.acquire()).await else {
            return vec![Finding::late()];
        };
        let endpoints = subject.spec.endpoints.iter();
        let checks: Vec<_> = endpoints
            .map(|endpoint| self.endpoint(subject, endpoint, deadline))
            .collect();
        stream::iter(checks).buffered(ENDPOINTS_AT_ONCE).collect().await
    }

    async fn endpoint(&self, subject: &Subject, endpoint: &EndpointUri, deadline: Instant) -> Finding {
        if Instant::now() >= deadline {
            return Finding {
                endpoint: Some(endpoint.clone()),
                ..Finding::late()
            };
        }
        let one = OneEndpoint {
            upstream: &self.upstream,
            subject,
            endpoint,
            request_id: RequestId::from_headers(&HeaderMap::new()),
            deadline,
        };
        let mut steps = Steps::default();
        // What it ends with is in the steps.
        let _failed = one.walk(&mut steps).await;
        Finding {
            endpoint: Some(endpoint.clone()),
            steps: steps.finish(),
        }
    }
}

/// The check of one server.
struct OneEndpoint<'a> {
    upstream: &'a Upstream,
    subject: &'a Subject,
    endpoint: &'a EndpointUri,
    request_id: RequestId,
    deadline: Instant,
}

/// A step has failed: those behind it are not taken.
struct Failed;

/// What the server says of its models.
enum Models {
    /// These.
    Listed(Listed, Duration),
    /// Nothing that could be read as a list.
    Unlisted,
}

impl OneEndpoint<'_> {
    async fn walk(&self, steps: &mut Steps) -> Result<(), Failed> {
        let connect_within = self.subject.spec.limits.connect_timeout.unwrap_or(CONNECT_TIMEOUT);
        dial::walk(self.upstream, self.outgoing(), connect_within.min(self.left()), steps).await?;
        let models = self.ask_for_models(steps).await?;
        if matches!(self.subject.credential, CheckCredential::Dropped) {
            return steps.failed(StepKind::Credential, None, advice::dropped());
        }
        let identifier = self.identifier(&models).map_err(|problem| {
            self.accept_credential(steps);
            let _failed = steps.failed(StepKind::ModelList, None, problem);
            Failed
        })?;
        // The list may be open to anybody: what shows whether the credential and the name are good is a call.
        let begun = Instant::now();
        let answer = self.ask(&word(), &identifier).await;
        let took = begun.elapsed();
        match &answer {
            Err(Unable::Upstream(error @ UpstreamError::CredentialRejected(_))) => {
                return steps.failed(StepKind::Credential, None, self.problem(error));
            }
            Err(Unable::Upstream(UpstreamError::NotFound)) => {
                self.accept_credential(steps);
                return steps.failed(StepKind::ModelList, None, advice::unknown_model(&identifier, &models));
            }
            Ok(()) | Err(_) => self.accept_credential(steps),
        }
        match &models {
            Models::Listed(listed, latency) if listed.has(&identifier) => {
                steps.passed(StepKind::ModelList, Some(*latency), "");
            }
            Models::Listed(_, latency) => steps.passed(
                StepKind::ModelList,
                Some(*latency),
                "the server does not list the model's identifier, and answers to it all the same",
            ),
            Models::Unlisted => steps.skipped(StepKind::ModelList, "the server has no list of its models"),
        }
        self.settle(steps, StepKind::Chat, took, answer)?;
        let begun = Instant::now();
        let answer = self.stream(&word(), &identifier).await;
        self.settle(steps, StepKind::Streaming, begun.elapsed(), answer)?;
        let begun = Instant::now();
        let answer = self.ask(&gap(), &identifier).await;
        self.settle(steps, StepKind::Infill, begun.elapsed(), answer)
    }

    /// The steps `http` and, where the server refuses it already here, `credential`.
    async fn ask_for_models(&self, steps: &mut Steps) -> Result<Models, Failed> {
        if self.subject.spec.platform != Platform::OpenAiCompatible {
            steps.skipped(
                StepKind::Http,
                "this platform is asked for no list: the calls below show it",
            );
            return Ok(Models::Unlisted);
        }
        let begun = Instant::now();
        let limit = LIST_TIMEOUT.min(self.left());
        let answer = match tokio::time::timeout(limit, self.upstream.get(self.outgoing(), list::PATH)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(UpstreamError::FirstTokenTimeout(limit)),
        };
        let took = begun.elapsed();
        let models = match answer {
            Ok(body) => list::parse(&body).map_or(Models::Unlisted, |listed| Models::Listed(listed, took)),
            // It speaks HTTP, and has no such list.
            Err(
                UpstreamError::NotFound
                | UpstreamError::Rejected { .. }
                | UpstreamError::UnexpectedStatus(_)
                | UpstreamError::UnexpectedContentType,
            ) => Models::Unlisted,
            Err(error @ UpstreamError::CredentialRejected(_)) => {
                steps.passed(StepKind::Http, Some(took), "");
                steps.failed(StepKind::Credential, None, self.problem(&error))?;
                return Err(Failed);
            }
            Err(error) => {
                steps.failed(StepKind::Http, Some(took), self.problem(&error))?;
                return Err(Failed);
            }
        };
        steps.passed(StepKind::Http, Some(took), "");
        Ok(models)
    }

    fn accept_credential(&self, steps: &mut Steps) {
        let message = match self.subject.credential {
            CheckCredential::None => "the model has no API token, and the server wants none",
            CheckCredential::Set(_) | CheckCredential::Dropped => "",
        };
        steps.passed(StepKind::Credential, None, message);
    }

    /// The name by which the server is asked.
    fn identifier(&self, models: &Models) -> Result<String, Problem> {
        let only = match models {
            Models::Listed(listed, _) => listed.only(),
            Models::Unlisted => None,
        };
        match (&self.subject.spec.identifier, only) {
            (Identifier::Given(given), _) => Ok(given.clone()),
            (Identifier::Default(_) | Identifier::None, Some(only)) => Ok(only.to_owned()),
            (Identifier::Default(default), None) => match models {
                Models::Listed(listed, _) if !listed.has(default) => Err(advice::several_models(listed)),
                Models::Listed(..) | Models::Unlisted => Ok(default.clone()),
            },
            (Identifier::None, None) => Err(match models {
                Models::Listed(listed, _) => advice::several_models(listed),
                Models::Unlisted => advice::no_identifier(),
            }),
        }
    }

    fn settle(
        &self,
        steps: &mut Steps,
        kind: StepKind,
        took: Duration,
        answer: Result<(), Unable>,
    ) -> Result<(), Failed> {
        match answer {
            Ok(()) => steps.passed(kind, Some(took), ""),
            Err(Unable::Input(why)) => steps.skipped(kind, why.to_string()),
            Err(Unable::Upstream(error)) => return steps.failed(kind, Some(took), self.problem(&error)),
            Err(Unable::Internal) => return steps.failed(kind, None, advice::internal()),
        }
        Ok(())
    }

    fn problem(&self, error: &UpstreamError) -> Problem {
        advice::upstream(error, !matches!(self.subject.credential, CheckCredential::None))
    }

    async fn ask(&self, request: &Request, identifier: &str) -> Result<(), Unable> {
        let post = self.post(request, identifier)?;
        let limit = self.left();
        let asked = tokio::time::timeout(limit, self.upstream.ask(self.outgoing(), &post)).await;
        asked.map_err(|_elapsed| UpstreamError::FirstTokenTimeout(limit))??;
        Ok(())
    }

    async fn stream(&self, request: &Request, identifier: &str) -> Result<(), Unable> {
        let post = self.post(request, identifier)?;
        let limit = self.left();
        let streamed = async {
            let mut answer = self.upstream.post(self.outgoing(), &post).await?;
            loop {
                match answer.next().await? {
                    Some(Event::Delta(_) | Event::Finish(_)) => return Ok(()),
                    Some(Event::Usage(_)) => {}
                    Some(Event::Done) | None => return Err(UpstreamError::Truncated),
                }
            }
        };
        let streamed = tokio::time::timeout(limit, streamed).await;
        streamed.map_err(|_elapsed| UpstreamError::FirstTokenTimeout(limit))??;
        Ok(())
    }

    fn post(&self, request: &Request, identifier: &str) -> Result<Post, Unable> {
        let Spec {
            family,
            infill_mode,
            limits,
            ..
        } = &self.subject.spec;
        let target = Target {
            family,
            infill_mode: *infill_mode,
            max_output_tokens: limits.max_output_tokens,
        };
        // Which feature asks makes no difference to one token.
        let feature = FeatureName::parse("features/duo_chat").map_err(|_never| Unable::Internal)?;
        let prompt = prompt::render(request, &feature, &target)?;
        openai::encode(&prompt, identifier, &family.machine_name).map_err(|_unserializable| Unable::Internal)
    }

    fn outgoing(&self) -> Outgoing<'_> {
        Outgoing {
            endpoint: self.endpoint,
            credential: match &self.subject.credential {
                CheckCredential::Set(credential) => Some(credential),
                CheckCredential::None | CheckCredential::Dropped => None,
            },
            tls: self.subject.spec.tls.as_ref(),
            connect_timeout: self.subject.spec.limits.connect_timeout,
            request_id: &self.request_id,
        }
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

/// Why a call of a check has not succeeded.
#[derive(Debug, thiserror::Error)]
enum Unable {
    /// The model takes no such input, which is no fault.
    #[error(transparent)]
    Input(#[from] InputNotSupported),
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error("a mistake of the router's own")]
    Internal,
}

/// A call for one token.
fn word() -> Request {
    request(Input::Prompt(Text::from("Say yes.".to_owned())))
}

/// The same, between a prefix and a suffix.
fn gap() -> Request {
    request(Input::Infill(Infill {
        prefix: Text::from("def add(a, b):\n    return ".to_owned()),
        suffix: Text::from("\n".to_owned()),
        ..Infill::default()
    }))
}

fn request(input: Input) -> Request {
    Request {
        feature: String::new(),
        input,
        tools: Tools::default(),
        response_format: None,
        options: Options {
            max_output_tokens: Some(1),
            ..Options::default()
        },
        affinity_key: None,
    }
}
