//! A minimal gRPC client over one connection, because the client shares its machine with the server that is measured.

use std::{future::Future, net::SocketAddr};

use anyhow::{Context as _, Result, ensure};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::{
    RecvStream, SendStream,
    client::{self, Connection, SendRequest},
};
use http::{HeaderMap, Request};
use tokio::net::TcpStream;

/// The default HTTP/2 window of a client in bytes: enough for a snapshot to arrive without pauses.
pub const WINDOW: u32 = 1024 * 1024;

/// Length of the prefix of each message in bytes: a flag and the length.
const PREFIX_BYTES: usize = 5;

/// Opens a connection. The caller must poll it, or its calls make no progress.
///
/// # Errors
///
/// Returns an error if the server does not accept the connection.
pub async fn connect(addr: SocketAddr, window: u32) -> Result<(SendRequest<Bytes>, Connection<TcpStream, Bytes>)> {
    let socket = TcpStream::connect(addr)
        .await
        .context("could not connect to the server")?;
    socket.set_nodelay(true)?;
    let mut builder = client::Builder::new();
    builder
        .initial_window_size(window)
        .initial_connection_window_size(window);
    Ok(builder.handshake(socket).await?)
}

/// Begins a call of a method by its path. Returns the sending side, and a future for the answer, which the caller
/// awaits after it has sent a message.
///
/// # Errors
///
/// Returns an error if the connection has ended. The future returns an error if the headers of the answer have a
/// failure.
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
    /// Returns the next message, or `None` after a successful end.
    ///
    /// # Errors
    ///
    /// Returns an error if the call fails, or if it ends in the middle of a message or without a status.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(message) = self.take() {
                return Ok(Some(message));
            }
            let Some(data) = self.body.data().await else {
                ensure!(self.received.is_empty(), "the stream ended in the middle of a message");
                let trailers = self.body.trailers().await?.context("the response has no status")?;
                check(&trailers)?;
                ensure!(trailers.contains_key("grpc-status"), "the response has no status");
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

/// Returns an error if the headers or trailers have a failure status.
fn check(headers: &HeaderMap) -> Result<()> {
    let Some(status) = headers.get("grpc-status") else {
        return Ok(());
    };
    let message = headers.get("grpc-message");
    ensure!(status == "0", "the call failed: {status:?}, {message:?}");
    Ok(())
}

/// Returns a message with its prefix.
#[must_use]
pub fn framed(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    framed.freeze()
}
