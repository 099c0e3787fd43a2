//! Client for model servers: sends one request and returns one stream of events or one complete answer.
//!
//! It handles one attempt at one endpoint. Its callers choose the endpoint and decide whether to make another attempt.
//! The one hard idea: stale connections. Servers close idle connections, some of them after each answer and without
//! announcing it. If a *reused* connection ends before any byte of the answer arrives, that does not count as a
//! failure: the client sends the request once more on a fresh connection.

pub mod answer;
mod clients;
pub mod connector;
pub mod dialect;
mod error;
pub mod fault;
pub mod get;
pub mod metrics;
pub mod model_list;
pub mod names;
mod oddities;
pub mod response;
pub mod sse;
mod text;
mod tls;

use std::{collections::HashSet, error::Error as StdError, fmt, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, Uri,
    header::{ACCEPT, CONTENT_TYPE, USER_AGENT},
};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::{self, connect::Connected};
use parking_lot::{Mutex, MutexGuard};
use switchboard::{
    endpoint::EndpointUri,
    reason::header,
    service::{cause::Cause, request_id::RequestId},
};
use tokio::time::Instant;

pub use self::error::{AtServer, ServerLabel, UpstreamError};
use self::{
    answer::Answer,
    clients::{Clients, Dialling},
    connector::{DialError, Marker},
    dialect::{Decoder, Oddities, Post, ReplyShape, Whole},
    metrics::UpstreamMetrics,
    names::Names,
    oddities::LoggedServers,
};
use crate::{
    catalog::{CompiledTls, Credential},
    live::LiveModels,
};

/// Maximum size of a response's header, in bytes.
const HEADER_BYTES_MAX: usize = 64 * 1024;
const EVENT_STREAM: &str = "text/event-stream";
const AGENT: &str = concat!("switchboard/", env!("CARGO_PKG_VERSION"));
const JSON: &str = "application/json";
/// Maximum number of servers remembered in `without_usage`. When the set is full it is cleared, and each server is
/// asked for usage again.
const REMEMBERED_MAX: usize = 1024;

/// One inference request to one server, ready to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// The model server.
    pub endpoint: &'a EndpointUri,
    /// The address to connect to, if the host name has several. `None`: the host name is resolved.
    pub address: Option<IpAddr>,
    /// The server's own name for the model.
    pub identifier: &'a str,
    /// The model's credential. It is sent only to the origins that it is bound to.
    pub credential: Option<&'a Credential>,
    /// The TLS settings for verifying the server. `None`: its certificate is verified against the system's roots.
    pub tls: Option<&'a Arc<CompiledTls>>,
    /// Time limit for connecting. `None`: the default of [`Upstream::connect_timeout`].
    pub connect_timeout: Option<Duration>,
    /// The id that correlates the logs, traces and errors of the call.
    pub request_id: &'a RequestId,
}

/// The client for all model servers, with its connection pools. Cheap to clone.
#[derive(Clone)]
pub struct Upstream {
    clients: Clients,
    /// Servers that reject requests with the option that asks for usage.
    without_usage: Arc<Mutex<HashSet<EndpointUri>>>,
    metrics: Arc<UpstreamMetrics>,
    logged: LoggedServers,
    models: LiveModels,
}

impl Upstream {
    /// Creates a client. `names` resolves the host names of the servers. Connecting (name resolution, TCP connection
    /// and TLS handshake together) may take `connect_timeout` unless the model sets its own limit. `models` is the live
    /// state that [`Self::models`] returns.
    ///
    /// # Errors
    ///
    /// The error of the TLS library if TLS cannot be set up at all.
    pub fn new(connect_timeout: Duration, names: Names, models: LiveModels) -> Result<Self, rustls::Error> {
        Ok(Self {
            clients: Clients::new(connect_timeout, names)?,
            without_usage: Arc::default(),
            metrics: Arc::default(),
            logged: LoggedServers::default(),
            models,
        })
    }

    /// Returns the resolver for the host names of the servers.
    #[must_use]
    pub const fn names(&self) -> &Names {
        self.clients.names()
    }

    /// Returns the default time limit for connecting, which applies if a model sets none.
    #[must_use]
    pub const fn connect_timeout(&self) -> Duration {
        self.clients.connect_timeout()
    }

    /// Returns the live state of the models.
    #[must_use]
    pub const fn models(&self) -> &LiveModels {
        &self.models
    }

    /// Returns the metrics of the attempts.
    #[must_use]
    pub const fn metrics(&self) -> &Arc<UpstreamMetrics> {
        &self.metrics
    }

