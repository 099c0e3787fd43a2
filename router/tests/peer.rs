//! A caller that speaks HTTP/2 by hand, with windows of its own, and behaves as no gRPC client does.
#![expect(clippy::unwrap_used, reason = "a harness fails by panicking")]

use std::net::SocketAddr;

use bytes::{Buf as _, Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream, client::ResponseFuture};
use http::{Request, Response};
use prost::Message;
use switchboard::pb::router::{self, StreamInferResponse};
use tokio::{net::TcpStream, task::JoinSet};
use tonic::Status;

/// The windows of a common proxy.
const STREAM_WINDOW: u32 = 65_535;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Length of the prefix of each message: the compression flag and the length.
const PREFIX: usize = 5;

/// A method of the inference service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    StreamInfer,
    Infer,
}

/// A connection. Dropping it closes the socket without an HTTP/2 goodbye.
#[derive(Debug)]
pub(crate) struct Peer {
    address: SocketAddr,
    client: h2::client::SendRequest<Bytes>,
    connection: JoinSet<Result<(), h2::Error>>,
}

impl Peer {
    /// Opens a connection.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let (client, driver) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(socket)
            .await
            .unwrap();
        let mut connection = JoinSet::new();
        connection.spawn(driver);
        Self {
            address,
            client,
            connection,
        }
    }

    /// Sends a request without waiting for the answer.
    pub(crate) async fn call(&self, method: Method, message: &router::InferRequest) -> Call {
        self.call_with(&[], method, message).await
    }

    /// Like [`Self::call`], with these headers.
    pub(crate) async fn call_with(
        &self,
        headers: &[(&str, &str)],
        method: Method,
        message: &router::InferRequest,
    ) -> Call {
        let uri = format!(
            "http://{}/switchboard.router.v1.InferenceService/{method:?}",
            self.address
        );
        let request = Request::post(uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        let request = headers
            .iter()
            .fold(request, |request, &(name, value)| request.header(name, value));
        let request = request.body(()).unwrap();
        let mut client = self.client.clone().ready().await.unwrap();
        let (response, mut sender) = client.send_request(request, false).unwrap();
        let message = message.encode_to_vec();
        let mut frame = vec![0];
        frame.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(&message);
        sender.send_data(frame.into(), true).unwrap();
        Call { response, sender }
    }

    /// Returns the error that ended the connection, if one did.
    pub(crate) fn ended(&mut self) -> Option<h2::Error> {
        let ended = self.connection.try_join_next()?;
        ended.unwrap().err()
    }
}

/// A call whose answer has not begun.
#[derive(Debug)]
pub(crate) struct Call {
    response: ResponseFuture,
    sender: SendStream<Bytes>,
}

impl Call {
    /// Waits for the answer to begin.
    pub(crate) async fn begun(self) -> Result<Stream, h2::Error> {
        Ok(Stream {
            body: self.response.await.map(Response::into_body)?,
            sender: self.sender,
            unread: BytesMut::new(),
        })
    }

    /// Waits for a failure before the answer begins. There is no timer on this side, so the router alone decides how
    /// long.
    pub(crate) async fn refused(self) -> Status {
        let response = self.response.await.unwrap();
        Status::from_header_map(response.headers()).unwrap()
    }

    /// Resets the call's stream.
    pub(crate) fn reset(mut self) {
        self.sender.send_reset(Reason::CANCEL);
    }
}

/// A call whose answer has begun.
#[derive(Debug)]
pub(crate) struct Stream {
    body: RecvStream,
    sender: SendStream<Bytes>,
    unread: BytesMut,
}

impl Stream {
    /// Reads the next message of the answer. Returns `None` at the end of the body.
    pub(crate) async fn message(&mut self) -> Result<Option<StreamInferResponse>, h2::Error> {
        loop {
            if let Some(mut prefix) = self.unread.get(1..PREFIX) {
                let length = usize::try_from(prefix.get_u32()).unwrap();
                if self.unread.len() >= PREFIX + length {
                    self.unread.advance(PREFIX);
                    let message = self.unread.split_to(length);
                    return Ok(Some(StreamInferResponse::decode(message).unwrap()));
                }
            }
            let Some(bytes) = self.body.data().await else {
                return Ok(None);
            };
            let bytes = bytes?;
            self.body.flow_control().release_capacity(bytes.len())?;
            self.unread.extend_from_slice(&bytes);
        }
    }

    /// Resets the call's stream.
    pub(crate) fn reset(mut self) {
        self.sender.send_reset(Reason::CANCEL);
    }
}
