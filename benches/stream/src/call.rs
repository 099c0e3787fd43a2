//! Calls over a connection of their own, which is driven by the task that makes them.

use std::{future::Future, net::SocketAddr, pin::pin};

use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use h2::{SendStream, client::SendRequest};
use switchboard_comparison::grpc::{self, Messages, framed};
use tokio::select;

/// A method with its request.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) path: &'static str,
    pub(crate) message: Vec<u8>,
}

/// Makes calls over a connection.
#[derive(Debug, Clone)]
pub(crate) struct Caller(SendRequest<Bytes>);

/// Opens a connection and drives it while `script` uses it, both in the calling task.
pub(crate) async fn connected<T, Script>(
    addr: SocketAddr,
    window: Option<u32>,
    script: impl FnOnce(Caller) -> Script,
) -> Result<T>
where
    Script: Future<Output = Result<T>>,
{
    let (caller, connection) = grpc::connect(addr, window.unwrap_or(grpc::WINDOW)).await?;
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
    /// Makes a unary call.
    pub(crate) async fn unary(&self, call: Call) -> Result<Bytes> {
        let (mut up, answer) = grpc::call(&self.0, call.path).await?;
        up.send_data(framed(&call.message), true)?;
        let mut answer = answer.await?;
        let message = answer.next().await?;
        let Some(message) = message else {
            bail!("{} returned no answer", call.path)
        };
        ensure!(answer.next().await?.is_none(), "{} returned two answers", call.path);
        Ok(message)
    }

    /// Makes a bidirectional streaming call.
    pub(crate) async fn stream(&self, call: Call) -> Result<(Uplink, Messages)> {
        let (up, answer) = grpc::call(&self.0, call.path).await?;
        let mut up = Uplink(up);
        up.say(&call.message)?;
        Ok((up, answer.await?))
    }
}

/// The sending side of a stream.
#[derive(Debug)]
pub(crate) struct Uplink(SendStream<Bytes>);

impl Uplink {
    pub(crate) fn say(&mut self, message: &[u8]) -> Result<()> {
        Ok(self.0.send_data(framed(message), false)?)
    }
}
