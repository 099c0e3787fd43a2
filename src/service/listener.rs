//! The listening socket with its limits: the number of connections, a timeout for silent ones, and a way to close all.
//!
//! These limits are needed because tonic's own accept loop does not limit connections, spins when the process is out of
//! file descriptors, waits forever for a client that connects and sends nothing, and cannot be stopped while such a
//! client is connected.

use std::{
    future::Future,
    io,
    net::{self, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep},
};
use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

/// The length of the system's queue of clients that wait to be accepted; the system may lower it.
///
/// After a restart, all clients connect at nearly the same time. A client that does not fit into the queue is reset, or
/// waits a second until it tries again.
const BACKLOG: u32 = 4096;

/// The time limit for a client to send its first byte.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause after the system failed to accept a connection, which is mostly due to a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The first byte of a TLS handshake. HTTP/1 and HTTP/2 begin with a letter.
const TLS_HANDSHAKE: u8 = 0x16;

/// The minimum time between two log lines about TLS handshakes: a client that expects TLS retries without end.
const TLS_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// A bound socket that does not accept connections yet.
#[derive(Debug)]
pub struct Listener {
    /// A blocking socket, not registered with a runtime, because another runtime may accept than the one that bound it.
    socket: net::TcpListener,
    local_addr: SocketAddr,
    connections_max: usize,
    open: Gauge,
}

impl Listener {
    /// Binds an address. Port 0 picks a free port. At most `connections_max` connections are open at a time; further
    /// clients wait in the system's queue.
    ///
    /// # Errors
    ///
    /// An I/O error if the address is in use, or is not an address of this machine.
    pub fn bind(addr: SocketAddr, connections_max: usize) -> io::Result<Self> {
        let socket = match addr {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // Allows a restart while connections of the previous process are still in TIME_WAIT.
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        let socket = socket.listen(BACKLOG)?.into_std()?;
        let local_addr = socket.local_addr()?;
        Ok(Self {
            socket,
            local_addr,
            connections_max,
            open: Gauge::default(),
        })
    }

    /// The bound address, with the actual port.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The number of open connections. It stays valid after the listener is converted to [`Connections`].
    #[must_use]
    pub const fn open(&self) -> &Gauge {
        &self.open
    }

    /// Starts to accept connections on the current runtime. When `stop` is cancelled, connections of clients that have
    /// not sent anything yet are closed. When `kill` is cancelled, all connections are closed.
    ///
    /// # Errors
    ///
    /// An I/O error if the socket cannot be registered with the runtime.
    pub fn into_connections(self, stop: CancellationToken, kill: CancellationToken) -> io::Result<Connections> {
        Ok(Connections {
            socket: TcpListener::from_std(self.socket)?,
            local_addr: self.local_addr,
            permits: Arc::new(Semaphore::new(self.connections_max)),
            open: self.open,
            tls_log: Arc::default(),
            stop,
            kill,
        })
    }
}

/// Accepts the connections of a listener.
#[derive(Debug)]
pub struct Connections {
    socket: TcpListener,
    local_addr: SocketAddr,
    permits: Arc<Semaphore>,
    open: Gauge,
    tls_log: Arc<TlsLog>,
    stop: CancellationToken,
    kill: CancellationToken,
}

impl Connections {
    /// Waits for the next client and accepts its connection.
    ///
    /// # Cancel safety
    ///
    /// Safe: a client that was not returned yet is still in the system's queue.
    pub async fn accept(&mut self) -> (ClientConnection, SocketAddr) {
        loop {
            let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else {
                // Cannot happen: the semaphore lives as long as `self` and is never closed.
                continue;
            };
            match self.socket.accept().await {
                Ok((stream, peer)) => {
                    // Responses are small frames, which Nagle's algorithm would delay.
                    drop(stream.set_nodelay(true));
                    return (ClientConnection::new(stream, peer, permit, self), peer);
                }
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Converts to a stream of connections, as tonic expects it. The stream never ends.
    pub fn into_stream(mut self) -> impl Stream<Item = io::Result<ClientConnection>> {
        async_stream::stream! {
            loop {
                let (connection, _peer) = self.accept().await;
                yield Ok(connection);
            }
        }
    }
}

impl axum::serve::Listener for Connections {
    type Io = ClientConnection;
    type Addr = SocketAddr;

    fn accept(&mut self) -> impl Future<Output = (Self::Io, Self::Addr)> + Send {
        Self::accept(self)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.local_addr)
    }
}

/// The connection of one client. It counts against the limit of connections until it is dropped.
pub struct ClientConnection {
    stream: TcpStream,
    peer: SocketAddr,
    killed: Pin<Box<WaitForCancellationFutureOwned>>,
    /// `None` once the client has sent something.
    silence: Option<SilenceLimit>,
    open: Gauge,
    tls_log: Arc<TlsLog>,
    _permit: OwnedSemaphorePermit,
}

/// The conditions that close a connection whose client has not sent anything yet.
struct SilenceLimit {
    timeout: Pin<Box<Sleep>>,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl SilenceLimit {
    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        self.timeout.as_mut().poll(context).is_ready() || self.stopped.as_mut().poll(context).is_ready()
    }
}

/// Logs that clients talk TLS to a port without TLS, for all connections of a listener.
#[derive(Debug, Default)]
struct TlsLog {
    /// When the last line was logged. `None`: none was logged yet.
    logged: Mutex<Option<Instant>>,
}

impl TlsLog {
    /// Logs the handshake of a client, unless another one was logged less than [`TLS_LOG_INTERVAL`] ago.
    fn handshake(&self, local_addr: Option<SocketAddr>, peer: SocketAddr) {
        if self.is_due(Instant::now()) {
            tracing::warn!(
                listen_addr = local_addr.map(tracing::field::display),
                %peer,
                "a TLS handshake arrived at the plaintext port: this port serves only plaintext, so clients must \
                 connect to it without TLS"
            );
        }
    }

    /// Returns whether a line may be logged now. If so, it counts as logged.
    fn is_due(&self, now: Instant) -> bool {
        let mut logged = self.logged.lock();
        let is_due = logged.is_none_or(|logged| now.saturating_duration_since(logged) >= TLS_LOG_INTERVAL);
        if is_due {
            *logged = Some(now);
        }
        is_due
    }
}

impl ClientConnection {
    /// Creates the connection of a client that `connections` has accepted.
    fn new(stream: TcpStream, peer: SocketAddr, permit: OwnedSemaphorePermit, connections: &Connections) -> Self {
        connections.open.inc();
        Self {
            stream,
            peer,
            open: connections.open.clone(),
            tls_log: Arc::clone(&connections.tls_log),
            killed: Box::pin(connections.kill.clone().cancelled_owned()),
            silence: Some(SilenceLimit {
                timeout: Box::pin(sleep(FIRST_BYTE_TIMEOUT)),
                stopped: Box::pin(connections.stop.clone().cancelled_owned()),
            }),
            _permit: permit,
        }
    }
}

impl Drop for ClientConnection {
    fn drop(&mut self) {
        self.open.dec();
    }
}

impl std::fmt::Debug for ClientConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientConnection")
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

impl AsyncRead for ClientConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.killed.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Some(first) = buffer.filled().get(before) {
            let was_silent = self.silence.take().is_some();
            if was_silent && *first == TLS_HANDSHAKE {
                self.tls_log.handshake(self.stream.local_addr().ok(), self.peer);
            }
        } else if let (Poll::Pending, Some(silence)) = (&result, &mut self.silence)
            && silence.is_over(context)
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        result
    }
}

impl AsyncWrite for ClientConnection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connected for ClientConnection {
    type ConnectInfo = <TcpStream as Connected>::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        time::timeout,
    };

