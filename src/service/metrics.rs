//! The metrics that both services have, and helpers with which each service registers its own.
//!
//! The number of label values is bounded: methods of the contract, and its codes and reasons. Text that a caller
//! chooses and names of resources never become labels. Handles of metrics are stored, so that a successful call does
//! not look up labels.

mod text;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{
        MetricType,
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
    },
    registry::Registry,
};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::Code;

pub(super) use self::text::{MetricsFormat, render};
use super::trace::export;
use crate::{pb, reason::Reason};

/// The label of calls to unknown methods.
const OTHER: &str = "other";

/// The upper bounds of the histogram buckets for durations, in seconds: from a write on a fast disk to the longest
/// answer of a model.
const SECONDS: [f64; 16] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];

/// Creates a registry for the metrics of the service `name`, with the metrics that every process has. The service adds
/// its own.
#[must_use]
pub fn of_service(name: &'static str) -> Registry {
    let mut registry = Registry::with_prefix("switchboard");
    let build = Family::<Build, Gauge>::default();
    let version = env!("CARGO_PKG_VERSION");
    build.get_or_create(&Build { service: name, version }).set(1);
    registry.register("build_info", "The service and its version", build);
    read_counter(
        &mut registry,
        "trace_spans_dropped",
        "Spans that were recorded and did not reach the collector",
        export::dropped,
    );
    registry
}

/// Creates a histogram for durations in seconds.
#[must_use]
pub fn durations() -> Histogram {
    Histogram::new(SECONDS)
}

/// Registers a gauge whose value is read at each scrape. While `read` returns `None`, the metric has no value.
pub fn read_gauge(
    registry: &mut Registry,
    name: &'static str,
    help: &'static str,
    read: impl Fn() -> Option<f64> + Send + Sync + 'static,
) {
    let encode = move |mut encoder: DescriptorEncoder<'_>| {
        let encoder = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        read().map_or(Ok(()), |value| ConstGauge::new(value).encode(encoder))
    };
    registry.register_collector(Box::new(Read { name, encode }));
}

/// Registers a counter whose value is read at each scrape.
pub fn read_counter(
    registry: &mut Registry,
    name: &'static str,
    help: &'static str,
    read: impl Fn() -> u64 + Send + Sync + 'static,
) {
    let encode = move |mut encoder: DescriptorEncoder<'_>| {
        let encoder = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(read()).encode(encoder)
    };
    registry.register_collector(Box::new(Read { name, encode }));
}

struct Read<E> {
    name: &'static str,
    encode: E,
}

impl<E> fmt::Debug for Read<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Read").field(&self.name).finish()
    }
}

