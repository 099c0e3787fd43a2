//! One inference call, from admission to its end.
//!
//! It reads as the list in the design: admit, resolve, walk from model to model (place, endpoint, render, call), relay,
//! finish. What is decided with lies in rooms beside it.
//!
//! The one hard idea: the transport polls a response only while the caller reads. So each call has a task of its own, which
//! holds the deadline and the connection to the model; the caller's side only takes from a small queue. When the caller
//! goes, the queue closes, and the task drops the connection.

pub mod deadline;
mod failure;
pub mod permits;
mod walk;

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

use switchboard::{
    names::{FeatureName, Revision},
    service::request_id::RequestId,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

use self::permits::Permits;
pub use self::{
    failure::{CallError, CallFailure, Considered, Context, Outcome},
    walk::{ATTEMPTS_MAX, Attempt, Walk},
};
use crate::{
    catalog::{Caller, Endpoint, Model, RuleId, SelectionReason},
    current::Current,
    prompt::Request,
    relay::{self, PENDING_MAX, Patience, Progress},
    upstream::{
        Outgoing, Upstream, UpstreamError,
        answer::Answer,
        dialect::{Delta, Event, FinishReason, Usage},
    },
};

/// How long the parts of a call may take, where the model's own limits say nothing.
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
    /// What decided last.
    pub reason: SelectionReason,
    /// The rule that decided. `None`: none did.
    pub rule: Option<RuleId>,
    /// The revision of the configuration that decided.
    pub revision: Revision,
    /// How many attempts it took; the last is the one that answers.
    pub attempts: u32,
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
    permits: Permits,
    limits: Limits,
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
            permits: Permits::default(),
            limits,
            tasks,
            drain,
        }
    }

    /// The catalog in use.
    #[must_use]
    pub fn current(&self) -> &Current {
        &self.current
    }

    /// Who may call a model now.
    #[must_use]
    pub const fn permits(&self) -> &Permits {
        &self.permits
    }

    /// How many calls run.
    #[must_use]
    pub fn active(&self) -> usize {
        self.tasks.len()
    }

    /// Makes a call for `caller`, up to the first token. `timeout` is what is allowed for the whole of it.
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
        caller: &Caller<'_>,
        request_id: &RequestId,
    ) -> Result<Answering, CallFailure> {
        let mut context = Context::new(request.input.field());
        let walk = match self.admit(request, timeout, caller, &mut context) {
            Ok(walk) => walk,
            Err(error) => {
                return Err(CallFailure {
                    error,
                    context,
                    sent: 0,
                });
            }
        };
        let (to_caller, mut deltas) = mpsc::channel(PENDING_MAX);
        let (begin, begun) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let run = Run {
            calls: self.clone(),
            walk,
            context: context.clone(),
            request_id: request_id.clone(),
            begin: Some(begin),
            caller: to_caller,
        };
        // Its end matters to this call alone, and the caller's side tells it even when the task panics.
        self.tasks
            .spawn(run.finish(end).instrument(tracing::info_span!("infer")));

        // The caller is told nothing before the first token, so that every failure until then is a plain status.
        let Ok(selected) = begun.await else {
            return Err(match ended.await {
                Ok(Err(failure)) => failure,
                Ok(Ok(_)) | Err(_) => CallFailure {
                    error: CallError::Internal,
                    context,
                    sent: 0,
                },
            });
        };
        let mut answering = Answering {
            selected,
            context,
            first: deltas.recv().await,
            deltas,
            taken: 0,
            ended,
            completion: None,
        };
        if answering.first.is_none() {
            answering.end().await?;
        }
        Ok(answering)
    }

    /// All that is decided before any model is called.
    fn admit(
        &self,
        request: Request,
        timeout: Option<Duration>,
        caller: &Caller<'_>,
        context: &mut Context,
    ) -> Result<Walk, CallError> {
        if self.drain.is_cancelled() {
            return Err(CallError::Draining);
        }
        let budget = deadline::budget(timeout, self.limits.total)?;
        // One catalog serves the call to its end, whatever is swapped in meanwhile.
        let catalog = self.current.load().ok_or(CallError::ConfigNotLoaded)?;
        context.revision = Some(catalog.cursor.revision);
        context.config_age = self.current.age();
        let decision = catalog.resolve(&request.feature, caller)?;
        context.feature = Some(decision.feature);
        let permits = self.permits.clone();
        Ok(Walk::new(catalog, decision, request, permits, self.limits, budget))
    }
}

