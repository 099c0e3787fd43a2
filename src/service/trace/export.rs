//! Sends spans to a collector, in the background of the calls that create them.
//!
//! Spans go into a bounded queue, and one task sends them in batches. A collector that is down, slow or hangs therefore
//! never delays a call: spans that do not fit into the queue, or could not be sent in time, are dropped and counted.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::Uri;
use opentelemetry::{
    Context, KeyValue,
    trace::{Link, SpanKind, TraceId, TracerProvider as _},
};
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{
        Sampler, SamplingResult, SdkTracer, SdkTracerProvider, ShouldSample, Span, SpanData, SpanExporter,
        SpanProcessor,
    },
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{Metadata, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

/// The capacity of the queue, in spans: about one second at a thousand calls per second. If the queue is full, spans
/// are dropped and counted.
const QUEUE: usize = 4096;

/// The maximum number of spans in one message to the collector, which is then about 256 KiB.
const BATCH: usize = 512;

/// How long spans wait for a batch to fill.
const GATHERING: Duration = Duration::from_millis(500);

/// The time limit for sending one batch to the collector.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// The time limit for sending the queued spans when the process ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The number of recorded spans that did not reach the collector. Global to the process, like the tracing subscriber.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Returns the number of recorded spans that did not reach the collector.
#[must_use]
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// The sampling rate for calls that arrive without a sampling decision. Global to the process, like the tracing
/// subscriber. Not set: there is no collector.
static RATIO: OnceLock<f64> = OnceLock::new();

/// Returns the sampling rate for calls that arrive without a sampling decision. `None`: no call is recorded.
pub(super) fn ratio() -> Option<f64> {
    RATIO.get().copied()
}

/// Options of tracing: the collector and the sampling rate.
#[derive(Debug, Clone, PartialEq)]
pub struct Traces {
    /// The URL of the collector, `http://host:port`.
    pub collector: Uri,
    /// The sampling rate for calls that arrive without a sampling decision, from 0 to 1.
    pub ratio: f64,
    /// The name of the service in traces.
    pub service: &'static str,
}

impl Traces {
    /// Creates the tracer that records spans and the sender that exports them. Neither is active yet.
    pub(in crate::service) fn open(self) -> (SdkTracer, SpanSender) {
        let (queue, spans) = mpsc::channel(QUEUE);
        let resource = Resource::builder_empty()
            .with_attributes([
                KeyValue::new("service.name", self.service),
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            ])
            .build();
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(Roots(Sampler::TraceIdRatioBased(
                self.ratio,
            )))))
            .with_resource(resource.clone())
            .with_span_processor(SpanQueue(queue))
            .build();
        // Only the first call in a process has an effect, as with the subscriber.
        RATIO.set(self.ratio).ok();
        let sender = SpanSender {
            collector: self.collector,
            resource,
            spans,
        };
        (provider.tracer("switchboard"), sender)
    }
}

/// The sampler for root spans: spans without a parent.
#[derive(Debug, Clone)]
struct Roots(Sampler);

impl ShouldSample for Roots {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let sampler = match kind {
            // Server spans are created only for calls that `trace::begin` decided to record.
            SpanKind::Server => &Sampler::AlwaysOn,
            // A root span of these kinds belongs to a call that is not recorded.
            SpanKind::Internal | SpanKind::Client => &Sampler::AlwaysOff,
            SpanKind::Producer | SpanKind::Consumer => &self.0,
        };
        sampler.should_sample(parent, trace_id, name, kind, attributes, links)
    }
}

/// Creates the layer that records spans with a field `otel.kind`. It records no events.
///
/// Only the services' own spans have this field. Spans of the transport, including the exporter's, do not.
pub(in crate::service) fn layer<S>(tracer: SdkTracer) -> impl Layer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let is_for_traces = |metadata: &Metadata<'_>| metadata.is_span() && metadata.fields().field("otel.kind").is_some();
    tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_context_activation(false)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(filter_fn(is_for_traces).with_max_level_hint(LevelFilter::INFO))
}

/// The sending end of the queue.
#[derive(Debug)]
struct SpanQueue(mpsc::Sender<SpanData>);

impl SpanProcessor for SpanQueue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.0.try_send(span).is_err() {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// The receiving end of the queue: sends spans to the collector.
#[derive(Debug)]
pub(in crate::service) struct SpanSender {
    collector: Uri,
    resource: Resource,
    spans: mpsc::Receiver<SpanData>,
}

impl SpanSender {
    /// Sends spans until `stop` is cancelled, then the spans that are still queued, for at most a second. Best effort:
    /// if the task ends early, spans are dropped and counted.
    pub(in crate::service) async fn run(self, stop: CancellationToken) {
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(self.collector.to_string())
            .with_timeout(EXPORT_TIMEOUT)
            .build();
        match exporter {
            Ok(mut exporter) => {
                exporter.set_resource(&self.resource);
                send(self.spans, &exporter, stop).await;
            }
            Err(error) => tracing::warn!(%error, "could not create the span exporter: no spans are sent"),
        }
    }
}

async fn send(mut spans: mpsc::Receiver<SpanData>, exporter: &impl SpanExporter, stop: CancellationToken) {
    let mut is_well = true;
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            taken = spans.recv_many(&mut batch, BATCH) => if taken == 0 { return },
            () = stop.cancelled() => break,
        }
        tokio::select! {
            () = gather(&mut spans, &mut batch) => {}
            () = sleep(GATHERING) => {}
            () = stop.cancelled() => break,
        }
        let is_sent = tokio::select! {
            is_sent = export(exporter, std::mem::take(&mut batch), EXPORT_TIMEOUT) => is_sent,
            // When the process ends, a collector that hangs gets no more time than the flush.
            () = async { stop.cancelled().await; sleep(FLUSH_TIMEOUT).await } => return,
        };
        match (is_well, is_sent) {
            (true, false) => tracing::warn!("the collector does not accept spans: they are dropped"),
            (false, true) => tracing::info!("the collector accepts spans again"),
            (true, true) | (false, false) => {}
        }
        is_well = is_sent;
    }
    spans.close();
    let until = Instant::now() + FLUSH_TIMEOUT;
    let flushed = async {
        loop {
            spans.recv_many(&mut batch, BATCH).await;
            if batch.is_empty() {
                return;
            }
            export(exporter, std::mem::take(&mut batch), FLUSH_TIMEOUT).await;
        }
    };
    drop(timeout_at(until, flushed).await);
}

/// Receives spans until the batch is full or the queue is closed. Cancel safe: received spans are in the batch.
async fn gather(spans: &mut mpsc::Receiver<SpanData>, batch: &mut Vec<SpanData>) {
    while batch.len() < BATCH {
        let room = BATCH - batch.len();
        if spans.recv_many(batch, room).await == 0 {
            return;
        }
    }
}

/// Sends a batch and returns whether the collector accepted it. The spans of a batch that was not accepted are counted
/// as dropped.
async fn export(exporter: &impl SpanExporter, batch: Vec<SpanData>, limit: Duration) -> bool {
    let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
    let is_sent = timeout(limit, exporter.export(batch))
        .await
        .is_ok_and(|result| result.is_ok());
    if !is_sent {
        DROPPED.fetch_add(count, Ordering::Relaxed);
    }
    is_sent
}
