//! One inference call, from admission to its end.
//!
//! It reads as the list in the design: admit, resolve, pick an endpoint, render, call, relay, finish. What is decided with
//! lies in pure rooms beside it.
//!
//! The one hard idea: the transport polls a response only while the caller reads. So each call has a task of its own, which
//! holds the deadline and the connection to the model; the caller's side only takes from a buffer. When the caller goes, the
//! buffer closes, and the task drops the connection. Once the buffer has all, the model is free, and the task only waits for
//! the caller.

pub mod deadline;
mod failure;
mod unary;

use std::{sync::Arc, time::Duration};

use switchboard::{
    names::{FeatureName, Revision},
    service::{chain::Chain, request_id::RequestId},
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

pub use self::{
    failure::{CallError, CallFailure, Context},
    unary::Answered,
};
use crate::{
    balance,
    catalog::{Endpoint, Model, SelectionReason},
    current::Current,
    prompt::{self, Request, Target},
    relay::{
        self, Patience, Progress, RelayError,
        pending::{PendingLimits, Pool, Receiver, Sender},
    },
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
    /// What of answers waits for callers.
    pub pending: PendingLimits,
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
            pending: PendingLimits::default(),
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
    first: Option<(Delta, u64)>,
    deltas: Receiver,
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
        let (delta, events) = match self.first.take() {
            Some(first) => first,
            None => self.deltas.recv().await?,
        };
        self.taken += events;
        Some(delta)
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
            // What was handed over and not taken is not sent.
            Ok(result) => result.map_err(|failure| CallFailure {
                sent: self.taken,
                ..failure
            })?,
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
    pending: Pool,
    tasks: TaskTracker,
    drain: CancellationToken,
}

impl Calls {
    /// Calls that select from `current`, run as tasks of `tasks`, and end when `drain` is cancelled.
    #[must_use]
    pub fn new(
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
            pending: Pool::new(limits.pending),
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
        let plan = match self.plan(&request, timeout, &mut context) {
            Ok(plan) => plan,
            Err(error) => {
                return Err(CallFailure {
                    error,
                    context,
                    sent: 0,
                });
            }
        };
        let (caller, deltas) = self.pending.answer();
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
    fn plan(&self, request: &Request, timeout: Option<Duration>, context: &mut Context) -> Result<Plan, CallError> {
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
        let model = &selected.model;
        let target = Target {
            family: model.family,
            infill_mode: model.infill_mode,
            max_output_tokens: None,
        };
        let prompt = prompt::render(request, selected.feature, &target)?;
        let post = openai::encode(&prompt, &model.identifier, &model.family.machine_name)
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
    caller: Sender,
}

impl Run {
    /// Calls the model, relays its answer, and says how it ended.
    async fn finish(self, end: oneshot::Sender<Result<Completion, CallFailure>>) {
        let begun = Instant::now();
        let mut progress = Progress::default();
        let outcome = tokio::select! {
            // In this order: a model that always has more to say must not keep the others from being asked.
            biased;
            error = self.interrupted() => Err(error),
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
            None => Err(error),
        };
        let drain = self.calls.limits.drain;
        let drained = async move {
            if let Some(answer) = answer {
                answer.drain(drain).await;
            }
        };
        let told = async {
            let result = self.taken(result).await;
            tracing::debug!(
                upstream.addr = %self.plan.selected.endpoint.uri.origin().host_and_port(),
                duration_ms = begun.elapsed().as_millis(),
                pieces = progress.sent,
                error = result.as_ref().err().map(|error| tracing::field::display(Chain(error))),
                "the call has ended"
            );
            let result = result.map_err(|error| CallFailure {
                error,
                context: self.context.clone(),
                sent: progress.sent,
            });
            // A caller that has gone does not ask how it ended.
            end.send(result).ok();
            drop(self.caller);
        };
        tokio::join!(told, drained);
    }

    /// Waits until the caller has taken what there is of the answer. The model is free meanwhile.
    async fn taken(&self, result: Result<Completion, CallError>) -> Result<Completion, CallError> {
        if matches!(result, Err(CallError::CallerTooSlow(_))) {
            self.caller.discard();
            return result;
        }
        let slow_caller = self.calls.limits.patience.slow_caller;
        let flushed = tokio::select! {
            // In this order: an answer that was taken is not spoilt by its deadline.
            biased;
            flushed = self.caller.flushed(slow_caller) => flushed.map_err(|error| RelayError::from(error).into()),
            error = self.interrupted() => Err(error),
        };
        if flushed.is_err() {
            self.caller.discard();
        }
        result.and_then(|completion| flushed.map(|()| completion))
    }

    /// Waits for what ends a call whatever the model does.
    async fn interrupted(&self) -> CallError {
        tokio::select! {
            biased;
            () = self.caller.closed() => CallError::CallerGone,
            () = self.calls.drain.cancelled() => CallError::Draining,
            () = sleep_until(self.plan.deadline) => CallError::DeadlinePassed,
        }
    }

    /// One attempt: the answer, read to its end.
    async fn attempt(&self, progress: &mut Progress) -> Result<Answer, CallError> {
        let limits = &self.calls.limits;
        let outgoing = Outgoing {
            endpoint: &self.plan.selected.endpoint.uri,
            credential: self.plan.selected.model.credential.as_deref(),
            request_id: &self.request_id,
        };
        let opening = async {
            let mut answer = self.calls.upstream.post(outgoing, &self.plan.post).await?;
            let first = relay::first_token(&mut answer, progress).await?;
            Ok((answer, first))
        };
        let (mut answer, first) = timeout(limits.first_token, opening)
            .await
            .unwrap_or(Err(UpstreamError::FirstTokenTimeout(limits.first_token)))?;
        relay::relay(&mut answer, first, &self.caller, limits.patience, progress).await?;
        Ok(answer)
    }
}
