//! What is counted of the attempts to have models answer.
//!
//! Nothing here is named by a model: the number of models has no bound that a metrics system could live with. Which model
//! answered stands in the access line and in the trace.

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

/// How an attempt to have a model answer ended, as far as metrics tell it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// With a whole answer.
    Answered,
    /// The server could not be dialled.
    Unreachable,
    /// The server took too long.
    TimedOut,
    /// The server failed, or has too much to do.
    Failed,
    /// The server does not accept the request, the credential, the model or the path.
    Refused,
    /// The connection ended within the answer, or before it.
    Truncated,
    /// What the server sent makes no sense.
    Malformed,
    /// The call was given up: its caller has gone or is too slow, its deadline passed, or the router shuts down.
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

    /// The label.
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

/// What is counted of the calls to model servers.
#[derive(Debug)]
pub struct UpstreamMetrics {
    by_outcome: Family<AttemptLabels, Counter>,
    attempts: [Counter; AttemptOutcome::ALL.len()],
    active: Gauge,
    first_token: Histogram,
    stale: Counter,
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
        }
    }
}

impl UpstreamMetrics {
    /// Begins to watch an attempt; it counts as abandoned unless it is told how it ended.
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

    /// Counts a request that went out once more, since its connection was stale.
    pub fn repeated(&self) {
        self.stale.inc();
    }

    /// Shows what is counted.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "attempts",
            "Attempts to have a model answer, by how they ended",
            self.by_outcome.clone(),
        );
        registry.register("attempts_active", "Attempts that run", self.active.clone());
        registry.register(
            "time_to_first_token_seconds",
            "From the beginning of an attempt to the first token",
            self.first_token.clone(),
        );
        registry.register(
            "stale_connection_repeats",
            "Requests that went out once more, since a pooled connection was closed by its server",
            self.stale.clone(),
        );
    }
}

/// An attempt that is under way, as metrics and traces see it.
#[derive(Debug)]
pub struct AttemptWatch {
    metrics: Arc<UpstreamMetrics>,
    span: Span,
    begun: Instant,
    outcome: AttemptOutcome,
}

impl AttemptWatch {
    /// The span that the attempt's work belongs to.
    #[must_use]
    pub fn span(&self) -> Span {
        self.span.clone()
    }

    /// Counts the first token.
    pub fn first_token(&self) {
        self.metrics.first_token.observe(self.begun.elapsed().as_secs_f64());
    }

    /// Takes down how it ended: well, or with an error.
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
    fn an_attempt_counts_once_however_it_ends() {
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
