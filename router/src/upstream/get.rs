//! Questions to a model server beside its calls, which have it generate nothing.

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

/// One question, ready to go out.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The server.
    pub endpoint: &'a EndpointUri,
    /// Where to dial it, if its name has several addresses. `None`: by its name.
    pub address: Option<IpAddr>,
    /// A credential; it goes along only to the origins that it is bound to.
    pub credential: Option<&'a Credential>,
    /// How the server proves who it is. `None`: by the system's roots.
    pub tls: Option<&'a Arc<CompiledTls>>,
    /// For dialling. `None`: as long as for every other server.
    pub connect_timeout: Option<Duration>,
    /// What is asked for, beside `/v1` or below it.
    pub path: &'static str,
    /// The most bytes that the answer may have.
    pub bytes_max: usize,
}

/// What a server answers.
#[derive(Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: StatusCode,
    /// What came with it; empty unless the status is OK.
    pub body: Bytes,
}

impl Upstream {
    /// Asks a server, over a connection of its own: what is found is how it can be reached now. It takes as long as the
    /// server takes, less only for dialling.
    ///
    /// # Errors
    ///
    /// [`UpstreamError`] when there is no answer, or too large a one; every status is one.
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

    /// Connects to the server of a call, TLS included, and closes the connection again.
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
