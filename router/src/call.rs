//! One inference call, from admission to its end.
//!
//! It reads as the list in the design: admit, resolve, walk from model to model (place, endpoint, render, call), relay,
//! finish. What is decided with lies in rooms beside it.
//!
//! The one hard idea: the transport polls a response only while the caller reads. So each call has a task of its own, which
//! holds the deadline and the connection to the model; the caller's side only takes from a buffer. When the caller goes, the
//! buffer closes, and the task drops the connection. Once the buffer has all, the model is free, and the task only waits for
//! the caller.

mod affinity;
mod budget;
mod considered;
pub mod deadline;
mod entry;
mod failure;
mod outlook;
pub mod permits;
mod run;
mod unary;
mod walk;

use std::{net::IpAddr, sync::Arc, time::Duration};

use switchboard::{
    names::{FeatureName, Revision},
    resource::{feature::RuleId, model::Endpoint},
    service::request_id::RequestId,
};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Span;

pub use self::{
    considered::{Considered, Outcome},
    failure::{CallError, CallFailure, CallRefusal, Context, Interruption},
    outlook::{Answerer, Outlook},
    unary::Answered,
    walk::{ATTEMPTS_MAX, Attempt, Choosing, Walk},
};
use self::{
    permits::Permits,
    run::{Audience, Run},
};
use crate::{
    catalog::{Caller, Model, Scope, SelectionReason},
    current::Current,
    endpoints::{Endpoints, Shape},
    prompt::{Request, Text},
    relay::{
        Patience,
        pending::{PendingLimits, Pool, Receiver},
    },
    upstream::{
        Upstream,
        dialect::{Delta, FinishReason, Usage},
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
    /// The server's name of the model.
    pub identifier: Arc<str>,
    /// The address to dial. `None`: by name.
    pub address: Option<IpAddr>,
    /// Whether every server of the model is failing, and this one is used all the same.
    pub is_degraded: bool,
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
    permits: Permits,
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
            permits: Permits::default(),
            limits,
            pending: Pool::new(limits.pending),
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

    /// The servers of models.
    #[must_use]
    pub const fn endpoints(&self) -> &Endpoints {
        self.upstream.endpoints()
    }

    /// How many calls run.
    #[must_use]
    pub fn active(&self) -> usize {
        self.tasks.len()
    }

    /// Makes a call for `scope`, up to the first token. `timeout` is what is allowed for the whole of it.
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
        scope: Scope<'_>,
        request_id: &RequestId,
    ) -> Result<Answering, CallFailure> {
        let mut context = Context::new(request.input.field());
        let walk = match self.admit(request, Shape::Stream, timeout, scope, request_id, &mut context) {
            Ok(walk) => walk,
            Err(error) => return Err(CallFailure::at_once(error, context)),
        };
        let (to_caller, mut deltas) = self.pending.answer();
        let (begin, begun) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let audience = Audience {
            buffer: to_caller,
            drain: self.drain.clone(),
            deadline: walk.deadline(),
            slow_caller: self.limits.patience.slow_caller,
        };
        let run = Run {
            calls: self.clone(),
            walk,
            request_id: request_id.clone(),
            begin: Some(begin),
            span: if request_id.is_recorded() {
                tracing::info_span!("infer", otel.kind = "internal")
            } else {
                Span::current()
            },
        };
        // Its end matters to this call alone, and the caller's side tells it even when the task panics.
        self.tasks.spawn(run.finish(context.clone(), audience, end));

        // The caller is told nothing before the first token, so that every failure until then is a plain status.
        let Ok(selected) = begun.await else {
            return Err(match ended.await {
                Ok(Err(failure)) => failure,
                Ok(Ok(_)) | Err(_) => CallFailure::at_once(CallError::Internal, context),
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

    /// All that is decided before any model is called; `context` tells how far it came.
    fn admit(
        &self,
        request: Request,
        shape: Shape,
        timeout: Option<Duration>,
        scope: Scope<'_>,
        request_id: &RequestId,
        context: &mut Context,
    ) -> Result<Walk, CallError> {
        if self.drain.is_cancelled() {
            return Err(Interruption::Draining.into());
        }
        let budget = deadline::budget(timeout, self.limits.total).map_err(CallRefusal::from)?;
        // One catalog serves the call to its end, whatever is swapped in meanwhile.
        let catalog = self.current.load().ok_or(CallRefusal::ConfigNotLoaded)?;
        context.revision = Some(catalog.cursor.revision);
        context.config_age = self.current.age();
        let caller = Caller {
            scope,
            affinity_key: request.affinity_key.as_ref().map(Text::expose),
            request_id: Some(request_id.as_str()),
        };
        let decision = catalog.resolve(&request.feature, &caller).map_err(CallRefusal::from)?;
        context.feature = Some(decision.feature);
        let choosing = Choosing {
            endpoints: self.upstream.endpoints().clone(),
            key: affinity::key(&request, &caller.scope),
            shape,
        };
        let limit = catalog.max_concurrency(&decision);
        let permit = self.permits.begin(decision.source_feature, limit);
        let permit = permit.map_err(CallRefusal::from)?;
        Ok(Walk::new(self, catalog, decision, request, choosing, permit, budget))
    }
}

/// What a model's own time limit for the whole call cuts off.
async fn within<T>(deadline: Instant, work: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
    timeout_at(deadline, work)
        .await
        .unwrap_or_else(|_elapsed| Err(Interruption::DeadlinePassed.into()))
}
