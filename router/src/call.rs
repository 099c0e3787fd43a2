//! One inference call, from admission to its end.
//!
//! It reads as the list in the design: admit, resolve, pick an endpoint, render, call, relay, finish. What is decided with
//! lies in pure rooms beside it.
//!
//! The one hard idea: the transport polls a response only while the caller reads. So each call has a task of its own, which
//! holds the deadline and the connection to the model; the caller's side only takes from a small queue. When the caller
//! goes, the queue closes, and the task drops the connection.

pub mod deadline;
mod failure;

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

use switchboard::{
    names::{FeatureName, Revision},
    service::request_id::RequestId,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument as _, field::Empty};

pub use self::failure::{CallError, CallFailure, Context};
use crate::{
    balance,
    catalog::{Endpoint, Model, SelectionReason},
    current::Current,
    prompt::{self, Request},
    relay::{self, PENDING_MAX, Patience, Progress},
    telemetry::Attempt,
    upstream::{
        Outgoing, Upstream, UpstreamError,
        answer::Answer,
        dialect::{
            Delta, FinishReason, Usage,
            openai::{self, Post},
        },
    },
};

/// How long the parts of a call may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The whole call, whatever its caller allows.
    pub total: Duration,
    /// From the beginning of an attempt to the first token.
    pub first_token: Duration,
    /// Between events of the model, and for the caller to take them.
    pub patience: Patience,
    /// For reading a body to its end behind the answer, so that the connection can carry another call.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            total: Duration::from_secs(15 * 60),
            first_token: Duration::from_secs(60),
            patience: Patience {
                idle: Duration::from_secs(30),
                slow_caller: Duration::from_secs(30),
                finish: Duration::from_millis(500),
            },
            drain: Duration::from_millis(100),
        }
    }
}

/// Who answers a call, and why.
#[derive(Debug, Clone)]
pub struct Selected {
    /// The feature that was asked for.
    pub feature: &'static FeatureName,
    /// The feature whose setting was used.
    pub source_feature: &'static FeatureName,
    /// The model.
    pub model: Arc<Model>,
    /// The server that is called.
    pub endpoint: Endpoint,
    /// What decided.
    pub reason: SelectionReason,
    /// The revision of the configuration that decided.
    pub revision: Revision,
}

/// How an answer ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// Why it ended.
    pub finish: FinishReason,
    /// What it cost. `None`: the server told nothing.
    pub usage: Option<Usage>,
}

/// An answer that has begun. Dropping it stops the model.
#[derive(Debug)]
pub struct Answering {
    selected: Selected,
    context: Context,
    first: Option<Delta>,
    deltas: mpsc::Receiver<Delta>,
    taken: u64,
    ended: oneshot::Receiver<Result<Completion, CallFailure>>,
    completion: Option<Completion>,
}

impl Answering {
    /// The next piece. `None`: only the end is left.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn delta(&mut self) -> Option<Delta> {
        let delta = match self.first.take() {
            Some(first) => Some(first),
            None => self.deltas.recv().await,
        };
        self.taken += u64::from(delta.is_some());
        delta
    }

    /// How the answer ended. To be asked when no piece is left, and not again after an error.
    ///
    /// # Errors
    ///
    /// [`CallFailure`] when it is not whole.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn end(&mut self) -> Result<Completion, CallFailure> {
        if let Some(completion) = self.completion {
            return Ok(completion);
        }
        let completion = match (&mut self.ended).await {
            Ok(result) => result?,
            // Only a panic leaves a call without an end.
            Err(_gone) => {
                return Err(CallFailure {
                    error: CallError::Internal,
                    context: self.context.clone(),
                    sent: self.taken,
                });
            }
        };
        self.completion = Some(completion);
        Ok(completion)
    }

    /// Who answers.
    #[must_use]
    pub const fn selected(&self) -> &Selected {
        &self.selected
    }
}

/// Makes inference calls.
#[derive(Debug, Clone)]
pub struct Calls {
    current: Arc<Current>,
    upstream: Upstream,
    limits: Limits,
    tasks: TaskTracker,
    drain: CancellationToken,
}

impl Calls {
    /// Calls that select from `current`, run as tasks of `tasks`, and end when `drain` is cancelled.
    #[must_use]
    pub const fn new(
        current: Arc<Current>,
        upstream: Upstream,
        limits: Limits,
        tasks: TaskTracker,
        drain: CancellationToken,
    ) -> Self {
        Self {
            current,
            upstream,
            limits,
            tasks,
            drain,
        }
    }

    /// Makes a call, up to the first token. `timeout` is what the caller allows for the whole of it.
    ///
    /// # Errors
    ///
    /// [`CallFailure`] for everything that goes wrong before the first token.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops the model.
    pub async fn stream(
        &self,
        request: Request,
        timeout: Option<Duration>,
        request_id: &RequestId,
    ) -> Result<Answering, CallFailure> {
        let mut context = Context::new(request.input.field());
        let plan = match self.plan(request, timeout, &mut context) {
            Ok(plan) => plan,
            Err(error) => {
                return Err(CallFailure {
                    error,
                    context,
                    sent: 0,
                });
            }
        };
        let (caller, deltas) = mpsc::channel(PENDING_MAX);
        let (end, ended) = oneshot::channel();
        let mut answering = Answering {
            selected: plan.selected.clone(),
            context: context.clone(),
            first: None,
            deltas,
            taken: 0,
            ended,
            completion: None,
        };
        let span = tracing::info_span!("infer", otel.kind = "internal", model.name = %plan.selected.model.name);
        let run = Run {
            calls: self.clone(),
            plan,
            context,
            request_id: request_id.clone(),
            caller,
        };
        // Its end matters to this call alone, and the caller's side tells it even when the task panics.
        self.tasks.spawn(run.finish(end).instrument(span));

        // The caller is told nothing before the first token, so that every failure until then is a plain status.
        answering.first = answering.deltas.recv().await;
        if answering.first.is_none() {
            answering.end().await?;
        }
        Ok(answering)
    }