impl<E> Collector for Read<E>
where
    E: Fn(DescriptorEncoder<'_>) -> fmt::Result + Send + Sync + 'static,
{
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        (self.encode)(encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    service: &'static str,
    version: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfMethod {
    method: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    method: Arc<str>,
    code: &'static str,
    reason: &'static str,
}

/// The metrics of a service's calls.
#[derive(Debug, Clone)]
pub struct CallMetrics {
    methods: Arc<HashMap<Arc<str>, Arc<Method>>>,
    other: Arc<Method>,
    finished: Family<Ended, Counter>,
}

/// The handles of the metrics of one method.
#[derive(Debug)]
struct Method {
    name: Arc<str>,
    started: Counter,
    active: Gauge,
    duration: Histogram,
    /// The counter of successful calls, which are most calls. Not set: no call has succeeded yet.
    answered: OnceLock<Counter>,
}

impl CallMetrics {
    /// Registers the metrics of calls. `services` are the full names of the services; health is added.
    #[must_use]
    pub fn new(registry: &mut Registry, services: &[&str]) -> Self {
        let started = Family::<OfMethod, Counter>::default();
        let active = Family::<OfMethod, Gauge>::default();
        let duration = Family::<OfMethod, Histogram>::new_with_constructor(durations);
        let method = |name: String| {
            let name: Arc<str> = name.into();
            let label = OfMethod {
                method: Arc::clone(&name),
            };
            Arc::new(Method {
                name,
                started: started.get_or_create_owned(&label),
                active: active.get_or_create_owned(&label),
                duration: duration.get_or_create_owned(&label),
                answered: OnceLock::new(),
            })
        };
        let other = method(OTHER.to_owned());
        let methods = methods_of(services).map(method);
        let methods = methods.map(|method| (Arc::clone(&method.name), method)).collect();
        let metrics = Self {
            methods: Arc::new(methods),
            other,
            finished: Family::default(),
        };
        registry.register("calls_started", "Calls that were started", started.clone());
        registry.register("calls_active", "Calls in progress", active.clone());
        registry.register(
            "call_duration_seconds",
            "Duration of calls; streams are measured until their end",
            duration.clone(),
        );
        registry.register("calls_finished", "Calls that have ended", metrics.finished.clone());
        metrics
    }

    /// Counts the start of a call. A method that none of the services has is counted as `other`.
    #[must_use]
    pub(super) fn begin(&self, method: &str) -> ActiveCall {
        let method = Arc::clone(self.methods.get(method).unwrap_or(&self.other));
        method.started.inc();
        method.active.inc();
        ActiveCall {
            method,
            finished: self.finished.clone(),
        }
    }
}

/// A call whose start was counted. Its end must be counted with [`Self::end`].
#[derive(Debug)]
pub(super) struct ActiveCall {
    method: Arc<Method>,
    finished: Family<Ended, Counter>,
}

impl ActiveCall {
    /// The method as `service/method`, or `other`.
    pub(super) fn method(&self) -> &str {
        &self.method.name
    }

    /// Counts the end of the call. Must be called exactly once.
    pub(super) fn end(&self, code: Code, reason: &str, took: Duration) {
        self.method.active.dec();
        self.method.duration.observe(took.as_secs_f64());
        let counter = |reason| {
            self.finished.get_or_create_owned(&Ended {
                method: Arc::clone(&self.method.name),
                code: code_name(code),
                reason,
            })
        };
        if code == Code::Ok {
            self.method.answered.get_or_init(|| counter("")).inc();
            return;
        }
        // A reason that is not in the list, for example from a library, must not create a new label value.
        let mut known = Reason::ALL.iter().map(|known| known.as_str());
        counter(known.find(|known| *known == reason).unwrap_or_default()).inc();
    }
}

/// Returns the methods of `services` and of health, as `service/method`.
fn methods_of(services: &[&str]) -> impl Iterator<Item = String> {
    let files = [pb::FILE_DESCRIPTOR_SET, tonic_health::pb::FILE_DESCRIPTOR_SET];
    // The descriptors can always be decoded; a test proves it.
    let files = files.into_iter().filter_map(|set| FileDescriptorSet::decode(set).ok());
    let mut methods = Vec::new();
    for file in files.flat_map(|set| set.file) {
        for service in &file.service {
            let name = format!("{}.{}", file.package(), service.name());
            if services.contains(&name.as_str()) || name == "grpc.health.v1.Health" {
                methods.extend(service.method.iter().map(|method| format!("{name}/{}", method.name())));
            }
        }
    }
    methods.into_iter()
}

/// Returns the name of a code as the documentation of gRPC writes it.
pub(super) const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> (Registry, CallMetrics) {
        let mut registry = of_service("test");
        let calls = CallMetrics::new(&mut registry, &["switchboard.router.v1.InferenceService"]);
        (registry, calls)
    }

    fn shown(registry: &Registry) -> Vec<String> {
        let text = render(registry, MetricsFormat::Prometheus).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    const INFER: &str = "switchboard.router.v1.InferenceService/StreamInfer";

    #[test]
    fn a_call_is_counted_at_its_start_and_at_its_end() {
        let (registry, calls) = metrics();
        let call = calls.begin(INFER);
        let active = |lines: &[String]| {
            let name = format!("switchboard_calls_active{{method=\"{INFER}\"}} ");
            lines
                .iter()
                .find_map(|line| line.strip_prefix(&name).map(str::to_owned))
        };
        assert_eq!(active(&shown(&registry)).unwrap(), "1");
        call.end(Code::Unavailable, "SERVER_DRAINING", Duration::from_millis(3));
        let lines = shown(&registry);
        assert_eq!(active(&lines).unwrap(), "0");
        let label = format!("{{method=\"{INFER}\",code=\"UNAVAILABLE\",reason=\"SERVER_DRAINING\"}} 1");
        assert!(
            lines.contains(&format!("switchboard_calls_finished_total{label}")),
            "{lines:#?}"
        );
        let label = format!("{{le=\"0.005\",method=\"{INFER}\"}} 1");
        assert!(
            lines.contains(&format!("switchboard_call_duration_seconds_bucket{label}")),
            "{lines:#?}"
        );
    }

    #[test]
    fn text_that_a_caller_chooses_does_not_become_a_label() {
        let (registry, calls) = metrics();
        calls.begin(INFER).end(Code::Ok, "", Duration::ZERO);
        let before = shown(&registry).len();
        for number in 0..10_000 {
            let method = format!("made.up/{number}");
            calls
                .begin(&method)
                .end(Code::Unimplemented, &format!("MADE_UP_{number}"), Duration::ZERO);
        }
        assert_eq!(shown(&registry).len(), before + 1);
    }
}
