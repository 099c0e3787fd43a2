//! The end of a call: writes the access log line, completes the span and counts the call, exactly once.

use std::{net::SocketAddr, time::Duration};

use http::{HeaderMap, HeaderValue};
use opentelemetry::trace::Status as SpanStatus;
use tokio::time::Instant;
use tonic::{
    Code, Status,
    metadata::{Binary, MetadataValue},
};
use tracing::{Span, debug, info};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::notes::{Facts, Notes};
use crate::{
    failure::Failure,
    reason::Reason,
    service::{
        metrics::{ActiveCall, code_name},
        request_id::RequestId,
        trace,
    },
};

/// The outcome of a call, from the headers or trailers of its response.
#[derive(Debug)]
pub(super) struct CallOutcome {
    code: Code,
    /// Empty if the call succeeded, or its status has no reason.
    reason: String,
}

impl CallOutcome {
    /// Reads the outcome of a call, and adds the request id to the details of a failure. `None`: the call has not ended
    /// yet.
    pub(super) fn of(headers: &mut HeaderMap, request_id: &RequestId) -> Option<Self> {
        let code = Code::from_bytes(headers.get(Status::GRPC_STATUS)?.as_bytes());
        let reason = match code {
            Code::Ok => String::new(),
            _ => stamp(headers, request_id).unwrap_or_default(),
        };
        Some(Self { code, reason })
    }

    /// The outcome of a call whose caller disconnected before its end.
    fn left() -> Self {
        Self {
            code: Code::Cancelled,
            reason: Reason::CallerCancelled.to_string(),
        }
    }
}

/// Adds the request id to the details of a failure and returns the failure's reason. `None`: the status was not created
/// from a [`Failure`].
fn stamp(headers: &mut HeaderMap, request_id: &RequestId) -> Option<String> {
    let status = Status::from_header_map(headers)?;
    let (details, reason) = Failure::stamp(&status, request_id.as_str())?;
    let details = MetadataValue::<Binary>::from_bytes(&details);
    let details = HeaderValue::from_bytes(details.as_encoded_bytes()).ok()?;
    headers.insert(Status::GRPC_STATUS_DETAILS, details);
    Some(reason)
}

/// Reports the end of a call when it is dropped.
#[derive(Debug)]
pub(super) struct CallEnd {
    pub(super) span: Span,
    pub(super) started: Instant,
    /// Path of the request without its leading slash: `service/method`.
    pub(super) method: String,
    pub(super) request_id: RequestId,
    pub(super) peer: Option<SocketAddr>,
    pub(super) notes: Notes,
    pub(super) active: ActiveCall,
    /// The number of bytes of response messages that were sent.
    pub(super) bytes: u64,
    /// `None`: the call has not ended yet.
    pub(super) outcome: Option<CallOutcome>,
}

impl Drop for CallEnd {
    fn drop(&mut self) {
        let outcome = self.outcome.take().unwrap_or_else(CallOutcome::left);
        let took = self.started.elapsed();
        let facts = self.notes.take();
        self.active.end(outcome.code, &outcome.reason, took);
        if self.request_id.is_recorded() {
            self.tell_span(&outcome, &facts);
        }
        self.log(&outcome, &facts, took);
    }
}

impl CallEnd {
    fn log(&self, outcome: &CallOutcome, facts: &Facts, took: Duration) {
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let is_recorded = self.request_id.is_recorded();
        let context = is_recorded.then(|| trace::context_of(&self.span)).flatten();
        let trace_id = context
            .as_ref()
            .or_else(|| self.request_id.trace())
            .map(|context| context.trace_id().to_string());
        let peer = self.peer.map(tracing::field::display);
        // `parent: None`, because the line itself has all fields of the span.
        macro_rules! line {
            ($level:ident) => {
                $level!(
                    target: "switchboard::access",
                    parent: None,
                    method = self.method,
                    code = code_name(outcome.code),
                    reason = outcome.reason,
                    duration_ms,
                    request_id = self.request_id.as_str(),
                    trace_id,
                    peer,
                    response_bytes = self.bytes,
                    feature = facts.feature,
                    model = facts.model,
                    endpoint = facts.endpoint,
                    error = facts.error,
                    attempts = facts.attempts,
                    finish_reason = facts.finish_reason,
                    input_tokens = facts.input_tokens,
                    output_tokens = facts.output_tokens,
                    "call"
                )
            };
        }
        if is_routine(&self.method, outcome.code) {
            line!(debug);
        } else {
            line!(info);
        }
    }

    fn tell_span(&self, outcome: &CallOutcome, facts: &Facts) {
        let span = &self.span;
        span.set_attribute("rpc.grpc.status_code", i64::from(i32::from(outcome.code)));
        let error = match outcome.reason.as_str() {
            // The status comes from a library and has no reason.
            "" => code_name(outcome.code).to_owned(),
            reason => reason.to_owned(),
        };
        if is_own_fault(outcome.code) {
            span.set_status(SpanStatus::error(error.clone()));
        }
        if outcome.code != Code::Ok {
            span.set_attribute("error.type", error);
        }
        let count = |count: Option<u64>| count.and_then(|count| i64::try_from(count).ok());
        if let Some(feature) = &facts.feature {
            span.set_attribute("switchboard.feature", feature.clone());
        }
        if let Some(model) = &facts.model {
            span.set_attribute("gen_ai.request.model", model.clone());
        }
        if let Some(attempts) = facts.attempts {
            span.set_attribute("switchboard.attempts", i64::from(attempts));
        }
        if let Some(reason) = facts.finish_reason {
            span.set_attribute("gen_ai.response.finish_reasons", reason);
        }
        if let Some(tokens) = count(facts.input_tokens) {
            span.set_attribute("gen_ai.usage.input_tokens", tokens);
        }
        if let Some(tokens) = count(facts.output_tokens) {
            span.set_attribute("gen_ai.usage.output_tokens", tokens);
        }
    }
}

/// Whether a call is logged at `debug` only.
///
/// Platforms check health every few seconds, and tools read the services by reflection before each call. Failures are
/// logged like those of other calls, but a reflection stream that the tool cancels is not a failure.
fn is_routine(method: &str, code: Code) -> bool {
    let is_reflection = method.starts_with("grpc.reflection.");
    match code {
        Code::Ok => is_reflection || method.starts_with("grpc.health."),
        Code::Cancelled => is_reflection,
        _ => false,
    }
}

/// Whether a code is a server error by the rules of OpenTelemetry for spans of servers.
const fn is_own_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_checks_and_reflection_are_routine_unless_they_fail() {
        const HEALTH: &str = "grpc.health.v1.Health/Check";
        const REFLECTION: &str = "grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
        const CALL: &str = "switchboard.router.v1.InferenceService/Infer";
        for (method, code, is_expected) in [
            (HEALTH, Code::Ok, true),
            (HEALTH, Code::NotFound, false),
            (HEALTH, Code::Cancelled, false),
            (REFLECTION, Code::Ok, true),
            (REFLECTION, Code::Cancelled, true),
            (REFLECTION, Code::Unavailable, false),
            (CALL, Code::Ok, false),
            (CALL, Code::Cancelled, false),
        ] {
            assert_eq!(is_routine(method, code), is_expected, "{method} {code:?}");
        }
    }
}
