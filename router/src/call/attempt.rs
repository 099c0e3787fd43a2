//! One attempt to have a server answer, and all that must be told about it.
//!
//! An attempt is told about in four places: the metrics, its span, the health of its server, and the model's credential. It
//! ends exactly once: [`Attempt::end`] and [`Attempt::fail`] consume it, and dropping it means that it was abandoned, which
//! says nothing about the server.

use std::{sync::Arc, time::Duration};

use switchboard::{resource::model::Timeout, service::request_id::RequestId};
use tokio::time::Instant;
use tracing::Span;

use super::{CallError, Calls, Selected};
use crate::{
    endpoints::Verdict,
    live::InFlight,
    upstream::{
        Outgoing, UpstreamError,
        dialect::Post,
        metrics::{AttemptOutcome, AttemptWatch},
    },
};

/// An attempt on its way.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    /// Who is called, and why. The caller learns it when the attempt answers.
    pub(super) selected: Selected,
    /// What is sent.
    pub(super) post: Arc<Post>,
    /// How long it may take.
    pub(super) limits: AttemptLimits,
    request_id: &'a RequestId,
    watch: AttemptWatch,
    in_flight: InFlight,
}

/// How long an attempt may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct AttemptLimits {
    /// From the beginning to the first token. A whole answer has no such limit.
    pub(super) first_token: Duration,
    /// Whether that is less than the model allows.
    pub(super) is_hurried: bool,
    /// Between two events.
    pub(super) idle: Duration,
    /// When the call must be over on this model.
    pub(super) deadline: Instant,
}

/// An attempt that has failed. Everyone but the walk knows.
#[derive(Debug)]
pub(super) struct FailedAttempt {
    /// Who was called.
    pub(super) selected: Selected,
    /// Why it failed.
    pub(super) error: CallError,
}

impl<'a> Attempt<'a> {
    /// Begins an attempt of the call `request_id`, which is one of `calls`.
    pub(super) fn begin(
        calls: &Calls,
        request_id: &'a RequestId,
        selected: Selected,
        post: Arc<Post>,
        limits: AttemptLimits,
        in_flight: InFlight,
    ) -> Self {
        let metrics = calls.upstream.metrics();
        let watch = metrics.begin(&selected.model.name, &selected.endpoint.uri, request_id);
        Self {
            selected,
            post,
            limits,
            request_id,
            watch,
            in_flight,
        }
    }

    /// Where it goes.
    pub(super) fn outgoing(&self) -> Outgoing<'_> {
        let Selected { model, endpoint, .. } = &self.selected;
        Outgoing {
            endpoint: &endpoint.uri,
            address: self.selected.address,
            identifier: &self.selected.identifier,
            credential: model.credential.as_deref(),
            tls: model.tls.as_ref(),
            connect_timeout: model.spec.limits.connect_timeout.map(Timeout::get),
            request_id: self.request_id,
        }
    }

    /// The span that the attempt's work belongs to.
    pub(super) fn span(&self) -> Span {
        self.watch.span()
    }

    /// The first token of a stream has come.
    pub(super) fn first_token(&mut self) {
        self.watch.first_token();
        self.in_flight.first_token();
    }

    /// The answer has been read to its end. Returns who gave it.
    pub(super) fn end(mut self) -> Selected {
        self.watch.ended(None::<AttemptOutcome>);
        self.in_flight.judge(Verdict::Answered);
        self.selected
    }

    /// The attempt has failed, or the call has ended before the answer did.
    pub(super) fn fail(mut self, error: CallError) -> Box<FailedAttempt> {
        self.watch.ended(Some(&error));
        let verdict = match &error {
            // The caller's deadline, or the time kept for others, gave the server less time than its model allows.
            CallError::Upstream(UpstreamError::FirstTokenTimeout(_)) if self.limits.is_hurried => Some(Verdict::Late),
            CallError::Upstream(error) => error.verdict(),
            CallError::Refused(_) | CallError::Interrupted(_) | CallError::Internal => None,
        };
        if let Some(verdict) = verdict {
            self.in_flight.judge(verdict);
        }
        Box::new(FailedAttempt {
            selected: self.selected,
            error,
        })
    }
}
