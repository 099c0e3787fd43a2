//! The task of a streamed call: it calls models and relays the answer, whatever the caller does meanwhile.

mod open;

use std::time::Duration;

use switchboard::{
    failpoint,
    service::{chain::Chain, request_id::RequestId},
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span};

use self::open::Opened;
use super::{CallContext, CallError, CallFailure, Calls, Completion, Interruption, Selected, Walk, within};
use crate::{
    relay::{self, AnswerProgress, Patience, RelayError, pending::Sender},
    upstream::answer::Answer,
};

/// A streamed call in progress, apart from its caller.
pub(super) struct RunningCall {
    pub(super) calls: Calls,
    pub(super) walk: Walk,
    pub(super) request_id: RequestId,
    /// Sends the selected model and server to the caller's side at the first token. `None`: already sent.
    pub(super) begin: Option<oneshot::Sender<Selected>>,
    /// Parent of the call's attempts and log lines. The relaying is outside of it: entering a span for each event would
    /// cost as much as handling the event.
    pub(super) span: Span,
}

impl RunningCall {
    /// Calls models until one answers, relays its answer, and sends the result to `end`.
    pub(super) async fn finish(
        mut self,
        context: CallContext,
        audience: Audience,
        end: oneshot::Sender<Result<Completion, CallFailure>>,
    ) {
        let begun = Instant::now();
        let mut progress = AnswerProgress::default();
        let outcome = tokio::select! {
            // In this order: a model that always has more output must not keep interruptions from being noticed.
            biased;
            interruption = audience.interrupted() => Err(interruption.into()),
            outcome = self.answer(&audience.buffer, &mut progress) => outcome,
        };
        // By now the connection to the model is closed, unless its answer was read to the end.
        let (answer, error) = match outcome {
            Ok(answer) => (Some(answer), CallError::Internal),
            Err(error) => (None, error),
        };
        let Self {
            calls, mut walk, span, ..
        } = self;
        if answer.is_none() {
            walk.leave();
        }
        let result = match progress.finish {
            // The answer is complete, whatever came after the finish reason.
            Some(finish) => Ok(Completion {
                finish,
                usage: progress.usage,
            }),
            None => Err(error),
        };
        // Used if the call fails, which it also does if the caller does not read the rest of the answer.
        let failure = walk.failure(CallError::Internal, context, progress.sent);
        let drained = async {
            if let Some(answer) = answer {
                answer.drain(calls.limits.drain).await;
            }
            // Only now is the server done with the call. This does not wait for the caller: a slow one must not hold
            // the place.
            walk.leave();
        };
        let told = async {
            let result = audience.taken(result).await;
            tracing::debug!(
                parent: &span,
                model.name = failure.context.model.as_ref().map(tracing::field::display),
                attempts = failure.context.attempts,
                duration_ms = begun.elapsed().as_millis(),
                pieces = progress.sent,
                error = result.as_ref().err().map(|error| tracing::field::display(Chain(error))),
                "the call has ended"
            );
            // A caller that is gone does not need the result.
            end.send(result.map_err(|error| CallFailure { error, ..failure })).ok();
            drop(audience);
        };
        tokio::join!(told, drained);
    }

    /// Makes attempts until one has its first token, then relays its answer to the end.
    async fn answer(&mut self, buffer: &Sender, progress: &mut AnswerProgress) -> Result<Answer, CallError> {
        failpoint::hit("infer.task");
        let Self {
            calls,
            walk,
            request_id,
            begin,
            span,
        } = self;
        let Opened {
            attempt,
            mut answer,
            first,
            progress: so_far,
        } = open::open(calls, walk, request_id).instrument(span.clone()).await?;
        *progress = so_far;
        if let Some(begin) = begin.take() {
            begin
                .send(attempt.selected.clone())
                .map_err(|_gone| Interruption::CallerGone)?;
        }
        let patience = Patience {
            idle: attempt.limits.idle,
            ..calls.limits.patience
        };
        let relayed = async {
            let relayed = relay::relay(&mut answer, first, buffer, patience, progress).await;
            relayed.map_err(CallError::from)
        };
        // This is outside the attempt's span as well; the attempt keeps that span open.
        match within(attempt.limits.deadline, relayed).await {
            Ok(()) => {
                attempt.end();
                Ok(answer)
            }
            Err(error) => Err(attempt.fail(error).error),
        }
    }
}

/// The caller of a streamed call, as the call's task sees it.
pub(super) struct Audience {
    pub(super) buffer: Sender,
    pub(super) drain: CancellationToken,
    pub(super) deadline: Instant,
    pub(super) slow_caller: Duration,
}

impl Audience {
    /// Waits until the caller has read the rest of the answer. The model is free meanwhile.
    async fn taken(&self, result: Result<Completion, CallError>) -> Result<Completion, CallError> {
        if matches!(result, Err(CallError::Interrupted(Interruption::CallerTooSlow(_)))) {
            self.buffer.discard();
            return result;
        }
        let flushed = tokio::select! {
            // In this order: an answer that the caller has read completely succeeds, even if the deadline passes now.
            biased;
            flushed = self.buffer.flushed(self.slow_caller) => flushed.map_err(|error| RelayError::from(error).into()),
            interruption = self.interrupted() => Err(interruption.into()),
        };
        if flushed.is_err() {
            self.buffer.discard();
        }
        result.and_then(|completion| flushed.map(|()| completion))
    }

    /// Waits for an event that ends the call whatever the model does.
    async fn interrupted(&self) -> Interruption {
        tokio::select! {
            biased;
            () = self.buffer.closed() => Interruption::CallerGone,
            () = self.drain.cancelled() => Interruption::Draining,
            () = sleep_until(self.deadline) => Interruption::DeadlinePassed,
        }
    }
}
