//! The layer around every call: correlation id, span, access log line, metrics, and a reason for every failure.
//!
//! tonic itself rejects some calls before a handler sees them, with a status that has no reason. The layer adds one, so
//! that every failure has a reason.

mod end;
pub mod notes;

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, Request, Response};
use http_body::{Body, Frame, SizeHint};
use opentelemetry::trace::TraceContextExt as _;
use tokio::time::Instant;
use tonic::{Code, Status, transport::server::TcpConnectInfo};
use tower::{Layer, Service};
use tower_http::catch_panic::{CatchPanic, CatchPanicLayer};
use tracing::{Instrument as _, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use self::{
    end::{CallEnd, CallOutcome},
    notes::Notes,
};
use super::{metrics::CallMetrics, request_id::RequestId, trace};
use crate::{
    failure::Failure,
    reason::{Reason, header, key},
};

/// The tower layer that wraps all handlers of a service.
#[derive(Debug, Clone)]
pub struct CallLayer {
    /// The maximum size of a request message in bytes, for the message of `MESSAGE_TOO_LARGE`.
    message_bytes_max: usize,
    metrics: CallMetrics,
}

impl CallLayer {
    /// Creates the layer for a service that accepts messages of at most `message_bytes_max` bytes.
    #[must_use]
    pub const fn new(message_bytes_max: usize, metrics: CallMetrics) -> Self {
        Self {
            message_bytes_max,
            metrics,
        }
    }
}

type PanicHandler = fn(Box<dyn Any + Send>) -> Response<tonic::body::Body>;

impl<S> Layer<S> for CallLayer {
    type Service = CallService<CatchPanic<S, PanicHandler>>;

    fn layer(&self, inner: S) -> Self::Service {
        let inner = CatchPanicLayer::custom(answer_to_a_panic as PanicHandler).layer(inner);
        CallService {
            inner,
            message_bytes_max: self.message_bytes_max,
            metrics: self.metrics.clone(),
        }
    }
}

/// Creates the response to a call whose handler panicked. It does not include the panic's message, which may contain
/// secrets or prompts.
fn answer_to_a_panic(_panic: Box<dyn Any + Send>) -> Response<tonic::body::Body> {
    tracing::error!("a handler panicked");
    Status::internal("internal error in this service").into_http()
}

/// Creates the trailers of a response whose body panicked.
fn end_of_a_panic() -> HeaderMap {
    let failure = Failure::new(Reason::InternalError, "internal error in this service");
    let mut trailers = HeaderMap::new();
    // Cannot fail: the message has only characters that a header can contain.
    drop(Status::from(failure).add_header(&mut trailers));
    trailers
}

/// The handlers of a service, wrapped by [`CallLayer`].
#[derive(Debug, Clone)]
pub struct CallService<S> {
    inner: S,
    message_bytes_max: usize,
    metrics: CallMetrics,
}

impl<S, B> Service<Request<B>> for CallService<S>
where
    S: Service<Request<B>>,
    S::Response: IntoTonicResponse,
    S::Future: Send + 'static,
{
    type Response = Response<tonic::body::Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let mut end = self.begin(&request);
        let request_id = end.request_id.clone();
        request.extensions_mut().insert(request_id.clone());
        request.extensions_mut().insert(end.notes.clone());
        let message_bytes_max = self.message_bytes_max;
        let answer = self.inner.call(request).instrument(end.span.clone());
        Box::pin(async move {
            let mut response = answer.await?.into_tonic_response();
            give_a_reason(response.headers_mut(), message_bytes_max);
            end.outcome = CallOutcome::of(response.headers_mut(), &request_id);
            if let Some(value) = request_id.to_header() {
                response
                    .headers_mut()
                    .insert(HeaderName::from_static(header::REQUEST_ID), value);
            }
            Ok(response.map(|body| tonic::body::Body::new(CallBody { inner: body, end })))
        })
    }
}

