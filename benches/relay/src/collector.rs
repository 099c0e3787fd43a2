//! A trace collector that accepts and discards all spans.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Response};
use switchboard_comparison::grpc::framed;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// The running collector, which ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Collector {
    pub(crate) addr: SocketAddr,
    _task: JoinSet<()>,
}

impl Collector {
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                // The sender reports a failed connection.
                connections.spawn(async move { connection(socket).await.ok() });
            }
        });
        Ok(Self { addr, _task: task })
    }
}

async fn connection(socket: TcpStream) -> Result<()> {
    let mut connection = h2::server::handshake(socket).await?;
    let mut calls = JoinSet::new();
    while let Some(call) = connection.accept().await {
        let (request, respond) = call?;
        calls.spawn(async move { take(request.into_body(), respond).await.ok() });
        while calls.try_join_next().is_some() {}
    }
    Ok(())
}

async fn take(mut body: RecvStream, mut respond: SendResponse<Bytes>) -> Result<()> {
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data?.len())?;
    }
    let head = Response::builder()
        .header("content-type", "application/grpc")
        .body(())?;
    let mut answer = respond.send_response(head, false)?;
    answer.send_data(framed(&[]), false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    Ok(answer.send_trailers(trailers)?)
}