    use super::*;

    fn pair(connections_max: usize) -> (Connections, SocketAddr, CancellationToken, CancellationToken) {
        let listener = Listener::bind(([127, 0, 0, 1], 0).into(), connections_max).unwrap();
        let (addr, stop, kill) = (
            listener.local_addr(),
            CancellationToken::new(),
            CancellationToken::new(),
        );
        let connections = listener.into_connections(stop.clone(), kill.clone()).unwrap();
        (connections, addr, stop, kill)
    }

    #[tokio::test]
    async fn stopping_closes_only_connections_of_clients_that_have_sent_nothing() {
        let (mut connections, addr, stop, kill) = pair(2);
        let _silent_client = TcpStream::connect(addr).await.unwrap();
        let (mut silent, _) = connections.accept().await;
        let mut talking_client = TcpStream::connect(addr).await.unwrap();
        let (mut talking, _) = connections.accept().await;
        talking_client.write_all(b"x").await.unwrap();
        let mut byte = [0];
        talking.read_exact(&mut byte).await.unwrap();

        stop.cancel();
        assert_eq!(
            silent.read(&mut byte).await.unwrap_err().kind(),
            io::ErrorKind::TimedOut
        );
        talking_client.write_all(b"y").await.unwrap();
        talking.read_exact(&mut byte).await.unwrap();
        assert_eq!(&byte, b"y");

        kill.cancel();
        assert_eq!(
            talking.read(&mut byte).await.unwrap_err().kind(),
            io::ErrorKind::ConnectionAborted
        );
    }

    #[tokio::test]
    async fn a_thousand_clients_that_connect_at_once_succeed_at_the_first_try() {
        let (_connections, addr, _stop, _kill) = pair(1);
        let mut clients = Vec::new();
        for _ in 0..1_000 {
            let client = timeout(Duration::from_secs(10), TcpStream::connect(addr)).await;
            clients.push(client.unwrap().unwrap());
        }
    }

    #[test]
    fn tls_handshakes_are_logged_at_most_once_a_minute() {
        let (log, begin) = (TlsLog::default(), Instant::now());
        let due = [0, 1, 59, 60, 61, 119, 120].map(|second| log.is_due(begin + Duration::from_secs(second)));
        assert_eq!(due, [true, false, false, true, false, false, true]);
    }

    #[tokio::test]
    async fn a_client_above_the_limit_waits_until_a_connection_closes() {
        let (mut connections, addr, _stop, _kill) = pair(1);
        let open = connections.open.clone();
        let _first_client = TcpStream::connect(addr).await.unwrap();
        let _second_client = TcpStream::connect(addr).await.unwrap();
        let (first, _) = connections.accept().await;
        assert!(futures_util::poll!(Box::pin(connections.accept())).is_pending());
        assert_eq!(open.get(), 1);
        drop(first);
        assert_eq!(open.get(), 0);
        connections.accept().await;
    }
}