/// A call on its way, apart from its caller.
struct Run {
    calls: Calls,
    walk: Walk,
    context: Context,
    request_id: RequestId,
    /// Tells who answers, once somebody does.
    begin: Option<oneshot::Sender<Selected>>,
    caller: mpsc::Sender<Delta>,
}

impl Run {
    /// Calls models until one answers, relays its answer, and says how it ended.
    async fn finish(mut self, end: oneshot::Sender<Result<Completion, CallFailure>>) {
        let begun = Instant::now();
        let mut progress = Progress::default();
        let (caller, drain) = (self.caller.clone(), self.calls.drain.clone());
        let deadline = self.walk.deadline();
        let outcome = tokio::select! {
            // In this order: a model that always has more to say must not keep the others from being asked.
            biased;
            () = caller.closed() => Err(CallError::CallerGone),
            () = drain.cancelled() => Err(CallError::Draining),
            () = sleep_until(deadline) => Err(CallError::DeadlinePassed),
            outcome = self.answer(&mut progress) => outcome,
        };
        // The connection to the model is closed by now, unless its answer was read to the end.
        let (answer, error) = match outcome {
            Ok(answer) => (Some(answer), CallError::Internal),
            Err(error) => (None, error),
        };
        if answer.is_none() {
            self.walk.leave();
        }
        self.context.model = self.walk.about().cloned();
        self.context.attempts = self.walk.attempts();
        let result = match progress.finish {
            // Complete, whatever came after the finish reason.
            Some(finish) => Ok(Completion {
                finish,
                usage: progress.usage,
            }),
            None => {
                if progress.sent == 0 {
                    self.context.considered = self.walk.considered();
                }
                Err(CallFailure {
                    error,
                    context: self.context,
                    sent: progress.sent,
                })
            }
        };
        tracing::debug!(
            attempts = self.walk.attempts(),
            duration_ms = begun.elapsed().as_millis(),
            pieces = progress.sent,
            error = result
                .as_ref()
                .err()
                .map(|failure| tracing::field::display(Chain(&failure.error))),
            "the call has ended"
        );
        // A caller that has gone does not ask how it ended.
        end.send(result).ok();
        drop((self.caller, caller));
        if let Some(answer) = answer {
            answer.drain(self.calls.limits.drain).await;
        }
        // Only now the server is done with the call.
        self.walk.leave();
    }

    /// Attempts until the first token, then the answer, read to its end.
    async fn answer(&mut self, progress: &mut Progress) -> Result<Answer, CallError> {
        let (attempt, mut answer, first) = loop {
            let attempt = self.walk.next().await?;
            // What another server told is not this one's.
            *progress = Progress::default();
            match within(attempt.deadline, self.open(&attempt, progress)).await {
                Ok((answer, first)) => break (attempt, answer, first),
                Err(error) => {
                    tracing::debug!(
                        model.name = %attempt.selected.model.name,
                        upstream.addr = %attempt.selected.endpoint.uri.origin().host_and_port(),
                        error = %Chain(&error),
                        "an attempt has failed"
                    );
                    self.walk.failed(error)?;
                }
            }
        };
        if let Some(begin) = self.begin.take() {
            begin.send(attempt.selected).map_err(|_gone| CallError::CallerGone)?;
        }
        let patience = Patience {
            idle: attempt.idle,
            ..self.calls.limits.patience
        };
        let relayed = async {
            let relayed = relay::relay(&mut answer, first, &self.caller, patience, progress).await;
            relayed.map_err(CallError::from)
        };
        within(attempt.deadline, relayed).await?;
        Ok(answer)
    }

    /// One attempt, up to the first token.
    async fn open(&self, attempt: &Attempt, progress: &mut Progress) -> Result<(Answer, Event), CallError> {
        let Selected { model, endpoint, .. } = &attempt.selected;
        let outgoing = Outgoing {
            endpoint: &endpoint.uri,
            credential: model.credential.as_deref(),
            tls: model.tls.as_ref(),
            connect_timeout: model.limits.connect_timeout,
            request_id: &self.request_id,
        };
        let opening = async {
            let mut answer = self.calls.upstream.post(outgoing, &attempt.post).await?;
            let first = relay::first_token(&mut answer, progress).await?;
            Ok((answer, first))
        };
        timeout(attempt.first_token, opening)
            .await
            .unwrap_or(Err(UpstreamError::FirstTokenTimeout(attempt.first_token)))
            .map_err(CallError::from)
    }
}

/// What a model's own time limit for the whole call cuts off.
async fn within<T>(deadline: Instant, work: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
    timeout_at(deadline, work)
        .await
        .unwrap_or(Err(CallError::DeadlinePassed))
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
