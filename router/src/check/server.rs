//! The check of one server: the steps that follow the connection, in an order in which each builds on the ones before.

use std::time::Duration;

use http::StatusCode;
use switchboard::{
    endpoint::EndpointUri,
    names::FeatureName,
    resource::model::{Count, Timeout},
    service::request_id::RequestId,
};
use tokio::time::{Instant, timeout};

use super::{
    CheckCredential, CheckedServers, NameOnServers, Problem, StepKind, advice, dial,
    models::Models,
    steps::{StepFailed, Steps},
};
use crate::{
    catalog::is_probed,
    prompt::{self, Infill, Input, InputNotSupported, Options, PromptTarget, Request, Text, Tools},
    upstream::{
        Outgoing, Upstream, UpstreamError,
        dialect::{self, EncodeError, Event, Post},
        get::{Question, Reply},
        model_list::{self, ModelList},
    },
};

/// Timeout for the model list, which a server returns without computing anything.
const LIST_TIMEOUT: Duration = Duration::from_secs(10);

/// The check of one server.
pub(super) struct ServerCheck<'a> {
    pub(super) upstream: &'a Upstream,
    pub(super) subject: &'a CheckedServers,
    pub(super) endpoint: &'a EndpointUri,
    pub(super) request_id: RequestId,
    pub(super) deadline: Instant,
}