    /// All that is decided before the model is called.
    fn plan(&self, request: Request, timeout: Option<Duration>, context: &mut Context) -> Result<Plan, CallError> {
        // Admit.
        if self.drain.is_cancelled() {
            return Err(CallError::Draining);
        }
        let deadline = Instant::now() + deadline::budget(timeout, self.limits.total)?;

        // Resolve. One catalog serves the call to its end, whatever is swapped in meanwhile.
        let catalog = self.current.load().ok_or(CallError::ConfigNotLoaded)?;
        context.revision = Some(catalog.cursor.revision);
        context.config_age = self.current.age();
        let selection = catalog.resolve(&request.feature)?;
        context.feature = Some(selection.feature);
        context.model = Some(selection.model.name.clone());

        // Pick an endpoint.
        let endpoint = balance::pick(&selection.model.endpoints, fastrand::f64()).ok_or(CallError::Internal)?;
        let selected = Selected {
            feature: selection.feature,
            source_feature: selection.source_feature,
            model: Arc::clone(selection.model),
            endpoint: endpoint.clone(),
            reason: selection.reason,
            revision: selection.revision,
        };

        // Render.
        let family = selected.model.family;
        let prompt = prompt::render(request.input, request.options, family)?;
        let post = openai::encode(&prompt, &selected.model.identifier, &family.machine_name)
            .map_err(|_unserializable| CallError::Internal)?;
        Ok(Plan {
            deadline,
            selected,
            post,
        })
    }
}

/// A call that was decided, ready to go out.
struct Plan {
    deadline: Instant,
    selected: Selected,
    post: Post,
}

/// A call on its way, apart from its caller.
struct Run {
    calls: Calls,
    plan: Plan,
    context: Context,
    request_id: RequestId,
    caller: mpsc::Sender<Delta>,
}

impl Run {
    /// Calls the model, relays its answer, and says how it ended.
    async fn finish(self, end: oneshot::Sender<Result<Completion, CallFailure>>) {
        let begun = Instant::now();
        let mut progress = Progress::default();
        let outcome = tokio::select! {
            // In this order: a model that always has more to say must not keep the others from being asked.
            biased;
            () = self.caller.closed() => Err(CallError::CallerGone),
            () = self.calls.drain.cancelled() => Err(CallError::Draining),
            () = sleep_until(self.plan.deadline) => Err(CallError::DeadlinePassed),
            outcome = self.attempt(&mut progress) => outcome,
        };
        // The connection to the model is closed by now, unless its answer was read to the end.
        let (answer, error) = match outcome {
            Ok(answer) => (Some(answer), CallError::Internal),
            Err(error) => (None, error),
        };
        let result = match progress.finish {
            // Complete, whatever came after the finish reason.
            Some(finish) => Ok(Completion {
                finish,
                usage: progress.usage,
            }),
            None => Err(CallFailure {
                error,
                context: self.context,
                sent: progress.sent,
            }),
        };
        tracing::debug!(
            upstream.addr = %self.plan.selected.endpoint.uri.origin().host_and_port(),
            duration_ms = begun.elapsed().as_millis(),
            pieces = progress.sent,
            error = result.as_ref().err().map(|failure| tracing::field::display(Chain(&failure.error))),
            "the call has ended"
        );
        // A caller that has gone does not ask how it ended.
        end.send(result).ok();
        drop(self.caller);
        if let Some(answer) = answer {
            answer.drain(self.calls.limits.drain).await;
        }
    }

    /// One attempt, as metrics and traces see it.
    async fn attempt(&self, progress: &mut Progress) -> Result<Answer, CallError> {
        let Selected { model, endpoint, .. } = &self.plan.selected;
        let span = tracing::info_span!(
            "attempt",
            otel.kind = "client",
            otel.name = "chat",
            gen_ai.operation.name = "chat",
            gen_ai.request.model = %model.name,
            server.address = %endpoint.uri.origin().host_and_port(),
            error.r#type = Empty,
        );
        let mut attempt = self.calls.upstream.metrics().begin();
        async {
            let result = self.answer(&attempt, progress).await;
            attempt.ended(&result);
            result
        }
        .instrument(span)
        .await
    }

    /// The answer, read to its end.
    async fn answer(&self, attempt: &Attempt, progress: &mut Progress) -> Result<Answer, CallError> {
        let limits = &self.calls.limits;
        let outgoing = Outgoing {
            endpoint: &self.plan.selected.endpoint.uri,
            credential: self.plan.selected.model.credential.as_deref(),
            request_id: &self.request_id,
        };
        let opening = async {
            let mut answer = self.calls.upstream.post(outgoing, &self.plan.post).await?;
            let first = relay::first_token(&mut answer, progress).await?;
            attempt.first_token();
            Ok((answer, first))
        };
        let (mut answer, first) = timeout(limits.first_token, opening)
            .await
            .unwrap_or(Err(UpstreamError::FirstTokenTimeout(limits.first_token)))?;
        relay::relay(&mut answer, first, &self.caller, limits.patience, progress).await?;
        Ok(answer)
    }
}

/// An error with its causes, on one line.
struct Chain<'a>(&'a dyn StdError);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            write!(f, ": {cause}")?;
            next = cause.source();
        }
        Ok(())
    }
}
