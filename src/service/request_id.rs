//! What correlates a call: its id, in its logs, its errors and its answer, and the trace that its caller told.

use std::{fmt, sync::Arc};

use http::{HeaderMap, HeaderValue};
use opentelemetry::trace::SpanContext;

use super::trace;
use crate::{
    names::InstanceId,
    reason::header::{CORRELATION_ID, REQUEST_ID},
};

/// The correlation id of one call, with the trace that its caller told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId {
    text: Arc<str>,
    trace: Arc<trace::TraceDecision>,
}

impl RequestId {
    /// The most characters that are taken from a caller; a longer id is replaced.
    pub const LENGTH_MAX: usize = 128;

    /// The id that the caller gave as `x-request-id`, else as `x-gitlab-correlation-id`, else a new one.
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

    /// The id of the call that `request` belongs to.
    #[must_use]
    pub fn of<T>(request: &tonic::Request<T>) -> Self {
        request.extensions().get().cloned().unwrap_or_else(|| Self {
            text: random(),
            trace: Arc::new(trace::begin(&HeaderMap::new())),
        })
    }

    /// The trace that the caller says the call is part of, or one that nobody records. `None`: it says nothing.
    #[must_use]
    pub fn trace(&self) -> Option<&SpanContext> {
        self.trace.context.as_ref()
    }

    /// Whether the call goes into a trace: only then are spans made for it.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.trace.is_recorded
    }

    /// Gives a request that is made for the call the trace context of the current span: the span's own, or, where none is
    /// recorded, what the caller told.
    pub fn pass_on_trace(&self, headers: &mut HeaderMap) {
        trace::pass_on(&self.trace, headers);
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The text as a header.
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
    fn the_callers_id_is_kept_when_it_is_short_and_plain() {
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
