//! Metrics of the attempts.
//!
//! No label names a model, because the number of models is larger than a metrics system could handle. The access line
//! and the trace show which model answered.

use std::sync::Arc;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use switchboard::{
    endpoint::EndpointUri,
    names::ModelName,
    service::{metrics::durations, request_id::RequestId},
};
use tokio::time::Instant;
use tracing::{Span, field::Empty};

/// The result of an attempt, as metrics distinguish it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The model server gave a complete answer.
    Answered,
    /// The router could not connect to the server.
    Unreachable,
    /// The server took too long.
    TimedOut,
    /// The server failed or is overloaded.
    Failed,
    /// The server rejected the request or the credential, or does not know the model or the path.
    Refused,
    /// The connection closed before the answer was complete.
    Truncated,
    /// The server's answer could not be decoded.
    Malformed,
    /// The call was given up: its caller cancelled or was too slow, its deadline passed, or the router is shutting
    /// down.
    Abandoned,
}

impl AttemptOutcome {
    const ALL: [Self; 8] = [
        Self::Answered,
        Self::Unreachable,
        Self::TimedOut,
        Self::Failed,
        Self::Refused,
        Self::Truncated,
        Self::Malformed,
        Self::Abandoned,
    ];

    /// Returns the value of the metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
            Self::Abandoned => "abandoned",
        }
    }
}

/// The metrics of all attempts.
#[derive(Debug)]
pub struct UpstreamMetrics {
    by_outcome: Family<AttemptLabels, Counter>,
    attempts: [Counter; AttemptOutcome::ALL.len()],
    active: Gauge,
    first_token: Histogram,
    stale: Counter,
    members: Family<MemberLabels, Counter>,
    events: Counter,
    finishes: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MemberLabels {
    member: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabels {
    outcome: &'static str,
}

impl Default for UpstreamMetrics {
    fn default() -> Self {
        let by_outcome = Family::<AttemptLabels, Counter>::default();
        let attempts = AttemptOutcome::ALL.map(|outcome| {
            by_outcome.get_or_create_owned(&AttemptLabels {
                outcome: outcome.as_str(),
            })
        });
        Self {
            by_outcome,
            attempts,
            active: Gauge::default(),
            first_token: durations(),
            stale: Counter::default(),
            members: Family::default(),
            events: Counter::default(),
            finishes: Counter::default(),
        }
    }
}

impl UpstreamMetrics {
    /// Starts to measure an attempt. It counts as abandoned unless [`AttemptWatch::ended`] reports another outcome.
    #[must_use]
    pub fn begin(self: &Arc<Self>, model: &ModelName, endpoint: &EndpointUri, request_id: &RequestId) -> AttemptWatch {
        if !request_id.is_recorded() {
            return self.watch(Span::none());
        }
        let span = tracing::info_span!(
            "attempt",
            otel.kind = "client",
            otel.name = "chat",
            gen_ai.operation.name = "chat",
            gen_ai.request.model = %model,
            server.address = %endpoint.origin().host_and_port(),
            error.r#type = Empty,
        );
        self.watch(span)
    }

    fn watch(self: &Arc<Self>, span: Span) -> AttemptWatch {
        self.active.inc();
        AttemptWatch {
            metrics: Arc::clone(self),
            span,
            begun: Instant::now(),
            outcome: AttemptOutcome::Abandoned,
        }
    }

    /// Counts a request that was sent again because its pooled connection was stale.
    pub fn repeated(&self) {
        self.stale.inc();
    }

    /// Counts what a decoder has passed over: members of another type than expected, and events in which nothing was
    /// recognised.
    pub fn passed_over(&self, members: &[&'static str], events: u64) {
        for member in members {
            self.members.get_or_create(&MemberLabels { member }).inc();
        }
        self.events.inc_by(events);
    }

    /// Counts an answer with a finish reason that is not known.
    pub fn unknown_finish(&self) {
        self.finishes.inc();
    }

    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "attempts",
            "Attempts to get an answer from a model server, by outcome",
            self.by_outcome.clone(),
        );
        registry.register("attempts_active", "Attempts in progress", self.active.clone());
        registry.register(
            "time_to_first_token_seconds",
            "Time from the start of an attempt to its first token",
            self.first_token.clone(),
        );
        registry.register(
            "stale_connection_repeats",
            "Requests sent again because the server had closed the pooled connection",
            self.stale.clone(),
        );
        registry.register(
            "answer_members_ignored",
            "Members of model servers' answers that had an unexpected type, by name",
            self.members.clone(),
        );
        registry.register(
            "answer_events_ignored",
            "Events of model servers' answers in which nothing was recognised",
            self.events.clone(),
        );
        registry.register(
            "unknown_finish_reasons",
            "Answers that ended with a finish reason which the router does not know",
            self.finishes.clone(),
        );
    }
}

/// Measures a running attempt for metrics and traces. Dropping it ends the measurement.
#[derive(Debug)]
pub struct AttemptWatch {
    metrics: Arc<UpstreamMetrics>,
    span: Span,
    begun: Instant,
    outcome: AttemptOutcome,
}

impl AttemptWatch {
    /// Returns the span for the attempt's work.
    #[must_use]
    pub fn span(&self) -> Span {
        self.span.clone()
    }

    /// Records the time to the first token.
    pub fn first_token(&self) {
        self.metrics.first_token.observe(self.begun.elapsed().as_secs_f64());
    }

    /// Records the outcome. `None`: the server gave a complete answer.
    pub fn ended(&mut self, error: Option<impl Into<AttemptOutcome>>) {
        let is_error = error.is_some();
        self.outcome = error.map_or(AttemptOutcome::Answered, Into::into);
        if is_error {
            self.span.record("error.type", self.outcome.as_str());
        }
    }
}

impl Drop for AttemptWatch {
    fn drop(&mut self) {
        self.metrics.active.dec();
        if let Some(counter) = self.metrics.attempts.get(self.outcome as usize) {
            counter.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use switchboard::service::metrics::of_service;

    use super::*;

    #[test]
    fn an_attempt_is_counted_once_for_every_outcome() {
        let metrics = Arc::new(UpstreamMetrics::default());
        let mut registry = of_service("test");
        metrics.register(&mut registry);
        metrics.watch(Span::none()).ended(None::<AttemptOutcome>);
        metrics.watch(Span::none()).ended(Some(AttemptOutcome::Truncated));
        let dropped = metrics.watch(Span::none());
        assert_eq!(metrics.active.get(), 1);
        drop(dropped);
        assert_eq!(metrics.active.get(), 0);
        let counted: Vec<u64> = metrics.attempts.iter().map(Counter::get).collect();
        assert_eq!(counted, [1, 0, 0, 0, 0, 1, 0, 1]);
        for (outcome, counter) in AttemptOutcome::ALL.into_iter().zip(&metrics.attempts) {
            let label = AttemptLabels {
                outcome: outcome.as_str(),
            };
            assert_eq!(
                metrics.by_outcome.get_or_create(&label).get(),
                counter.get(),
                "{label:?}"
            );
        }
    }
}
