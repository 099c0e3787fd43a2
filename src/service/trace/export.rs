//! Sends spans to a collector, away from the calls that make them.
//!
//! A bounded queue takes the spans and one task sends them in batches. A collector that is dead, slow or hanging therefore
//! costs a call nothing: what finds no room, and what could not be sent in time, is counted and forgotten.

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

/// How many spans wait to be sent: a second of a thousand calls. When it is full, spans are dropped and counted.
const QUEUE: usize = 4096;

/// How many spans one message to the collector has at most: about a quarter of a megabyte.
const BATCH: usize = 512;

/// How long spans wait for others to go with them.
const GATHERING: Duration = Duration::from_millis(500);

/// How long the collector may take for one batch.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long what is queued may take to be sent when the process ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Spans that were recorded and did not reach the collector. Of the process, like its subscriber.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// How many spans were recorded and did not reach the collector.
#[must_use]
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// The share of the calls that is recorded where no caller has decided. Of the process, like its subscriber. Empty: there is
/// no collector.
static RATIO: OnceLock<f64> = OnceLock::new();

/// The share of the calls that is recorded where no caller has decided. `None`: no call is recorded.
pub(super) fn ratio() -> Option<f64> {
    RATIO.get().copied()
}

/// Where spans are sent, and which.
#[derive(Debug, Clone, PartialEq)]
pub struct Traces {
    /// The collector, `http://host:port`.
    pub collector: Uri,
    /// The share of the traces that is recorded, 0 to 1, where no caller has decided.
    pub ratio: f64,
    /// The name of the service.
    pub service: &'static str,
}

impl Traces {
    /// What records spans, and what sends them. Neither does anything yet.
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
        // A second one of a process has no effect, like a second subscriber.
        RATIO.set(self.ratio).ok();
        let sender = SpanSender {
            collector: self.collector,
            resource,
            spans,
        };
        (provider.tracer("switchboard"), sender)
    }
}

/// Decides for spans that no other one caused.
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
            // It was decided when the call began: of others there is no span.
            SpanKind::Server => &Sampler::AlwaysOn,
            // Part of a call that is not recorded.
            SpanKind::Internal | SpanKind::Client => &Sampler::AlwaysOff,
            SpanKind::Producer | SpanKind::Consumer => &self.0,
        };
        sampler.should_sample(parent, trace_id, name, kind, attributes, links)
    }
}

/// The layer that records the spans which say of what kind they are, and no events.
///
/// Those are the services' own: the transport's spans, of the exporter's too, never say so.
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

/// The end of the queue at which spans go in.
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

/// Sends spans to the collector.
#[derive(Debug)]
pub(in crate::service) struct SpanSender {
    collector: Uri,
    resource: Resource,
    spans: mpsc::Receiver<SpanData>,
}

impl SpanSender {
    /// Sends until `stop` is cancelled, then what is queued, for at most a second. Best effort: without it spans are
    /// dropped and counted.
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
            Err(error) => tracing::warn!(%error, "no traces are sent"),
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
            // A collector that hangs gets no more time than the flush has.
            () = async { stop.cancelled().await; sleep(FLUSH_TIMEOUT).await } => return,
        };
        match (is_well, is_sent) {
            (true, false) => tracing::warn!("the collector takes no spans: they are dropped"),
            (false, true) => tracing::info!("the collector takes spans again"),
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

/// Fills a batch. Cancel safe: what was taken is in the batch.
async fn gather(spans: &mut mpsc::Receiver<SpanData>, batch: &mut Vec<SpanData>) {
    while batch.len() < BATCH {
        let room = BATCH - batch.len();
        if spans.recv_many(batch, room).await == 0 {
            return;
        }
    }
}

/// Whether the collector took a batch; one that it did not take is counted.
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
