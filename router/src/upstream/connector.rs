//! The only way to dial a model server.
//!
//! It tells apart why dialling failed, and marks each connection so that a stale one can be told from a fresh one. It
//! knows no calls, and reads no proxy from the environment.

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
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, timeout},
};
use tower::Service;

use super::names::{LookupError, Names};
use crate::catalog::Tls;

/// Why a server could not be dialled.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DialError {
    /// Its name could not be resolved.
    #[error("resolve the server's name")]
    Dns(#[source] SharedError),
    /// It refused, or could not be reached.
    #[error("connect to the server")]
    Connect(#[source] SharedError),
    /// Name, connection and handshake together took too long.
    #[error("connecting took longer than {0:?}")]
    TimedOut(Duration),
    /// Its certificate is not trusted.
    #[error("the server's certificate is not trusted")]
    Untrusted(#[source] rustls::Error),
    /// The TLS handshake broke off.
    #[error("the TLS handshake broke off")]
    Handshake(#[source] SharedError),
}

/// The cause of a [`DialError`]; the client lends its errors and never gives them away, so causes are shared.
pub type SharedError = Arc<dyn StdError + Send + Sync>;

/// How much of the time for dialling a look-up may take: later it would be of no use.
const LOOKUP_SHARE: f64 = 0.9;

type BoxError = Box<dyn StdError + Send + Sync>;

/// Dials http and https, name, connection and handshake within one time limit.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    /// Shared, since the pool copies its connector for each call and dials for few.
    https: Arc<HttpsConnector<Tcp>>,
    timeout: Duration,
}

impl Connector {
    /// `timeout` bounds name, connection and handshake together. With `address` nothing is looked up: every name is dialled
    /// there, and stays the name that TLS and HTTP know.
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

/// How servers prove who they are, made ready for dialling. Cheap to clone, and dear to make.
#[derive(Clone)]
pub(super) struct Security {
    config: Arc<ClientConfig>,
    server_name: Arc<dyn ResolveServerName + Send + Sync>,
}

impl Security {
    /// Servers prove themselves by the system's roots, which are read here and nowhere else.
    pub(super) fn usual() -> Result<Self, rustls::Error> {
        Ok(Self {
            config: Arc::new(config(None)?),
            server_name: Arc::new(DefaultServerNameResolver::default()),
        })
    }

    /// The same but for what `tls` says.
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

/// TLS with these roots, else the system's.
fn config(roots: Option<RootCertStore>) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = || ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let with_roots = match roots {
        Some(roots) => builder()?.with_root_certificates(roots),
        None => builder()?.with_native_roots().or_else(|error| {
            // Servers that are called by http need no roots; those with https are refused one by one.
            tracing::warn!(%error, "the system has no certificate roots: no https server will be trusted");
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

/// TCP alone, so that what fails behind it is known to be TLS.
#[derive(Debug, Clone)]
struct Tcp(HttpConnector<Resolver>);

impl Service<Uri> for Tcp {
    type Response = TokioIo<TcpStream>;
    type Error = DialError;
    type Future = BoxFuture<'static, Result<Self::Response, DialError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        self.0
            .poll_ready(cx)
            .map_err(|error| DialError::Connect(Arc::new(error)))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async move {
            connecting.await.map_err(|error| match find::<LookupError>(&error) {
                Some(cause) => DialError::Dns(Arc::new(cause.clone())),
                None => DialError::Connect(Arc::new(error)),
            })
        })
    }
}

/// Where a name is dialled.
#[derive(Debug, Clone)]
struct Resolver {
    names: Names,
    /// The only place, whatever the name.
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
                    .unwrap_or_else(|_elapsed| Err(io::Error::from(io::ErrorKind::TimedOut).into()))?,
            };
            // The port comes from the URL.
            let addresses: Vec<_> = addresses.iter().map(|&address| (address, 0).into()).collect();
            Ok(addresses.into_iter())
        })
    }
}

/// What the TLS layer says: an error of [`Tcp`] as it is, else one of the handshake.
fn dial_error(error: BoxError) -> DialError {
    let error = match error.downcast::<DialError>() {
        Ok(ours) => return *ours,
        Err(theirs) => theirs,
    };
    match find::<rustls::Error>(&*error) {
        Some(cause @ rustls::Error::InvalidCertificate(_)) => DialError::Untrusted(cause.clone()),
        _ => DialError::Handshake(error.into()),
    }
}

/// The first error of a type in a chain of causes; `io::Error` hides what it wraps from `source`.
fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = match error.downcast_ref::<io::Error>() {
            Some(wrapper) => wrapper.get_ref().map(|inner| inner as &(dyn StdError + 'static)),
            None => error.source(),
        };
    }
    None
}

/// What is known of one connection, shared between it and the calls that it carries.
#[derive(Debug, Clone)]
pub(super) struct Marker(Arc<ConnectorState>);

#[derive(Debug)]
struct ConnectorState {
    dialled: Instant,
    /// Bytes have come, of any answer.
    has_spoken: AtomicBool,
    /// Bytes have come since the last were sent.
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

    /// Whether a call that began at `begun` and failed on this connection met a stale one: it was not dialled for the
    /// call, and not a byte of an answer came.
    pub(super) fn was_stale(&self, begun: Instant) -> bool {
        // One connection carries one call at a time, so without a byte for this call all bytes were for earlier ones.
        // A connection that was dialled for another call and then not needed has carried none, but may have aged too.
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
    fn why_tls_failed_is_found_however_deep_it_lies() {
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
    fn a_connection_is_stale_when_it_was_not_dialled_for_the_call_and_says_nothing_to_it() {
        let earlier = Instant::now();
        let marker = Marker::new();
        let later = marker.0.dialled + Duration::from_millis(1);
        assert!(!marker.was_stale(earlier), "fresh");
        assert!(marker.was_stale(later), "dialled for another call");
        marker.note_write();
        marker.note_read();
        assert!(!marker.was_stale(later), "the answer has begun");
        marker.note_write();
        assert!(marker.was_stale(earlier), "reused");
    }
}
