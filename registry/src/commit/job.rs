//! A queued write of any kind: it is decided first, and answered later.

use std::{collections::HashMap, fmt, sync::Arc, time::SystemTime};

use bytes::Bytes;
use switchboard::{
    names::{CredentialId, ResourceName, Revision},
    service::trace,
};
use tokio::sync::oneshot;
use tracing::{Span, field::Empty, info_span};

use super::{CommitError, Written, check};
use crate::{
    domain::{
        items::ItemChange,
        repeat::{Fingerprint, Remembered, RepeatKey},
        state::{RevisionEffect, State},
        view::WriteView as _,
        write::{OldValue, Revise as _},
    },
    store::StoreError,
    wire::{
        stored,
        write::{WriteAnswer, WriteRequest},
    },
};

/// The values of resources at an earlier revision. `None`: the resource did not exist.
type Since = HashMap<ResourceName, Option<Bytes>>;

/// The combined result of one round's writes, before it is durable.
#[derive(Debug)]
pub(super) struct Draft {
    /// The state after the writes.
    pub(super) state: State,
    /// The revisions of the writes.
    pub(super) revisions: Vec<RevisionEffect>,
    /// The records of writes with a request id.
    pub(super) remembered: Vec<Remembered>,
    /// Earlier writes with the request ids of this round's writes, including writes of this round.
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

    /// Adds the record of an earlier write.
    pub(super) fn recall(&mut self, write: Remembered) {
        self.known.insert(write.key.clone(), write);
    }

    /// Returns the value at `revision` of each resource that was changed after it, in the storage or by this round: the
    /// value before the first later change.
    fn changed_since(&self, revision: Revision, stored: &[OldValue]) -> Since {
        let stored = stored.iter().map(|old| (old.name.clone(), old.value.clone()));
        let mut since: Since = stored.collect();
        let later = self.revisions.iter().filter(|applied| applied.past.revision > revision);
        for applied in later {
            for key in applied.changes.iter().map(ItemChange::key) {
                if let Some(name) = ResourceName::parse(key) {
                    let before = applied.before.get(key).map(|item| item.value.clone());
                    since.entry(name).or_insert(before);
                }
            }
        }
        since
    }

    /// Returns whether there is nothing to store.
    pub(super) const fn is_empty(&self) -> bool {
        self.revisions.is_empty() && self.remembered.is_empty()
    }
}

/// A queued write.
pub(super) trait Job: Send {
    /// Returns the key of the write's request id, if it has one.
    fn repeat_key(&self) -> Option<&RepeatKey>;

    /// Returns the revision that the write restores. If there is one, the writer calls [`Self::hand_in`] before
    /// [`Self::judge`].
    fn goes_back_to(&self) -> Option<Revision> {
        None
    }

    /// Receives the stored values, at that revision, of the resources that were changed since. Only restores receive
    /// any.
    fn hand_in(&mut self, _since: Vec<OldValue>) {}

    /// Decides the write by the draft, and adds its revision to the draft.
    fn judge(&mut self, draft: &mut Draft, now: SystemTime);

    /// Answers with the decision, which is durable by now.
    fn answer(self: Box<Self>);

    /// Answers with a failure.
    fn fail(self: Box<Self>, error: CommitError);
}

impl fmt::Debug for dyn Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Job")
    }
}

type WriteOutcome<A> = Result<Written<A>, CommitError>;

/// A write, together with the caller that waits for it.
pub(super) struct Typed<R: WriteRequest> {
    write: R::Write,
    /// Whether the write is only checked.
    is_check: bool,
    repeat: Option<(RepeatKey, Fingerprint)>,
    /// The stored values, at the restored revision, of the resources that were changed since.
    since: Vec<OldValue>,
    outcome: Option<WriteOutcome<R::Answer>>,
    /// Spans the time from being queued to being durable, within the span of the call.
    span: Span,
    reply: oneshot::Sender<WriteOutcome<R::Answer>>,
}

impl<R: WriteRequest> Typed<R> {
    pub(super) fn new(
        write: R::Write,
        is_check: bool,
        repeat: Option<(RepeatKey, Fingerprint)>,
        reply: oneshot::Sender<WriteOutcome<R::Answer>>,
    ) -> Self {
        Self {
            write,
            is_check,
            repeat,
            since: Vec::new(),
            outcome: None,
            span: info_span!("commit", otel.kind = "internal", revision = Empty),
            reply,
        }
    }

    fn decide(&mut self, draft: &mut Draft, now: SystemTime) -> WriteOutcome<R::Answer> {
        let mut since = Since::new();
        if let Some(revision) = self.write.goes_back_to() {
            since = draft.changed_since(revision, &self.since);
            let old = since
                .iter()
                .map(|(name, value)| stored::decode_old(name, value.as_deref()));
            let mut old: Vec<_> = old.collect();
            old.sort_by_cached_key(|old| old.name.to_string());
            self.write.hand_in(old);
        }
        if self.is_check {
            return check::<R>(&draft.state, &self.write);
        }
        let Some((key, content)) = &self.repeat else {
            return self.make(draft, &since, now);
        };
        if let Some(known) = draft.known.get(key) {
            return if known.content == *content {
                repeated(known)
            } else {
                Err(CommitError::RequestIdReused)
            };
        }
        let written = self.make(draft, &since, now)?;
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

    #[expect(clippy::expect_used, reason = "the subject of a plan is part of the state")]
    fn make(&self, draft: &mut Draft, since: &Since, now: SystemTime) -> WriteOutcome<R::Answer> {
        let state = &mut draft.state;
        let plan = self
            .write
            .plan(state, CredentialId::random())
            .map_err(CommitError::Refused)?;
        if !plan.is_empty() {
            let encoded = plan.changes.into_iter().map(|change| {
                let encoded = stored::encode(&change);
                let name = change.name();
                let old = since.get(&name).and_then(Option::as_ref);
                // An earlier release may have encoded the same resource differently; a restore brings back the original
                // bytes.
                let old = old.filter(|old| stored::is_same(&name, old, &encoded)).cloned();
                (change, old.unwrap_or(encoded))
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

/// Returns the answer that the same write got before.
fn repeated<A: WriteAnswer>(known: &Remembered) -> WriteOutcome<A> {
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

    fn goes_back_to(&self) -> Option<Revision> {
        self.write.goes_back_to()
    }

    fn hand_in(&mut self, since: Vec<OldValue>) {
        self.since = since;
    }

    fn judge(&mut self, draft: &mut Draft, now: SystemTime) {
        self.outcome = Some(self.decide(draft, now));
    }

    fn answer(self: Box<Self>) {
        let outcome = self.outcome.unwrap_or(Err(CommitError::OutcomeUnknown));
        // The caller may have disconnected. The write is made nevertheless.
        let _gone = self.reply.send(outcome);
    }

    fn fail(self: Box<Self>, error: CommitError) {
        let _gone = self.reply.send(Err(error));
    }
}
