//! Distributed tracing of calls across processes.
//!
//! Trace context is read and sent only as W3C `traceparent` and `tracestate`. B3 headers are ignored, and baggage is
//! not passed on. With a collector, spans are recorded and [`export`] sends them. Without one, a caller's context is
//! passed on unchanged. Prompts, answers and tokens are never attributes of a span.
//!
//! Whether a call is recorded is decided once, when it begins. For a call that is not recorded, no spans of a trace are
//! created: it costs only the decision. With a low sampling rate, that is most calls.

pub mod export;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::{
    Context,
    propagation::{Extractor, Injector, TextMapPropagator as _},
    trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

const TRACEPARENT: &str = "traceparent";

/// The decision about a call's trace, made when the call begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TraceDecision {
    /// The caller's trace context, or a new unsampled one if the call is not recorded. `None`: the caller sent no
    /// context, and either the first span creates one or there is no collector.
    pub(crate) context: Option<SpanContext>,
    pub(crate) is_recorded: bool,
}

/// Decides whether a call is recorded: the caller's sampling decision applies; without one, the call is sampled at
/// random.
pub(crate) fn begin(headers: &HeaderMap) -> TraceDecision {
    decide(caller(headers), export::ratio(), fastrand::f64)
}

/// Decides for a caller's context. `ratio`: `None` if there is no collector. `chance` returns a random number from 0 to
/// 1.
fn decide(caller: Option<SpanContext>, ratio: Option<f64>, chance: impl FnOnce() -> f64) -> TraceDecision {
    let Some(ratio) = ratio else {
        return TraceDecision {
            context: caller,
            is_recorded: false,
        };
    };
    let is_recorded = match &caller {
        Some(caller) => caller.is_sampled(),
        None => chance() < ratio,
    };
    TraceDecision {
        // Services that are called on behalf of an unrecorded call must not record it either.
        context: caller.or_else(|| (!is_recorded).then(unrecorded)),
        is_recorded,
    }
}

fn unrecorded() -> SpanContext {
    let trace = TraceId::from(fastrand::u128(1..));
    let span = SpanId::from(fastrand::u64(1..));
    SpanContext::new(trace, span, TraceFlags::NOT_SAMPLED, false, TraceState::NONE)
}

/// Reads the caller's trace context from the headers. `None`: it is absent or malformed.
fn caller(headers: &HeaderMap) -> Option<SpanContext> {
    // Most callers send no trace context, so this check saves the parsing.
    headers.get(TRACEPARENT)?;
    read(&Headers(headers))
}

/// Sets the remote parent of a span that has just begun.
pub(crate) fn adopt(span: &Span, parent: &SpanContext) {
    let parent = Context::new().with_remote_span_context(parent.clone());
    // This fails only without a collector: then the span is not recorded and needs no parent.
    drop(span.set_parent(parent));
}

/// Sets the remote parent of a span that has just begun from a `traceparent`. A malformed one is ignored.
pub fn adopt_text(span: &Span, traceparent: &str) {
    if let Some(parent) = read(&TraceParent(traceparent)) {
        adopt(span, &parent);
    }
}

/// Returns the trace context of a span. `None`: the span is not recorded.
#[must_use]
pub(crate) fn context_of(span: &Span) -> Option<SpanContext> {
    let context = span.context().span().span_context().clone();
    context.is_valid().then_some(context)
}

/// Returns the trace context of a span as a `traceparent`. `None`: the span is not recorded.
#[must_use]
pub fn text(span: &Span) -> Option<Box<str>> {
    let context = context_of(span)?;
    let flags = context.trace_flags().to_u8();
    Some(format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id()).into())
}

/// Adds trace context to the headers of a request: the current span's context if the call is recorded, otherwise the
/// context in `begun`.
pub(super) fn pass_on(begun: &TraceDecision, headers: &mut HeaderMap) {
    let current = begun.is_recorded.then(|| context_of(&Span::current())).flatten();
    if let Some(context) = current.as_ref().or(begun.context.as_ref()) {
        let context = Context::new().with_remote_span_context(context.clone());
        TraceContextPropagator::new().inject_context(&context, &mut HeadersMut(headers));
    }
}

fn read(from: &dyn Extractor) -> Option<SpanContext> {
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), from);
    let context = context.span().span_context().clone();
    context.is_valid().then_some(context)
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct HeadersMut<'a>(&'a mut HeaderMap);

impl Injector for HeadersMut<'_> {
    fn set(&mut self, key: &str, value: String) {
        if value.is_empty() {
            return;
        }
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}

struct TraceParent<'a>(&'a str);

impl Extractor for TraceParent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        pairs.collect()
    }

    #[test]
    fn without_a_collector_the_callers_context_is_passed_on_unchanged() {
        let begun = begin(&headers(&[
            (TRACEPARENT, PARENT),
            ("tracestate", "vendor=1"),
            ("baggage", "user=alice"),
            ("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1"),
        ]));
        let mut sent = HeaderMap::new();
        pass_on(&begun, &mut sent);
        assert_eq!(sent, headers(&[(TRACEPARENT, PARENT), ("tracestate", "vendor=1")]));
    }

    #[test]
    fn a_call_is_recorded_by_its_callers_decision_or_else_at_random() {
        let told = |flags: &str| {
            let text = PARENT.strip_suffix("01").map(|parent| format!("{parent}{flags}"));
            read(&TraceParent(&text.unwrap())).unwrap()
        };
        for (caller, ratio, chance, expected) in [
            (Some("01"), None, 0.0, false),
            (None, None, 0.0, false),
            (Some("01"), Some(0.0), 0.9, true),
            (Some("00"), Some(1.0), 0.0, false),
            (None, Some(0.1), 0.09, true),
            (None, Some(0.1), 0.1, false),
            (None, Some(0.0), 0.0, false),
            (None, Some(1.0), 0.999, true),
        ] {
            let caller = caller.map(told);
            let begun = decide(caller.clone(), ratio, || chance);
            assert_eq!(begun.is_recorded, expected, "{caller:?} {ratio:?} {chance}");
            if caller.is_some() || expected {
                assert_eq!(begun.context, caller);
            } else {
                // With a collector, called services get an unsampled context.
                assert_eq!(begun.context.is_some(), ratio.is_some());
                assert!(
                    begun
                        .context
                        .is_none_or(|context| context.is_valid() && !context.is_sampled())
                );
            }
        }
    }

    #[test]
    fn a_context_that_is_not_w3c_is_ignored() {
        for pairs in [
            &[("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1")][..],
            &[(TRACEPARENT, "00-00000000000000000000000000000000-00f067aa0ba902b7-01")],
            &[(TRACEPARENT, "nonsense")],
            &[],
        ] {
            assert_eq!(caller(&headers(pairs)), None, "{pairs:?}");
        }
    }
}
