//! The listening socket and its guards: how many connections, how long a silent one may stay, and an end to all of them.
//!
//! tonic's own accept loop has no bound, spins when the process is out of file descriptors, waits for ever for a client
//! that connects and says nothing, and cannot be ended while such a client is there.

use std::{
    future::Future,
    io,
    net::{self, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use prometheus_client::metrics::gauge::Gauge;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};
use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

/// How many clients may wait to be accepted, as far as the system allows it. After a restart all come within a moment, and
/// those that the queue has no place for are reset, or lose a second until they are heard again.
const BACKLOG: u32 = 4096;

/// How long a client may take to send its first byte.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long accepting pauses after the system refused, which is mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound socket that does not accept yet.
#[derive(Debug)]
pub struct Listener {
    /// Belongs to no runtime: the runtime that accepts need not be the one that bound it.
    socket: net::TcpListener,
    local_addr: SocketAddr,
    connections_max: usize,
    open: Gauge,
}

impl Listener {
    /// Binds an address; port 0 picks a free one. At most `connections_max` connections are open at a time; further
    /// clients wait in the system's queue.
    ///
    /// # Errors
    ///
    /// When the address is taken or not this machine's.
    pub fn bind(addr: SocketAddr, connections_max: usize) -> io::Result<Self> {
        let socket = match addr {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // A restart need not wait for what is left of the connections before.
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

    /// The bound address, with the port that was picked.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// How many connections are open, also once the listener has become [`Connections`].
    #[must_use]
    pub const fn open(&self) -> &Gauge {
        &self.open
    }

    /// Begins to accept, on the runtime that this is called on. When `stop` is cancelled, clients that have not said
    /// anything yet are closed; when `kill` is cancelled, all are.
    ///
    /// # Errors
    ///
    /// When the runtime cannot watch the socket.
    pub fn into_connections(self, stop: CancellationToken, kill: CancellationToken) -> io::Result<Connections> {
        Ok(Connections {
            socket: TcpListener::from_std(self.socket)?,
            local_addr: self.local_addr,
            permits: Arc::new(Semaphore::new(self.connections_max)),
            open: self.open,
            stop,
            kill,
        })
    }
}

/// The connections of a listener.
#[derive(Debug)]
pub struct Connections {
    socket: TcpListener,
    local_addr: SocketAddr,
    permits: Arc<Semaphore>,
    open: Gauge,
    stop: CancellationToken,
    kill: CancellationToken,
}

impl Connections {
    /// Waits for the next client.
    ///
    /// # Cancel safety
    ///
    /// Safe: a client that was not returned yet is still in the system's queue.
    pub async fn accept(&mut self) -> (ClientConnection, SocketAddr) {
        loop {
            let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else {
                // The semaphore lives as long as `self` and is never closed.
                continue;
            };
            match self.socket.accept().await {
                Ok((stream, peer)) => {
                    // Answers are small frames that must not wait for each other.
                    drop(stream.set_nodelay(true));
                    return (
                        ClientConnection::new(stream, permit, self.open.clone(), &self.stop, &self.kill),
                        peer,
                    );
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// The connections as a stream that never ends, as tonic takes them.
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

/// One client's connection, with its place among those that are allowed.
pub struct ClientConnection {
    stream: TcpStream,
    killed: Pin<Box<WaitForCancellationFutureOwned>>,
    /// `None` once the client has said something.
    silence: Option<SilenceLimit>,
    open: Gauge,
    _permit: OwnedSemaphorePermit,
}

/// What ends a connection whose client has not said anything yet.
struct SilenceLimit {
    timeout: Pin<Box<Sleep>>,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl SilenceLimit {
    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        self.timeout.as_mut().poll(context).is_ready() || self.stopped.as_mut().poll(context).is_ready()
    }
}

impl ClientConnection {
    fn new(
        stream: TcpStream,
        permit: OwnedSemaphorePermit,
        open: Gauge,
        stop: &CancellationToken,
        kill: &CancellationToken,
    ) -> Self {
        open.inc();
        Self {
            stream,
            open,
            killed: Box::pin(kill.clone().cancelled_owned()),
            silence: Some(SilenceLimit {
                timeout: Box::pin(sleep(FIRST_BYTE_TIMEOUT)),
                stopped: Box::pin(stop.clone().cancelled_owned()),
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
        if buffer.filled().len() > before {
            self.silence = None;
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
    async fn a_silent_client_is_closed_when_the_service_stops_and_a_talking_one_is_not() {
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
    async fn all_who_come_within_a_moment_are_heard_at_their_first_try() {
        let (_connections, addr, _stop, _kill) = pair(1);
        let mut clients = Vec::new();
        for _ in 0..1_000 {
            let client = timeout(Duration::from_secs(10), TcpStream::connect(addr)).await;
            clients.push(client.unwrap().unwrap());
        }
    }

    #[tokio::test]
    async fn a_client_beyond_the_limit_waits_for_a_place() {
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
