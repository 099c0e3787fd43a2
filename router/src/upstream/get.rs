//! GET requests to model servers outside of calls. They do not make a model generate anything.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, StatusCode,
    header::{ACCEPT, AUTHORIZATION, USER_AGENT},
};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use switchboard::endpoint::EndpointUri;
use tower::ServiceExt as _;

use super::{AGENT, Dialling, Outgoing, Upstream, UpstreamError, request_error};
use crate::catalog::{CompiledTls, Credential};

/// One GET request to one server, ready to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The model server.
    pub endpoint: &'a EndpointUri,
    /// The address to connect to, if the host name has several. `None`: the host name is resolved.
    pub address: Option<IpAddr>,
    /// A credential. It is sent only to the origins that it is bound to.
    pub credential: Option<&'a Credential>,
    /// The TLS settings for verifying the server. `None`: its certificate is verified against the system's roots.
    pub tls: Option<&'a Arc<CompiledTls>>,
    /// Time limit for connecting. `None`: the default of [`Upstream::connect_timeout`].
    pub connect_timeout: Option<Duration>,
    /// The requested path. It is appended to the base URL of the endpoint, of which a final `/v1` is removed first.
    pub path: &'static str,
    /// Maximum size of the answer, in bytes.
    pub bytes_max: usize,
}

/// A server's answer.
#[derive(Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: StatusCode,
    /// The body. Empty unless the status is OK.
    pub body: Bytes,
}

impl Upstream {
    /// Sends a GET request over a new connection, so that the result shows whether the server can be reached now. Only
    /// connecting has a time limit; the caller must limit the rest.
    ///
    /// # Errors
    ///
    /// [`UpstreamError`] if the server gives no answer or one that is too large. An answer of any status is not an
    /// error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection at once.
    pub async fn get(&self, question: Question<'_>) -> Result<Reply, UpstreamError> {
        let clients = self.clients.dialling(Dialling {
            tls: question.tls.cloned(),
            connect_timeout: question.connect_timeout,
            address: question.address,
        })?;
        let response = clients.fresh.request(request(question)).await.map_err(request_error)?;
        let status = response.status();
        let body = if status == StatusCode::OK {
            let body = Limited::new(response.into_body(), question.bytes_max).collect().await;
            body.map_err(|error| match error.downcast::<LengthLimitError>() {
                Ok(_) => UpstreamError::TooLarge(question.bytes_max),
                Err(_) => UpstreamError::Truncated,
            })?
            .to_bytes()
        } else {
            Bytes::new()
        };
        Ok(Reply { status, body })
    }

    /// Connects to the server of a call, including the TLS handshake if the endpoint uses TLS, and closes the
    /// connection again.
    ///
    /// # Errors
    ///
    /// [`UpstreamError::Dial`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection at once.
    pub async fn dial(&self, call: Outgoing<'_>) -> Result<(), UpstreamError> {
        let clients = self.clients.dialling(Dialling {
            tls: call.tls.cloned(),
            connect_timeout: call.connect_timeout,
            address: call.address,
        })?;
        let connection = clients.connector.clone().oneshot(call.endpoint.call("/")).await;
        connection.map(drop).map_err(UpstreamError::Dial)
    }
}

fn request(question: Question<'_>) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::default());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = question.endpoint.call(question.path);
    let headers = request.headers_mut();
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    let token = question
        .credential
        .and_then(|credential| credential.token_for(question.endpoint));
    if let Some(token) = token
        && let Ok(mut value) = HeaderValue::try_from(format!("Bearer {}", token.expose()))
    {
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    request
}
