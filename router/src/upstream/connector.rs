//! The only code that connects to model servers.
//!
//! It distinguishes the reasons for which connecting can fail, and it marks each connection so that a stale connection
//! can be told apart from a fresh one. It knows nothing about calls and reads no proxy settings from the environment.

use std::{
    error::Error as StdError,
    future::poll_fn,
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
    vec,
};

use futures_util::future::BoxFuture;
use http::Uri;
use hyper_rustls::{
    ConfigBuilderExt as _, DefaultServerNameResolver, FixedServerNameResolver, HttpsConnector, MaybeHttpsStream,
    ResolveServerName,
};
use hyper_util::{
    client::legacy::connect::{Connected, Connection, HttpConnector, dns::Name},
    rt::TokioIo,
};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use switchboard::service::cause::{Cause, causes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, timeout},
};
use tower::Service;

use super::{
    error::Rounded,
    names::{LookupError, Names},
    tls,
};
use crate::catalog::CompiledTls;

/// Why connecting to a model server failed.
///
/// It displays as the cause alone, for example `connection refused`: [`UpstreamError`](super::UpstreamError) makes a
/// sentence of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// The host name could not be resolved.
    #[error("{0}")]
    Dns(LookupError),
    /// The server refused the connection, or could not be reached.
    #[error("{0}")]
    Connect(Cause),
    /// Name resolution, TCP connection and TLS handshake together took longer than this.
    #[error("timed out after {}", Rounded(*.0))]
    TimedOut(Duration),
    /// The server's certificate is not trusted.
    #[error("{0}")]
    Untrusted(Cause),
    /// The TLS handshake failed for another reason.
    #[error("{0}")]
    Handshake(Cause),
}

/// Share of the time limit for connecting that a DNS look-up may take. A later result would leave no time to connect.
const LOOKUP_SHARE: f64 = 0.9;

type BoxError = Box<dyn StdError + Send + Sync>;

/// Connects to http and https servers. One time limit covers name resolution, TCP connection and TLS handshake.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    /// Shared because the pool clones its connector for each call but connects for only a few of them.
    https: Arc<HttpsConnector<Tcp>>,
    timeout: Duration,
}

impl Connector {
    /// Creates a connector. `timeout` bounds name resolution, TCP connection and TLS handshake together. If `address`
    /// is given, nothing is resolved: every host name is reached at that address, while TLS and HTTP still use the host
    /// name.
    pub(super) fn new(timeout: Duration, security: Security, names: Names, address: Option<IpAddr>) -> Self {
        let mut http = HttpConnector::new_with_resolver(Resolver {
            names,
            address,
            patience: timeout.mul_f64(LOOKUP_SHARE),
        });
        http.enforce_http(false);
        http.set_nodelay(true);
        let https = HttpsConnector::new(Tcp(http), security.config, false, security.server_name);
        Self {
            https: Arc::new(https),
            timeout,
        }
    }
}

/// TLS configuration by which servers are verified. Cheap to clone, expensive to create.
#[derive(Clone)]
pub(super) struct Security {
    config: Arc<ClientConfig>,
    server_name: Arc<dyn ResolveServerName + Send + Sync>,
}

impl Security {
    /// Creates the configuration that verifies servers against the system's roots. Only this function reads the roots.
    pub(super) fn usual() -> Result<Self, rustls::Error> {
        Ok(Self {
            config: Arc::new(config(None)?),
            server_name: Arc::new(DefaultServerNameResolver::default()),
        })
    }

    /// Returns this configuration with the overrides of `tls`.
    pub(super) fn with(&self, tls: &CompiledTls) -> Result<Self, rustls::Error> {
        Ok(Self {
            config: match tls.roots() {
                Some(roots) => Arc::new(config(Some(roots))?),
                None => Arc::clone(&self.config),
            },
            server_name: match tls.server_name() {
                Some(name) => Arc::new(FixedServerNameResolver::new(name.clone())),
                None => Arc::clone(&self.server_name),
            },
        })
    }
}

/// Creates a TLS configuration with these roots, or with the system's if `roots` is `None`.
fn config(roots: Option<RootCertStore>) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = || ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let with_roots = match roots {
        Some(roots) => builder()?.with_root_certificates(roots),
        None => builder()?.with_native_roots().or_else(|error| {
            // Not fatal: http servers need no roots, and every https server is refused when the router connects to it.
            tracing::warn!(%error, "could not load the system's root certificates: no https server will be trusted");
            builder().map(|builder| builder.with_root_certificates(RootCertStore::empty()))
        })?,
    };
    Ok(with_roots.with_no_client_auth())
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Marked>;
    type Error = DialError;
    type Future = BoxFuture<'static, Result<Self::Response, DialError>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let mut https = HttpsConnector::clone(&self.https);
        let limit = self.timeout;
        Box::pin(async move {
            let dial = async {
                poll_fn(|cx| https.poll_ready(cx)).await?;
                https.call(uri).await
            };
            let io = timeout(limit, dial)
                .await
                .map_err(|_elapsed| DialError::TimedOut(limit))?
                .map_err(dial_error)?;
            Ok(TokioIo::new(Marked {
                io: TokioIo::new(io),
                marker: Marker::new(),
            }))
        })
    }
}

