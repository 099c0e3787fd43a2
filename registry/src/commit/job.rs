//! A queued write of any kind: judged, then answered.

use std::{collections::HashMap, fmt, sync::Arc, time::SystemTime};

use switchboard::{names::CredentialId, service::trace};
use tokio::sync::oneshot;
use tracing::{Span, field::Empty, info_span};

use super::{CommitError, Written};
use crate::{
    domain::{
        repeat::{Fingerprint, Remembered, RepeatKey},
        state::{Applied, State},
        view::View as _,
        write::Revise as _,
    },
    store::StoreError,
    wire::{
        stored,
        write::{WriteAnswer, WriteRequest},
    },
};

/// What the writes of one round come to, before any of it is durable.
#[derive(Debug)]
pub(super) struct Draft {
    /// The state after them.
    pub(super) state: State,
    /// Their revisions.
    pub(super) revisions: Vec<Applied>,
    /// Those of them that can be repeated.
    pub(super) remembered: Vec<Remembered>,
    /// Earlier writes, of this round too, under the request ids that this round's writes have.
    known: HashMap<RepeatKey, Remembered>,
}

impl Draft {
    pub(super) fn new(state: State) -> Self {
        Self {
            state,
            revisions: Vec::new(),
            remembered: Vec::new(),
            known: HashMap::new(),
        }
    }

    /// Takes in what is remembered of an earlier write.
    pub(super) fn recall(&mut self, write: Remembered) {
        self.known.insert(write.key.clone(), write);
    }

    /// Whether nothing has to be stored.
    pub(super) const fn is_empty(&self) -> bool {
        self.revisions.is_empty() && self.remembered.is_empty()
    }
}

/// A queued write.
pub(super) trait Job: Send {
    /// The request id that it came with.
    fn repeat_key(&self) -> Option<&RepeatKey>;

    /// Decides the write by the draft, and adds its revision to it.
    fn judge(&mut self, draft: &mut Draft, now: SystemTime);

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

type Outcome<A> = Result<Written<A>, CommitError>;

/// A write with the one who waits for it.
pub(super) struct Typed<R: WriteRequest> {
    write: R::Write,
    repeat: Option<(RepeatKey, Fingerprint)>,
    outcome: Option<Outcome<R::Answer>>,
    /// From being queued to being durable, within the call's own.
    span: Span,
    reply: oneshot::Sender<Outcome<R::Answer>>,
}

impl<R: WriteRequest> Typed<R> {
    pub(super) fn new(
        write: R::Write,
        repeat: Option<(RepeatKey, Fingerprint)>,
        reply: oneshot::Sender<Outcome<R::Answer>>,
    ) -> Self {
        Self {
            write,
            repeat,
            outcome: None,
            span: info_span!("commit", otel.kind = "internal", revision = Empty),
            reply,
        }
    }

    fn decide(&self, draft: &mut Draft, now: SystemTime) -> Outcome<R::Answer> {
        let Some((key, content)) = &self.repeat else {
            return self.make(draft, now);
        };
        if let Some(known) = draft.known.get(key) {
            return if known.content == *content {
                repeated(known)
            } else {
                Err(CommitError::RequestIdReused)
            };
        }
        let written = self.make(draft, now)?;
        let remembered = Remembered {
            key: key.clone(),
            content: *content,
            answer: prost::Message::encode_to_vec(&written.answer).into(),
            revision: written.revision,
            incarnation: written.incarnation,
        };
        draft.remembered.push(remembered.clone());
        draft.recall(remembered);
        Ok(written)
    }

    #[expect(clippy::expect_used, reason = "a plan leaves what it is about in the state")]
    fn make(&self, draft: &mut Draft, now: SystemTime) -> Outcome<R::Answer> {
        let state = &mut draft.state;
        let plan = self
            .write
            .plan(state, CredentialId::random())
            .map_err(CommitError::Refused)?;
        if !plan.is_empty() {
            let encoded = plan.changes.into_iter().map(|change| {
                let value = stored::encode(&change);
                (change, value)
            });
            let applied = state.apply(encoded.collect(), plan.deleted, now);
            self.span.record("revision", applied.past.revision.get());
            state.traceparent = trace::text(&self.span);
            draft.revisions.push(applied);
        }
        let outcome = R::Write::outcome(state, &plan.subject).expect("the subject of a plan is in its state");
        Ok(Written {
            answer: R::answer(&outcome),
            revision: outcome.revision(),
            incarnation: state.items.incarnation().id,
        })
    }
}

/// The answer that the same write was given before.
fn repeated<A: WriteAnswer>(known: &Remembered) -> Outcome<A> {
    let answer = A::decode(&*known.answer).map_err(|_unreadable| {
        let error = StoreError::damaged("the answer to an earlier write is not readable");
        CommitError::Store(Arc::new(error))
    })?;
    Ok(Written {
        answer,
        revision: known.revision,
        incarnation: known.incarnation,
    })
}

impl<R: WriteRequest> Job for Typed<R> {
    fn repeat_key(&self) -> Option<&RepeatKey> {
        self.repeat.as_ref().map(|(key, _)| key)
    }

    fn judge(&mut self, draft: &mut Draft, now: SystemTime) {
        self.outcome = Some(self.decide(draft, now));
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
