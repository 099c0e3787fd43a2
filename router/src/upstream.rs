//! Calls of model servers: one request out, one stream of events or one whole answer back.
//!
//! It knows one endpoint and one attempt; which endpoint, and whether there is another attempt, others decide. The one
//! hard idea is the stale connection: servers close idle connections, some after each answer and without saying so. A
//! *reused* connection that ends before any byte of the answer is therefore no failure: the request goes out once more,
//! on a fresh connection.

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
pub mod response;
pub mod sse;

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
use switchboard::{endpoint::EndpointUri, reason::header, service::request_id::RequestId};
use tokio::time::Instant;

pub use self::error::UpstreamError;
use self::{
    answer::Answer,
    clients::{Clients, Dialling},
    connector::{DialError, Marker},
    dialect::{Decoder, Post, ReplyShape, Whole},
    metrics::UpstreamMetrics,
    names::Names,
};
use crate::{
    catalog::{CompiledTls, Credential},
    live::LiveModels,
};

/// The most bytes of a response's header.
const HEADER_BYTES_MAX: usize = 64 * 1024;
const EVENT_STREAM: &str = "text/event-stream";
const AGENT: &str = concat!("switchboard/", env!("CARGO_PKG_VERSION"));
const JSON: &str = "application/json";
/// The most servers that are remembered for what they do not know. Beyond it they are asked again.
const REMEMBERED_MAX: usize = 1024;

/// One call, ready to go out.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// The server.
    pub endpoint: &'a EndpointUri,
    /// Where to dial it, if its name has several addresses. `None`: by its name.
    pub address: Option<IpAddr>,
    /// The server's name of the model.
    pub identifier: &'a str,
    /// Its credential; it goes along only to the origins that it is bound to.
    pub credential: Option<&'a Credential>,
    /// How the server proves who it is. `None`: by the system's roots.
    pub tls: Option<&'a Arc<CompiledTls>>,
    /// For dialling. `None`: as long as for every other server.
    pub connect_timeout: Option<Duration>,
    /// The correlation id of the call.
    pub request_id: &'a RequestId,
}

/// The client of all model servers, with its pools of connections. Cheap to clone.
#[derive(Clone)]
pub struct Upstream {
    clients: Clients,
    /// Servers that refuse to be asked for usage.
    without_usage: Arc<Mutex<HashSet<EndpointUri>>>,
    metrics: Arc<UpstreamMetrics>,
    models: LiveModels,
}

impl Upstream {
    /// A client of the servers that `models` chooses, where `names` knows them. Dialling (name, connection and TLS handshake together) may take
    /// `connect_timeout` where a model says nothing else.
    ///
    /// # Errors
    ///
    /// What TLS says when it cannot be set up at all.
    pub fn new(connect_timeout: Duration, names: Names, models: LiveModels) -> Result<Self, rustls::Error> {
        Ok(Self {
            clients: Clients::new(connect_timeout, names)?,
            without_usage: Arc::default(),
            metrics: Arc::default(),
            models,
        })
    }

    /// Where the servers are.
    #[must_use]
    pub const fn names(&self) -> &Names {
        self.clients.names()
    }

    /// How long dialling may take where a model says nothing else.
    #[must_use]
    pub const fn connect_timeout(&self) -> Duration {
        self.clients.connect_timeout()
    }

    /// What is known of the models.
    #[must_use]
    pub const fn models(&self) -> &LiveModels {
        &self.models
    }

    /// What is counted of the calls.
    #[must_use]
    pub const fn metrics(&self) -> &Arc<UpstreamMetrics> {
        &self.metrics
    }

    /// Posts a call, to be answered as the model writes, and waits for the response's header.
    ///
    /// # Errors
    ///
    /// [`UpstreamError`], also for every response that is no stream of events.
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
            // Only what helped is remembered: a refusal may name anything that the request holds.
            if response.is_ok() {
                let mut remembered = self.remembered();
                if remembered.len() >= REMEMBERED_MAX {
                    remembered.clear();
                }
                remembered.insert(call.endpoint.clone());
            }
        }
        Ok(Answer::new(response?, Decoder::of(post.platform())))
    }

    /// Posts a call, to be answered whole, and waits for the answer.
    ///
    /// # Errors
    ///
    /// [`UpstreamError`], also for an answer that is cut or too large: there are no shorter answers.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection at once.
    pub async fn ask(&self, call: Outgoing<'_>, post: &Post) -> Result<Whole, UpstreamError> {
        let response = self.send(call, post, ReplyShape::Whole).await?;
        let body = answer::whole(response.into_body()).await?;
        Ok(dialect::whole(post.platform(), &body)?)
    }

    async fn send(
        &self,
        call: Outgoing<'_>,
        post: &Post,
        reply: ReplyShape,
    ) -> Result<Response<Incoming>, UpstreamError> {
        // A server's own name of a model always fits; no server knows another.
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
        _ => UpstreamError::Truncated,
    }
}