impl ServerCheck<'_> {
    /// Runs the steps until one fails. The results are in `steps`.
    pub(super) async fn walk(&self, steps: &mut Steps) -> Result<(), StepFailed> {
        let given = self.subject.spec.model.limits.connect_timeout.map(Timeout::get);
        let limit = given
            .unwrap_or_else(|| self.upstream.connect_timeout())
            .min(self.left());
        dial::walk(self.upstream, self.outgoing(""), limit, steps).await?;
        let models = self.ask_for_models(steps).await?;
        if matches!(self.subject.credential, CheckCredential::Dropped) {
            return Err(steps.failed(StepKind::Credential, None, advice::dropped()));
        }
        let identifier = self.identifier(&models).map_err(|problem| {
            self.accept_credential(steps);
            steps.failed(StepKind::ModelList, None, problem)
        })?;
        // Anyone may be allowed to read the list: only a call shows whether the credential and the identifier are
        // right.
        let begun = Instant::now();
        let answer = self.ask(&word(), &identifier).await;
        let took = begun.elapsed();
        match &answer {
            Err(Unable::Upstream(error @ UpstreamError::CredentialRejected(_))) => {
                return Err(steps.failed(StepKind::Credential, None, self.problem(error)));
            }
            Err(Unable::Upstream(UpstreamError::NotFound)) => {
                self.accept_credential(steps);
                return Err(steps.failed(StepKind::ModelList, None, advice::unknown_model(&identifier, &models)));
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
                "the server does not list the model's identifier, but answers calls that use it",
            ),
            Models::Unlisted => steps.skipped(StepKind::ModelList, "no list of the server's models is available"),
        }
        self.settle(steps, StepKind::Chat, took, answer)?;
        let begun = Instant::now();
        let answer = self.stream(&word(), &identifier).await;
        self.settle(steps, StepKind::Streaming, begun.elapsed(), answer)?;
        let begun = Instant::now();
        let answer = self.ask(&gap(), &identifier).await;
        self.settle(steps, StepKind::Infill, begun.elapsed(), answer)
    }

    /// Runs the step `http`, and the step `credential` if the server refuses the credential at this point.
    async fn ask_for_models(&self, steps: &mut Steps) -> Result<Models, StepFailed> {
        if !is_probed(&self.subject.spec.model.platform) {
            let why = "servers of this platform are not asked for a model list: the calls below test HTTP";
            steps.skipped(StepKind::Http, why);
            return Ok(Models::Unlisted);
        }
        let begun = Instant::now();
        let answer = self.model_list().await;
        let took = begun.elapsed();
        match answer {
            Ok(list) => {
                steps.passed(StepKind::Http, Some(took), "");
                Ok(list.map_or(Models::Unlisted, |list| Models::Listed(list, took)))
            }
            Err(error @ UpstreamError::CredentialRejected(_)) => {
                steps.passed(StepKind::Http, Some(took), "");
                Err(steps.failed(StepKind::Credential, None, self.problem(&error)))
            }
            Err(error) => Err(steps.failed(StepKind::Http, Some(took), self.problem(&error))),
        }
    }

    /// Returns the server's model list. `None`: the server speaks HTTP, but has no such list.
    async fn model_list(&self) -> Result<Option<ModelList>, UpstreamError> {
        let call = self.outgoing("");
        let question = Question {
            endpoint: call.endpoint,
            address: call.address,
            credential: call.credential,
            tls: call.tls,
            connect_timeout: call.connect_timeout,
            path: model_list::PATH,
            bytes_max: model_list::BYTES_MAX,
        };
        let limit = LIST_TIMEOUT.min(self.left());
        let asked = timeout(limit, self.upstream.get(question)).await;
        let Reply { status, body } = asked.map_err(|_elapsed| UpstreamError::FirstTokenTimeout(limit))??;
        let code = status.as_u16();
        match status {
            StatusCode::OK => Ok(ModelList::parse(&body)),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(UpstreamError::CredentialRejected(code)),
            StatusCode::NOT_IMPLEMENTED => Ok(None),
            _ if status.is_redirection() => Err(UpstreamError::Redirected(code)),
            _ if status.is_server_error() => Err(UpstreamError::Server(Some(code))),
            _ => Ok(None),
        }
    }

    fn accept_credential(&self, steps: &mut Steps) {
        let message = match self.subject.credential {
            CheckCredential::None => "the model has no API token, and the server does not require one",
            CheckCredential::Set(_) | CheckCredential::Dropped => "",
        };
        steps.passed(StepKind::Credential, None, message);
    }

    /// Returns the identifier that the check sends: the same one as a call.
    pub(super) fn identifier(&self, models: &Models) -> Result<String, Problem> {
        let list = match models {
            Models::Listed(list, _) => Some(list),
            Models::Unlisted => None,
        };
        let listed = |id: &str| list.and_then(|list| list.identifier(id)).map(str::to_owned);
        match &self.subject.spec.identifier {
            NameOnServers::Given(given) => Ok(given.clone()),
            NameOnServers::Default(id) => Ok(listed(id).unwrap_or_else(|| id.clone())),
            NameOnServers::None => {
                listed("").ok_or_else(|| list.map_or_else(advice::no_identifier, advice::several_models))
            }
        }
    }

    fn settle(
        &self,
        steps: &mut Steps,
        kind: StepKind,
        took: Duration,
        answer: Result<(), Unable>,
    ) -> Result<(), StepFailed> {
        match answer {
            Ok(()) => steps.passed(kind, Some(took), ""),
            Err(Unable::Input(why)) => steps.skipped(kind, why.to_string()),
            Err(Unable::Upstream(error)) => return Err(steps.failed(kind, Some(took), self.problem(&error))),
            Err(Unable::Internal) => return Err(steps.failed(kind, None, advice::internal())),
        }
        Ok(())
    }

    fn problem(&self, error: &UpstreamError) -> Problem {
        advice::upstream(
            error,
            self.endpoint,
            !matches!(self.subject.credential, CheckCredential::None),
        )
    }

    async fn ask(&self, request: &Request, identifier: &str) -> Result<(), Unable> {
        let post = self.post(request)?;
        let limit = self.left();
        let asked = timeout(limit, self.upstream.ask(self.outgoing(identifier), &post)).await;
        asked.map_err(|_elapsed| UpstreamError::FirstTokenTimeout(limit))??;
        Ok(())
    }

    async fn stream(&self, request: &Request, identifier: &str) -> Result<(), Unable> {
        let post = self.post(request)?;
        let limit = self.left();
        let streamed = async {
            let mut answer = self.upstream.post(self.outgoing(identifier), &post).await?;
            loop {
                match answer.next().await? {
                    Some(Event::Delta(_) | Event::Finish(_)) => return Ok(()),
                    Some(Event::Usage(_) | Event::Alive) => {}
                    Some(Event::Done) | None => return Err(UpstreamError::Truncated),
                }
            }
        };
        let streamed = timeout(limit, streamed).await;
        streamed.map_err(|_elapsed| UpstreamError::FirstTokenTimeout(limit))??;
        Ok(())
    }

    fn post(&self, request: &Request) -> Result<Post, Unable> {
        let model = &self.subject.spec.model;
        let target = PromptTarget {
            family: model.family,
            infill_mode: model.infill_mode(),
            max_output_tokens: model.limits.max_output_tokens.map(Count::get),
        };
        // The feature makes no difference to a request for one token.
        let feature = FeatureName::parse("features/duo_chat").map_err(|_never| Unable::Internal)?;
        let prompt = prompt::render(request, &feature, &target)?;
        let post = dialect::encode(&model.platform, &prompt, &model.family.machine_name);
        post.map_err(|error| match error {
            EncodeError::NotSupported(why) => Unable::Input(why),
            EncodeError::Json(_) => Unable::Internal,
        })
    }

    fn outgoing<'a>(&'a self, identifier: &'a str) -> Outgoing<'a> {
        Outgoing {
            endpoint: self.endpoint,
            address: None,
            identifier,
            credential: match &self.subject.credential {
                CheckCredential::Set(credential) => Some(credential),
                CheckCredential::None | CheckCredential::Dropped => None,
            },
            tls: self.subject.spec.tls.as_ref(),
            connect_timeout: self.subject.spec.model.limits.connect_timeout.map(Timeout::get),
            request_id: &self.request_id,
        }
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

/// Why a call of a check did not succeed.
#[derive(Debug, thiserror::Error)]
enum Unable {
    /// The model does not support this kind of input, which is not a failure.
    #[error(transparent)]
    Input(#[from] InputNotSupported),
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error("internal error in the router")]
    Internal,
}

/// Returns a request for one token.
fn word() -> Request {
    request(Input::Prompt(Text::from("Say yes.".to_owned())))
}

/// Returns a request for one token between a prefix and a suffix.
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
