//! gRPC over one connection, as thin as can be: the server is measured, and the client shares its machine.

use std::{future::Future, net::SocketAddr};

use anyhow::{Context as _, Result, ensure};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::{
    RecvStream, SendStream,
    client::{self, Connection, SendRequest},
};
use http::{HeaderMap, Request};
use tokio::net::TcpStream;

/// What a client grants in advance unless it says otherwise: enough for a snapshot to flow without a pause.
pub const WINDOW: u32 = 1024 * 1024;

/// How many bytes come before each message: a flag and a length.
const PREFIX_BYTES: usize = 5;

/// Connects. The connection must be polled for its calls to go on.
///
/// # Errors
///
/// If the server does not accept the connection.
pub async fn connect(addr: SocketAddr, window: u32) -> Result<(SendRequest<Bytes>, Connection<TcpStream, Bytes>)> {
    let socket = TcpStream::connect(addr).await.context("connect")?;
    socket.set_nodelay(true)?;
    let mut builder = client::Builder::new();
    builder
        .initial_window_size(window)
        .initial_connection_window_size(window);
    Ok(builder.handshake(socket).await?)
}

/// Begins a call of a method, by its path. Returns the upward side, and the answer to wait for once something was sent.
///
/// # Errors
///
/// If the connection has ended. The answer is an error if its headers have a failure.
pub async fn call(
    requests: &SendRequest<Bytes>,
    path: &str,
) -> Result<(SendStream<Bytes>, impl Future<Output = Result<Messages>> + use<>)> {
    let request = Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (answer, up) = requests.clone().ready().await?.send_request(request, false)?;
    let answer = async move {
        let (head, body) = answer.await?.into_parts();
        check(&head.headers)?;
        Ok(Messages {
            body,
            received: BytesMut::new(),
        })
    };
    Ok((up, answer))
}

/// The messages of an answer.
#[derive(Debug)]
pub struct Messages {
    body: RecvStream,
    received: BytesMut,
}

impl Messages {
    /// The next message; `None` after an end in order.
    ///
    /// # Errors
    ///
    /// If the call fails, or ends within a message or without a status.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(message) = self.take() {
                return Ok(Some(message));
            }
            let Some(data) = self.body.data().await else {
                ensure!(self.received.is_empty(), "the stream ends within a message");
                let trailers = self.body.trailers().await?.context("there is no status")?;
                check(&trailers)?;
                ensure!(trailers.contains_key("grpc-status"), "there is no status");
                return Ok(None);
            };
            let data = data?;
            self.body.flow_control().release_capacity(data.len())?;
            self.received.extend_from_slice(&data);
        }
    }

    fn take(&mut self) -> Option<Bytes> {
        let mut prefix = self.received.get(1..PREFIX_BYTES)?;
        let length = usize::try_from(prefix.get_u32()).ok()?;
        if self.received.len() < PREFIX_BYTES + length {
            return None;
        }
        self.received.advance(PREFIX_BYTES);
        Some(self.received.split_to(length).freeze())
    }
}

/// Fails if headers or trailers have a failure in them.
fn check(headers: &HeaderMap) -> Result<()> {
    let Some(status) = headers.get("grpc-status") else {
        return Ok(());
    };
    let message = headers.get("grpc-message");
    ensure!(status == "0", "the call failed: {status:?}, {message:?}");
    Ok(())
}

/// A message with its prefix.
#[must_use]
pub fn framed(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    framed.freeze()
}
