//! gRPC over a connection of its own, as thin as can be: what is measured is the server, and the client shares its cores.

use std::{future::Future, net::SocketAddr, pin::pin};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::{
    RecvStream, SendStream,
    client::{self, SendRequest},
};
use http::{HeaderMap, Request};
use tokio::{net::TcpStream, select};

/// What a client of a stream grants in advance: enough for a snapshot to flow without a pause.
const WINDOW: u32 = 1024 * 1024;

/// How many bytes come before each message: a flag and a length.
const PREFIX: usize = 5;

/// A method and what it is called with.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) path: &'static str,
    pub(crate) message: Vec<u8>,
}

/// A connection's calls.
#[derive(Debug, Clone)]
pub(crate) struct Caller(SendRequest<Bytes>);

/// Connects, and drives the connection while `script` uses it: both in the task of who calls.
pub(crate) async fn connected<T, Script>(
    addr: SocketAddr,
    window: Option<u32>,
    script: impl FnOnce(Caller) -> Script,
) -> Result<T>
where
    Script: Future<Output = Result<T>>,
{
    let socket = TcpStream::connect(addr).await.context("connect")?;
    socket.set_nodelay(true)?;
    let mut builder = client::Builder::new();
    let window = window.unwrap_or(WINDOW);
    builder
        .initial_window_size(window)
        .initial_connection_window_size(window);
    let (caller, connection) = builder.handshake(socket).await?;
    let script = script(Caller(caller));
    select! {
        biased;
        ended = pin!(connection) => {
            ended?;
            bail!("the server closed the connection")
        }
        done = script => done,
    }
}

impl Caller {
    /// Calls a method that answers once.
    pub(crate) async fn unary(&self, call: Call) -> Result<Bytes> {
        let (mut up, answer) = self.begin(call.path).await?;
        up.send_data(framed(&call.message), true)?;
        let mut answer = answer.await?;
        let message = answer.next().await?;
        let Some(message) = message else {
            bail!("{} gave no answer", call.path)
        };
        ensure!(answer.next().await?.is_none(), "{} answered twice", call.path);
        Ok(message)
    }

    /// Calls a method whose messages go on in both directions.
    pub(crate) async fn stream(&self, call: Call) -> Result<(Uplink, Messages)> {
        let (up, answer) = self.begin(call.path).await?;
        let mut up = Uplink(up);
        up.say(&call.message)?;
        Ok((up, answer.await?))
    }

    async fn begin(
        &self,
        path: &'static str,
    ) -> Result<(SendStream<Bytes>, impl Future<Output = Result<Messages>> + use<>)> {
        let request = Request::post(format!("http://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let (answer, up) = self.0.clone().ready().await?.send_request(request, false)?;
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
}

/// The upward side of a stream.
#[derive(Debug)]
pub(crate) struct Uplink(SendStream<Bytes>);

impl Uplink {
    pub(crate) fn say(&mut self, message: &[u8]) -> Result<()> {
        Ok(self.0.send_data(framed(message), false)?)
    }
}

/// The messages of an answer.
#[derive(Debug)]
pub(crate) struct Messages {
    body: RecvStream,
    received: BytesMut,
}

impl Messages {
    /// The next message; `None` after an end in order.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(message) = self.take() {
                return Ok(Some(message));
            }
            let Some(data) = self.body.data().await else {
                ensure!(self.received.is_empty(), "the stream ends within a message");
                if let Some(trailers) = self.body.trailers().await? {
                    check(&trailers)?;
                }
                return Ok(None);
            };
            let data = data?;
            self.body.flow_control().release_capacity(data.len())?;
            self.received.extend_from_slice(&data);
        }
    }

    fn take(&mut self) -> Option<Bytes> {
        let mut prefix = self.received.get(1..PREFIX)?;
        let length = usize::try_from(prefix.get_u32()).ok()?;
        if self.received.len() < PREFIX + length {
            return None;
        }
        self.received.advance(PREFIX);
        Some(self.received.split_to(length).freeze())
    }
}

/// Headers or trailers with a failure in them.
fn check(headers: &HeaderMap) -> Result<()> {
    let Some(status) = headers.get("grpc-status") else {
        return Ok(());
    };
    let message = headers.get("grpc-message");
    ensure!(status == "0", "the call failed: {status:?}, {message:?}");
    Ok(())
}

fn framed(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    framed.freeze()
}
