//! One attempt to get an answer from a server, and the reports of its result.
//!
//! The result is reported in four places: the metrics, the attempt's span, the health of its server, and the state of
//! the model's credential. An attempt ends exactly once: [`Attempt::end`] and [`Attempt::fail`] consume it. An attempt
//! that is dropped instead was abandoned, which says nothing about the server.

use std::{sync::Arc, time::Duration};

use switchboard::{resource::model::Timeout, service::request_id::RequestId};
use tokio::time::Instant;
use tracing::Span;

use super::{CallError, Calls, Selected, ServerError};
use crate::{
    endpoints::Verdict,
    live::InFlight,
    upstream::{
        Outgoing, UpstreamError,
        dialect::Post,
        metrics::{AttemptOutcome, AttemptWatch},
    },
};

/// An attempt in progress.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    /// The model and server that are called, and why. Sent to the caller when the attempt answers.
    pub(super) selected: Selected,
    /// The encoded request.
    pub(super) post: Arc<Post>,
    /// Time limits of the attempt.
    pub(super) limits: AttemptLimits,
    request_id: &'a RequestId,
    watch: AttemptWatch,
    in_flight: InFlight,
}

/// Time limits of an attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct AttemptLimits {
    /// From the beginning to the first token. Not used for a whole answer, which has no such limit.
    pub(super) first_token: Duration,
    /// Whether `first_token` is shorter than the model allows.
    pub(super) is_hurried: bool,
    /// Between two events of a stream.
    pub(super) idle: Duration,
    /// When the call must be finished on this model.
    pub(super) deadline: Instant,
}

/// An attempt that has failed. The failure is reported everywhere except to the walk.
#[derive(Debug)]
pub(super) struct FailedAttempt {
    /// The model and server that were called.
    pub(super) selected: Selected,
    /// Why the attempt failed. An error of the server names the server.
    pub(super) error: CallError,
}

impl<'a> Attempt<'a> {
    /// Begins an attempt for the call `request_id`.
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

    /// Returns the address, credential and limits with which the request is sent.
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

    /// Returns the span that covers the attempt's work.
    pub(super) fn span(&self) -> Span {
        self.watch.span()
    }

    /// Records that the first token of a stream has arrived.
    pub(super) fn first_token(&mut self) {
        self.watch.first_token();
        self.in_flight.first_token();
    }

    /// Records that the answer was read to its end. Returns the model and server that gave it.
    pub(super) fn end(mut self) -> Selected {
        self.watch.ended(None::<AttemptOutcome>);
        self.in_flight.judge(Verdict::Answered);
        self.selected
    }

    /// Records that the attempt failed, or that the call ended before the answer did.
    pub(super) fn fail(mut self, error: CallError) -> Box<FailedAttempt> {
        self.watch.ended(Some(&error));
        let error = match error {
            CallError::Upstream(ServerError { error, .. }) => {
                let server = Some(self.selected.server());
                let error = ServerError { error, server };
                self.judge(&error);
                error.into()
            }
            other @ (CallError::Refused(_) | CallError::Interrupted(_) | CallError::Internal) => other,
        };
        Box::new(FailedAttempt {
            selected: self.selected,
            error,
        })
    }

    /// Reports an error of the server to its health.
    fn judge(&mut self, failed: &ServerError) {
        let error = &failed.error;
        // The server had less time than its model allows: the caller's deadline was near, or time was kept for other
        // attempts.
        let is_late = self.limits.is_hurried && matches!(error, UpstreamError::FirstTokenTimeout(_));
        let verdict = if is_late { Some(Verdict::Late) } else { error.verdict() };
        if let Some(verdict) = verdict {
            self.in_flight.note_error(error.fault().reason, &failed.to_string());
            self.in_flight.judge(verdict);
        }
    }
}
