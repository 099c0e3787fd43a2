//! A client's connection to one of the servers: gRPC to a relay, or HTTP directly to the model server.
//!
//! It is minimal, because the client shares its core. It counts and checks everything that it receives: an incomplete
//! answer is an error.

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

/// One client's connection.
#[derive(Debug)]
pub(crate) enum Line {
    /// Shares its connection with other lines.
    Grpc(Caller),
    /// Has a connection of its own.
    Http(Http),
}

impl Line {
    /// Makes a unary call.
    pub(crate) async fn whole(&mut self, question: &Question) -> Result<()> {
        match self {
            Self::Grpc(caller) => caller.whole(question).await,
            Self::Http(http) => http.whole(question).await,
        }
    }

    /// Makes a streamed call; `saw` receives the time in each token as the token arrives.
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
        ensure!(tokens == TOKENS, "the answer has {tokens} tokens instead of {TOKENS}");
        Ok(())
    }
}

/// Makes calls over one shared connection.
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
        // A failure of the connection is reported by its calls.
        driver.spawn(async move { drop(connection.await) });
        Ok(Self {
            requests,
            _driver: Arc::new(driver),
        })
    }

    async fn whole(&self, question: &Question) -> Result<()> {
        let mut messages = self.call("Infer", question).await?;
        let answer = messages.next().await?.context("the call has no answer")?;
        let answer = InferResponse::decode(answer)?;
        let part = answer.message.and_then(|message| message.parts.into_iter().next());
        ensure!(
            part.and_then(|part| part.kind) == Some(part::Kind::Text(WHOLE_TEXT.to_owned())),
            "the answer has the wrong text"
        );
        ensure!(messages.next().await?.is_none(), "the call has two answers");
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
                    _ => bail!("a delta is not text"),
                },
                None => bail!("a message has no event"),
            }
        }
        ensure!((selections, completions) == (1, 1), "the answer is incomplete");
        Ok(())
    }

    async fn call(&self, method: &str, question: &Question) -> Result<Messages> {
        let path = format!("/switchboard.router.v1.InferenceService/{method}");
        let (mut up, answer) = grpc::call(&self.requests, &path).await?;
        up.send_data(question.grpc.clone(), true)?;
        answer.await
    }
}

/// A connection directly to the model server.
#[derive(Debug)]
pub(crate) struct Http {
    socket: TcpStream,
    received: BytesMut,
}

impl Http {
    pub(crate) async fn connect(addr: SocketAddr) -> Result<Self> {
        let socket = TcpStream::connect(addr)
            .await
            .context("could not connect to the model server")?;
        socket.set_nodelay(true)?;
        Ok(Self {
            socket,
            received: BytesMut::with_capacity(16 * 1024),
        })
    }

    async fn whole(&mut self, question: &Question) -> Result<()> {
        self.socket.write_all(&question.whole).await?;
        // The answer has `}}` only at its end.
        while !self.received.ends_with(b"}}") {
            self.read().await?;
        }
        ensure!(
            ask::position(&self.received, WHOLE_TEXT.as_bytes()).is_some(),
            "the answer has the wrong text"
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
                    piece(event.get(begin..begin + TOKEN_BYTES).context("a token is truncated")?)?;
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