    /// Sends a request for a streamed answer and waits for the response's header.
    ///
    /// # Errors
    ///
    /// [`UpstreamError`], also for every response that is not an event stream.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future, and later the answer, closes the connection at once.
    pub async fn post(&self, call: Outgoing<'_>, post: &Post) -> Result<Answer, UpstreamError> {
        let asks_usage = post.may_ask_usage() && !self.remembered().contains(call.endpoint);
        let mut response = self.send(call, post, ReplyShape::Stream { asks_usage }).await;
        if let Err(UpstreamError::Rejected { status: 400, rejection }) = response
            && asks_usage
            && rejection.names_usage
        {
            response = self.send(call, post, ReplyShape::Stream { asks_usage: false }).await;
            // Remember the server only if leaving the option out helped: the error text may quote any part of the
            // request.
            if response.is_ok() {
                let mut remembered = self.remembered();
                if remembered.len() >= REMEMBERED_MAX {
                    remembered.clear();
                }
                remembered.insert(call.endpoint.clone());
            }
        }
        let reporter = self.logged.reporter(call.endpoint, &self.metrics);
        Ok(Answer::new(response?, Decoder::of(post.platform()), reporter))
    }

    /// Sends a request for an answer in one piece and waits for the complete answer.
    ///
    /// # Errors
    ///
    /// [`UpstreamError`], also if the answer is cut off or too large: a partial answer is never returned.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection at once.
    pub async fn ask(&self, call: Outgoing<'_>, post: &Post) -> Result<Whole, UpstreamError> {
        let response = self.send(call, post, ReplyShape::Whole).await?;
        let body = answer::whole(response.into_body()).await?;
        let mut oddities = Oddities::default();
        let whole = dialect::whole(post.platform(), &body, &mut oddities);
        self.logged.reporter(call.endpoint, &self.metrics).report(&mut oddities);
        Ok(whole?)
    }

    async fn send(
        &self,
        call: Outgoing<'_>,
        post: &Post,
        reply: ReplyShape,
    ) -> Result<Response<Incoming>, UpstreamError> {
        // Building the URI fails only if the identifier is too long for a path, and no server knows a model by such a
        // name.
        let uri = post.uri(call.endpoint, call.identifier);
        let uri = uri.map_err(|_malformed| UpstreamError::NotFound)?;
        let body = post.body(call.identifier, reply);
        let kind = match reply {
            ReplyShape::Stream { .. } => EVENT_STREAM,
            ReplyShape::Whole => JSON,
        };
        let clients = self.clients.dialling(Dialling {
            tls: call.tls.cloned(),
            connect_timeout: call.connect_timeout,
            address: call.address,
        })?;
        let begun = Instant::now();
        let response = match clients.pooled.request(request(call, post, &uri, &body, kind)).await {
            Err(error) if is_stale(&error, begun) => {
                tracing::debug!(upstream.addr = %call.endpoint.origin().host_and_port(), "a pooled connection was stale");
                self.metrics.repeated();
                clients.fresh.request(request(call, post, &uri, &body, kind)).await
            }
            first => first,
        };
        response::check(response.map_err(request_error)?, kind).await
    }

    fn remembered(&self) -> MutexGuard<'_, HashSet<EndpointUri>> {
        self.without_usage.lock()
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").finish_non_exhaustive()
    }
}

fn request(call: Outgoing<'_>, post: &Post, uri: &Uri, body: &Bytes, accepts: &'static str) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body.clone()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri.clone();
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    headers.insert(ACCEPT, HeaderValue::from_static(accepts));
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    if let Some(id) = call.request_id.to_header() {
        headers.insert(header::REQUEST_ID, id);
    }
    call.request_id.pass_on_trace(headers);
    let token = call
        .credential
        .and_then(|credential| credential.token_for(call.endpoint));
    post.authorize(headers, token);
    request
}

fn is_stale(error: &legacy::Error, begun: Instant) -> bool {
    error
        .connect_info()
        .and_then(marker)
        .is_some_and(|marker| marker.was_stale(begun))
}

fn marker(connection: &Connected) -> Option<Marker> {
    let mut extras = http::Extensions::new();
    connection.get_extras(&mut extras);
    extras.remove()
}

fn request_error(error: legacy::Error) -> UpstreamError {
    let source = error.source();
    if let Some(dial) = source.and_then(|source| source.downcast_ref::<DialError>()) {
        return UpstreamError::Dial(dial.clone());
    }
    match source.and_then(|source| source.downcast_ref::<hyper::Error>()) {
        Some(http) if http.is_parse_too_large() => UpstreamError::TooLarge(HEADER_BYTES_MAX),
        Some(http) if http.is_parse() => UpstreamError::Protocol,
        Some(http) if http.is_incomplete_message() => UpstreamError::Disconnected(Cause::CLOSED),
        Some(http) => UpstreamError::Disconnected(Cause::of(http)),
        None => UpstreamError::Disconnected(Cause::of(&error)),
    }
}
