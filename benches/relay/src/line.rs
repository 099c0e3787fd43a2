//! A client's way to one of those who are measured: gRPC to a relay, or HTTP straight to the model server.
//!
//! As thin as can be, since the client shares its core. All that comes is counted and checked: an answer that is not whole
//! is an error.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use prost::Message as _;
use switchboard::pb::router::{InferResponse, StreamInferResponse, delta, part, stream_infer_response::Event};
use switchboard_comparison::grpc::{self, Messages};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use crate::ask::{self, Question, TOKEN_BYTES, TOKENS, WHOLE_TEXT};

/// One client's way.
#[derive(Debug)]
pub(crate) enum Line {
    /// Shares its connection with other lines.
    Grpc(Caller),
    /// Has a connection to itself.
    Http(Http),
}

impl Line {
    /// Asks for a whole answer.
    pub(crate) async fn whole(&mut self, question: &Question) -> Result<()> {
        match self {
            Self::Grpc(caller) => caller.whole(question).await,
            Self::Http(http) => http.whole(question).await,
        }
    }

    /// Asks for a streamed answer; `saw` gets the time of each token as it comes.
    pub(crate) async fn stream(&mut self, question: &Question, mut saw: impl FnMut(u64)) -> Result<()> {
        let mut tokens = 0;
        let mut piece = |text: &[u8]| -> Result<()> {
            for time in ask::stamps(text) {
                tokens += 1;
                saw(time?);
            }
            Ok(())
        };
        match self {
            Self::Grpc(caller) => caller.stream(question, &mut piece).await?,
            Self::Http(http) => http.stream(question, &mut piece).await?,
        }
        ensure!(tokens == TOKENS, "{tokens} tokens came");
        Ok(())
    }
}

/// Calls over one connection.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    requests: SendRequest<Bytes>,
    /// Drives the connection as long as there is a caller.
    _driver: Arc<JoinSet<()>>,
}

impl Caller {
    pub(crate) async fn connect(addr: SocketAddr) -> Result<Self> {
        let (requests, connection) = grpc::connect(addr, grpc::WINDOW).await?;
        let mut driver = JoinSet::new();
        // Its calls tell when it fails.
        driver.spawn(async move { drop(connection.await) });
        Ok(Self {
            requests,
            _driver: Arc::new(driver),
        })
    }

    async fn whole(&self, question: &Question) -> Result<()> {
        let mut messages = self.call("Infer", question).await?;
        let answer = messages.next().await?.context("there is no answer")?;
        let answer = InferResponse::decode(answer)?;
        let part = answer.message.and_then(|message| message.parts.into_iter().next());
        ensure!(
            part.and_then(|part| part.kind) == Some(part::Kind::Text(WHOLE_TEXT.to_owned())),
            "the answer is another one"
        );
        ensure!(messages.next().await?.is_none(), "there are two answers");
        Ok(())
    }

    async fn stream(&self, question: &Question, piece: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut messages = self.call("StreamInfer", question).await?;
        let (mut selections, mut completions) = (0, 0);
        while let Some(message) = messages.next().await? {
            match StreamInferResponse::decode(message)?.event {
                Some(Event::Selection(_)) => selections += 1,
                Some(Event::Completion(_)) => completions += 1,
                Some(Event::Delta(delta)) => match delta.kind {
                    Some(delta::Kind::Text(text)) => piece(text.as_bytes())?,
                    _ => bail!("a piece is no text"),
                },
                None => bail!("a message says nothing"),
            }
        }
        ensure!((selections, completions) == (1, 1), "the answer is not whole");
        Ok(())
    }

    async fn call(&self, method: &str, question: &Question) -> Result<Messages> {
        let path = format!("/switchboard.router.v1.InferenceService/{method}");
        let (mut up, answer) = grpc::call(&self.requests, &path).await?;
        up.send_data(question.grpc.clone(), true)?;
        answer.await
    }
}

/// A connection straight to the model server.
#[derive(Debug)]
pub(crate) struct Http {
    socket: TcpStream,
    received: BytesMut,
}

impl Http {
    pub(crate) async fn connect(addr: SocketAddr) -> Result<Self> {
        let socket = TcpStream::connect(addr).await.context("connect")?;
        socket.set_nodelay(true)?;
        Ok(Self {
            socket,
            received: BytesMut::with_capacity(16 * 1024),
        })
    }

    async fn whole(&mut self, question: &Question) -> Result<()> {
        self.socket.write_all(&question.whole).await?;
        // Nothing in it has another brace at its very end.
        while !self.received.ends_with(b"}}") {
            self.read().await?;
        }
        ensure!(
            ask::position(&self.received, WHOLE_TEXT.as_bytes()).is_some(),
            "the answer is another one"
        );
        self.received.clear();
        Ok(())
    }

    async fn stream(&mut self, question: &Question, piece: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        const TOKEN: &[u8] = b"\"delta\":{\"content\":\"";
        self.socket.write_all(&question.streamed).await?;
        loop {
            while let Some(end) = ask::position(&self.received, b"\n\n") {
                let event = self.received.split_to(end + 2);
                if let Some(at) = ask::position(&event, TOKEN) {
                    let begin = at + TOKEN.len();
                    piece(event.get(begin..begin + TOKEN_BYTES).context("a token is cut")?)?;
                }
            }
            if self.received.ends_with(b"\r\n0\r\n\r\n") {
                self.received.clear();
                return Ok(());
            }
            self.read().await?;
        }
    }

    async fn read(&mut self) -> Result<()> {
        let read = self.socket.read_buf(&mut self.received).await?;
        ensure!(read > 0, "the model server closed the connection");
        Ok(())
    }
}