/// TCP only, so that every later failure is known to come from TLS.
#[derive(Debug, Clone)]
struct Tcp(HttpConnector<Resolver>);

impl Service<Uri> for Tcp {
    type Response = TokioIo<TcpStream>;
    type Error = DialError;
    type Future = BoxFuture<'static, Result<Self::Response, DialError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        self.0
            .poll_ready(cx)
            .map_err(|error| DialError::Connect(Cause::of(&error)))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async move {
            connecting.await.map_err(|error| {
                let lookup = causes(&error).find_map(|cause| cause.downcast_ref::<LookupError>());
                match lookup {
                    Some(lookup) => DialError::Dns(lookup.clone()),
                    None => DialError::Connect(Cause::of(&error)),
                }
            })
        })
    }
}

/// Resolves the host names to connect to.
#[derive(Debug, Clone)]
struct Resolver {
    names: Names,
    /// If set, every host name resolves to this address.
    address: Option<IpAddr>,
    patience: Duration,
}

impl Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = LookupError;
    type Future = BoxFuture<'static, Result<Self::Response, LookupError>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), LookupError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let Self {
            names,
            address,
            patience,
        } = self.clone();
        Box::pin(async move {
            let addresses = match address {
                Some(address) => [address].into(),
                None => timeout(patience, names.resolve(name.as_str()))
                    .await
                    .unwrap_or_else(|_elapsed| Err(LookupError::timed_out()))?,
            };
            // The port comes from the URL.
            let addresses: Vec<_> = addresses.iter().map(|&address| (address, 0).into()).collect();
            Ok(addresses.into_iter())
        })
    }
}

/// Converts an error of the TLS layer: an error of [`Tcp`] is returned unchanged, any other error is one of the
/// handshake.
fn dial_error(error: BoxError) -> DialError {
    let error = match error.downcast::<DialError>() {
        Ok(ours) => return *ours,
        Err(theirs) => theirs,
    };
    let tls = causes(&*error).find_map(|cause| cause.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(cause)) => DialError::Untrusted(tls::untrusted(cause)),
        _ => DialError::Handshake(tls::handshake(&*error)),
    }
}

/// State of one connection, shared between the connection and the calls that it carries.
#[derive(Debug, Clone)]
pub(super) struct Marker(Arc<ConnectorState>);

#[derive(Debug)]
struct ConnectorState {
    dialled: Instant,
    /// Whether any bytes have been received on the connection.
    has_spoken: AtomicBool,
    /// Whether bytes have been received since the last write.
    is_answering: AtomicBool,
}

impl Marker {
    fn new() -> Self {
        Self(Arc::new(ConnectorState {
            dialled: Instant::now(),
            has_spoken: AtomicBool::new(false),
            is_answering: AtomicBool::new(false),
        }))
    }

    /// Returns whether a call that began at `begun` and failed on this connection found a stale one: the connection was
    /// not opened for this call, and it delivered no byte of an answer.
    pub(super) fn was_stale(&self, begun: Instant) -> bool {
        // One connection carries one call at a time: if no byte came for this call, then all bytes were for earlier
        // calls. A connection that was opened for another call and then not needed has carried no call, but may be
        // stale too.
        let was_reused = self.0.has_spoken.load(Ordering::Acquire) || self.0.dialled < begun;
        was_reused && !self.0.is_answering.load(Ordering::Acquire)
    }

    fn note_read(&self) {
        self.0.has_spoken.store(true, Ordering::Release);
        self.0.is_answering.store(true, Ordering::Release);
    }

    fn note_write(&self) {
        self.0.is_answering.store(false, Ordering::Release);
    }
}

/// A connection with its marker.
pub(super) struct Marked {
    io: TokioIo<MaybeHttpsStream<TokioIo<TcpStream>>>,
    marker: Marker,
}

impl Connection for Marked {
    fn connected(&self) -> Connected {
        self.io.inner().connected().extra(self.marker.clone())
    }
}

impl AsyncRead for Marked {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.marker.note_read();
        }
        read
    }
}

impl AsyncWrite for Marked {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.marker.note_write();
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.marker.note_write();
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_of_a_tls_failure_is_found_at_any_depth() {
        let wrapped =
            |error| -> BoxError { io::Error::other(io::Error::new(io::ErrorKind::InvalidData, error)).into() };
        let expired = rustls::Error::InvalidCertificate(rustls::CertificateError::Expired);
        assert!(matches!(dial_error(wrapped(expired)), DialError::Untrusted(_)));
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::HandshakeFailure);
        assert!(matches!(dial_error(wrapped(alert)), DialError::Handshake(_)));
        assert!(matches!(
            dial_error(DialError::TimedOut(Duration::ZERO).into()),
            DialError::TimedOut(_)
        ));
    }

    #[test]
    fn a_connection_not_opened_for_the_call_is_stale_if_no_answer_has_begun() {
        let earlier = Instant::now();
        let marker = Marker::new();
        let later = marker.0.dialled + Duration::from_millis(1);
        assert!(!marker.was_stale(earlier), "opened for this call");
        assert!(marker.was_stale(later), "opened for an earlier call");
        marker.note_write();
        marker.note_read();
        assert!(!marker.was_stale(later), "the answer has begun");
        marker.note_write();
        assert!(marker.was_stale(earlier), "reused, and no byte of the answer received");
    }
}
