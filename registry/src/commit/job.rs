//! A queued write of any kind: judged, then answered.

use std::{fmt, time::SystemTime};

use switchboard::{names::CredentialId, service::trace};
use tokio::sync::oneshot;
use tracing::{Span, field::Empty, info_span};

use super::{CommitError, Written};
use crate::{
    domain::{
        state::{Applied, State},
        view::View as _,
        write::{Write, WriteError},
    },
    wire::stored,
};

/// A queued write.
pub(super) trait Job: Send {
    /// Decides the write by a state and makes its revision in it. `None`: there is nothing to store.
    fn judge(&mut self, state: &mut State, now: SystemTime) -> Option<Applied>;

    /// Answers with what was decided, which is durable by now.
    fn answer(self: Box<Self>);

    /// Answers with a failure.
    fn fail(self: Box<Self>, error: CommitError);
}

impl fmt::Debug for dyn Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Job")
    }
}

type Outcome<V> = Result<Written<V>, CommitError>;

/// A write with the one who waits for it.
pub(super) struct Typed<W: Write> {
    write: W,
    outcome: Option<Outcome<W::View>>,
    /// From being queued to being durable, within the call's own.
    span: Span,
    reply: oneshot::Sender<Outcome<W::View>>,
}

impl<W: Write> Typed<W> {
    pub(super) fn new(write: W, reply: oneshot::Sender<Outcome<W::View>>) -> Self {
        Self {
            write,
            outcome: None,
            span: info_span!("commit", otel.kind = "internal", revision = Empty),
            reply,
        }
    }

    #[expect(
        clippy::expect_used,
        reason = "a write that was judged is about a resource that exists by now"
    )]
    fn decide(&self, state: &mut State, now: SystemTime) -> Result<(Written<W::View>, Option<Applied>), WriteError> {
        let verdict = self.write.judge(state, CredentialId::random())?;
        let applied = verdict.change.map(|change| {
            let value = stored::encode(&change);
            let applied = state.apply(vec![(change, value)], now);
            self.span.record("revision", applied.past.revision.get());
            state.traceparent = trace::text(&self.span);
            applied
        });
        let view = W::view(state, &verdict.name).expect("the resource of a judged write is in the state");
        let written = Written {
            revision: view.record().revision,
            incarnation: state.items.incarnation(),
            view,
        };
        Ok((written, applied))
    }
}

impl<W: Write> Job for Typed<W> {
    fn judge(&mut self, state: &mut State, now: SystemTime) -> Option<Applied> {
        let (outcome, applied) = match self.decide(state, now) {
            Ok((written, applied)) => (Ok(written), applied),
            Err(error) => (Err(CommitError::Refused(error)), None),
        };
        self.outcome = Some(outcome);
        applied
    }

    fn answer(self: Box<Self>) {
        let outcome = self.outcome.unwrap_or(Err(CommitError::OutcomeUnknown));
        // The caller may have gone away; the write is made all the same.
        let _gone = self.reply.send(outcome);
    }

    fn fail(self: Box<Self>, error: CommitError) {
        let _gone = self.reply.send(Err(error));
    }
}