impl<S> CallService<S> {
    fn begin<B>(&self, request: &Request<B>) -> CallEnd {
        let request_id = RequestId::from_headers(request.headers());
        let path = request.uri().path();
        let (id, is_recorded) = (request_id.as_str(), request_id.is_recorded());
        let span = if is_recorded {
            tracing::info_span!("call", method = path, request_id = id, otel.kind = "server")
        } else {
            // Only for log lines: a span without `otel.kind` is not recorded in a trace.
            tracing::info_span!("call", method = path, request_id = id)
        };
        let peer = request.extensions().get::<TcpConnectInfo>();
        let method = path.trim_start_matches('/').to_owned();
        let active = self.metrics.begin(&method);
        if is_recorded {
            if let Some(parent) = request_id.trace() {
                trace::adopt(&span, parent);
            }
            name_span(&span, active.method());
        }
        CallEnd {
            span,
            started: Instant::now(),
            method,
            request_id,
            peer: peer.and_then(TcpConnectInfo::remote_addr),
            notes: Notes::default(),
            active,
            bytes: 0,
            outcome: None,
        }
    }
}

/// Names a span by the rules of OpenTelemetry for RPCs. `method` must be one of the known methods or `other`, so that
/// callers cannot invent span names.
fn name_span(span: &Span, method: &str) {
    span.set_attribute("rpc.system", "grpc");
    if let Some((service, name)) = method.split_once('/') {
        span.set_attribute("rpc.service", service.to_owned());
        span.set_attribute("rpc.method", name.to_owned());
    }
    span.context().span().update_name(method.to_owned());
}

/// Conversion of a handler's response, for handlers with different body types.
pub trait IntoTonicResponse {
    /// Converts to a response with tonic's body type.
    fn into_tonic_response(self) -> Response<tonic::body::Body>;
}

impl<B> IntoTonicResponse for Response<B>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn into_tonic_response(self) -> Response<tonic::body::Body> {
        self.map(tonic::body::Body::new)
    }
}

/// Adds a reason and details to the status of a failure that tonic itself created.
fn give_a_reason(headers: &mut HeaderMap, message_bytes_max: usize) {
    if headers.contains_key(Status::GRPC_STATUS_DETAILS) {
        return;
    }
    let Some(status) = Status::from_header_map(headers) else {
        return;
    };
    let failure = match status.code() {
        Code::Ok => return,
        // The only status without a message: the service or the method does not exist.
        Code::Unimplemented if status.message().is_empty() => Failure::new(
            Reason::MethodUnknown,
            "this service has no such method; reflection lists its methods",
        ),
        Code::Unimplemented => Failure::new(
            Reason::EncodingNotSupported,
            "the compression of the request is not supported; this service supports gzip and zstd",
        ),
        // The message is too large as received, or after decompression.
        Code::OutOfRange | Code::ResourceExhausted => {
            let limit = limit_of(status.message()).unwrap_or(message_bytes_max);
            let message = format!("the request is larger than the limit of {limit} bytes");
            Failure::new(Reason::MessageTooLarge, message).with(key::LIMIT, limit)
        }
        Code::Internal => Failure::new(
            Reason::InternalError,
            "the request could not be decoded, or the service failed",
        ),
        _ => return,
    };
    for name in [Status::GRPC_STATUS, Status::GRPC_MESSAGE] {
        headers.remove(name);
    }
    // Cannot fail: the message has only characters that a header can contain.
    drop(Status::from(failure).add_header(headers));
}

/// Parses the limit in bytes from tonic's error message, because a service's methods may have different limits.
fn limit_of(message: &str) -> Option<usize> {
    let (_, limit) = message
        .rsplit_once("the limit is: ")
        .or_else(|| message.rsplit_once("size limit, of "))?;
    limit.split_once(" bytes")?.0.parse().ok()
}

struct CallBody {
    inner: tonic::body::Body,
    end: CallEnd,
}

impl Body for CallBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Self { inner, end } = &mut *self;
        // Does not enter the call's span: to do so for each message would cost as much as a small message.
        let mut frame = match catch_unwind(AssertUnwindSafe(|| Pin::new(&mut *inner).poll_frame(context))) {
            Ok(frame) => ready!(frame),
            Err(_panic) => {
                tracing::error!(parent: &end.span, "a response body panicked");
                // A body that has panicked must not be polled again.
                *inner = tonic::body::Body::empty();
                Some(Ok(Frame::trailers(end_of_a_panic())))
            }
        };
        if let Some(Ok(frame)) = &mut frame {
            if let Some(data) = frame.data_ref() {
                end.bytes += u64::try_from(data.len()).unwrap_or(u64::MAX);
            } else if let Some(trailers) = frame.trailers_mut() {
                end.outcome = CallOutcome::of(trailers, &end.request_id);
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
