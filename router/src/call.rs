//! One inference call, from admission to its end.
//!
//! A call passes through these steps: admit, resolve, walk through the candidate models (render the prompt, wait for a
//! place, choose a server, call it), relay, finish. The rules behind these decisions are in other modules, such as
//! `catalog`, `permits` and `endpoints`.
//!
//! The one hard idea: the transport polls a response only while the caller reads. So each streamed call has a task of
//! its own, which enforces the deadline and owns the connection to the model; the caller's side only reads from a
//! buffer. When the caller goes away, the buffer closes, and the task drops the connection. Once the buffer holds the
//! whole answer, the model is free, and the task only waits for the caller to read it.

mod affinity;
mod answering;
mod attempt;
mod considered;
pub mod deadline;
mod entry;
mod failure;
mod limits;
mod outlook;
mod run;
mod selected;
mod unary;
mod walk;

use std::{sync::Arc, time::Duration};

use switchboard::service::request_id::RequestId;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Span;

use self::run::{Audience, RunningCall};
use self::walk::{Choosing, Walk};
pub use self::{
    answering::{Answering, Completion},
    considered::{Considered, Outcome},
    failure::{CallContext, CallError, CallFailure, CallRefusal, Interruption, ServerError},
    limits::CallLimits,
    outlook::{Answerer, Outlook},
    selected::Selected,
    unary::Answered,
};
use crate::{
    catalog::{Caller, Scope},
    current::Current,
    endpoints::Shape,
    live::LiveModels,
    permits::Quotas,
    prompt::{Request, Text},
    relay::pending::Pool,
    upstream::Upstream,
};

/// Makes inference calls.
#[derive(Debug, Clone)]
pub struct Calls {
    current: Arc<Current>,
    upstream: Upstream,
    quotas: Quotas,
    limits: CallLimits,
    pending: Pool,
    tasks: TaskTracker,
    drain: CancellationToken,
}

impl Calls {
    /// Creates the calls of a router: they select their model from the catalog in `current`, run as tasks of `tasks`,
    /// and end when `drain` is cancelled.
    #[must_use]
    pub fn new(
        current: Arc<Current>,
        upstream: Upstream,
        limits: CallLimits,
        tasks: TaskTracker,
        drain: CancellationToken,
    ) -> Self {
        Self {
            current,
            upstream,
            quotas: Quotas::default(),
            limits,
            pending: Pool::new(limits.pending),
            tasks,
            drain,
        }
    }

    /// Returns the holder of the catalog in use.
    #[must_use]
    pub fn current(&self) -> &Current {
        &self.current
    }

    /// Returns the counts of the running calls of each feature.
    #[must_use]
    pub const fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// Returns the run-time state of the models.
    #[must_use]
    pub const fn models(&self) -> &LiveModels {
        self.upstream.models()
    }

    /// Returns the number of running calls.
    #[must_use]
    pub fn active(&self) -> usize {
        self.tasks.len()
    }

    /// Makes a call for `scope` and returns once its first token has arrived. `timeout` is the time that the caller
    /// allows for the whole call. `None`: the caller sets no limit.
    ///
    /// # Errors
    ///
    /// [`CallFailure`] for everything that goes wrong before the first token.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the call and closes the connection to the model server.
    pub async fn stream(
        &self,
        request: Request,
        timeout: Option<Duration>,
        scope: Scope<'_>,
        request_id: &RequestId,
    ) -> Result<Answering, CallFailure> {
        let mut context = CallContext::new(request.input.field());
        let walk = match self.admit(request, Shape::Stream, timeout, scope, request_id, &mut context) {
            Ok(walk) => walk,
            Err(error) => return Err(CallFailure::at_once(error, context)),
        };
        let (to_caller, deltas) = self.pending.answer();
        let (begin, begun) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let audience = Audience {
            buffer: to_caller,
            drain: self.drain.clone(),
            deadline: walk.deadline(),
            slow_caller: self.limits.patience.slow_caller,
        };
        let run = RunningCall {
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
        // The task is not awaited here: the caller's side gets its result, and an error even if the task panics.
        self.tasks.spawn(run.finish(context.clone(), audience, end));

        // Nothing is sent to the caller before the first token, so that every failure until then is a plain status.
        let Ok(selected) = begun.await else {
            return Err(match ended.await {
                Ok(Err(failure)) => failure,
                Ok(Ok(_)) | Err(_) => CallFailure::at_once(CallError::Internal, context),
            });
        };
        Answering::begin(selected, context, deltas, ended).await
    }

    /// Makes all decisions that come before the first attempt. It fills in `context` as far as it gets, also if it
    /// fails.
    fn admit(
        &self,
        request: Request,
        shape: Shape,
        timeout: Option<Duration>,
        scope: Scope<'_>,
        request_id: &RequestId,
        context: &mut CallContext,
    ) -> Result<Walk, CallError> {
        if self.drain.is_cancelled() {
            return Err(Interruption::Draining.into());
        }
        let budget = deadline::budget(timeout, self.limits.total).map_err(CallRefusal::from)?;
        // The call uses this catalog to its end, even if another one is put in use meanwhile.
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
            models: self.models().clone(),
            key: affinity::key(&request, &caller.scope),
            shape,
        };
        let limit = catalog.max_concurrency(&decision);
        let permit = self.quotas.begin(decision.source_feature, limit);
        let permit = permit.map_err(CallRefusal::from)?;
        Ok(Walk::new(self, catalog, decision, request, choosing, permit, budget))
    }
}

/// Runs `work` until `deadline`, the model's own time limit for the whole call.
async fn within<T>(deadline: Instant, work: impl Future<Output = Result<T, CallError>>) -> Result<T, CallError> {
    timeout_at(deadline, work)
        .await
        .unwrap_or_else(|_elapsed| Err(Interruption::DeadlinePassed.into()))
}
