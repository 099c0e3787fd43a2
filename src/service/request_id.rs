//! Correlation of calls: the request id in logs, errors and responses, and the call's trace context.

use std::{fmt, sync::Arc};

use http::{HeaderMap, HeaderValue};
use opentelemetry::trace::SpanContext;

use super::trace;
use crate::{
    names::InstanceId,
    reason::header::{CORRELATION_ID, REQUEST_ID},
};

/// The correlation id of one call, together with the decision about the call's trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId {
    text: Arc<str>,
    trace: Arc<trace::TraceDecision>,
}

impl RequestId {
    /// The maximum length of an id from a caller, in characters. A longer id is replaced by a new one.
    pub const LENGTH_MAX: usize = 128;

    /// Takes the id from the header `x-request-id`, or else from `x-gitlab-correlation-id`. If neither is valid,
    /// creates a new id.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let given = [REQUEST_ID, CORRELATION_ID]
            .into_iter()
            .filter_map(|name| headers.get(name)?.to_str().ok())
            .find(|text| {
                (1..=Self::LENGTH_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
            })
            .map_or_else(random, Arc::from);
        Self {
            text: given,
            trace: Arc::new(trace::begin(headers)),
        }
    }

    /// Returns the id of the call that `request` belongs to.
    #[must_use]
    pub fn of<T>(request: &tonic::Request<T>) -> Self {
        request.extensions().get().cloned().unwrap_or_else(|| Self {
            text: random(),
            trace: Arc::new(trace::begin(&HeaderMap::new())),
        })
    }

    /// Returns the trace context that the call began with: the caller's, or a new unsampled one if the call is not
    /// recorded. `None`: the caller sent no context, and the call is recorded in a new trace or there is no collector.
    #[must_use]
    pub fn trace(&self) -> Option<&SpanContext> {
        self.trace.context.as_ref()
    }

    /// Whether the call is recorded in a trace. Spans are created for recorded calls only.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.trace.is_recorded
    }

    /// Adds the trace context to the headers of a request that is made on behalf of the call: the current span's
    /// context, or, if the call is not recorded, the context that the call began with.
    pub fn pass_on_trace(&self, headers: &mut HeaderMap) {
        trace::pass_on(&self.trace, headers);
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The id as the value of a header. `None`: it contains characters that a header cannot have.
    #[must_use]
    pub fn to_header(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.text).ok()
    }
}

fn random() -> Arc<str> {
    InstanceId::random().to_string().into()
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_id_is_kept_if_it_has_at_most_128_visible_ascii_characters() {
        let with = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_str(value).unwrap());
            RequestId::from_headers(&headers)
        };
        assert_eq!(with(REQUEST_ID, "abc").as_str(), "abc");
        assert_eq!(with(CORRELATION_ID, "01HX").as_str(), "01HX");
        assert_ne!(with(REQUEST_ID, "a b").as_str(), "a b");
        assert_eq!(with(REQUEST_ID, &"x".repeat(129)).as_str().len(), 32);
        assert_eq!(RequestId::from_headers(&HeaderMap::new()).as_str().len(), 32);
    }
}
