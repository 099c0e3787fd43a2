//! The bare relay: the minimum that a tonic server and a hyper client do to relay a model's answer. The router is
//! compared with it.
//!
//! It parses events with `serde_json` and encodes them as gRPC messages of the same contract, with the same windows. It
//! has nothing else: no configuration, limits, timeouts, metrics or logs.

use std::{net::SocketAddr, pin::Pin};

use anyhow::Result;
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http::{Request, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::Deserialize;
use switchboard::pb::router::{
    Completion, Delta, FinishReason, InferRequest, InferResponse, Message, Part, Role, Selection, StreamInferResponse,
    delta,
    infer_request::Input,
    inference_service_server::{InferenceService, InferenceServiceServer},
    part,
    stream_infer_response::Event,
};
use tokio::net::TcpListener;
use tonic::{
    Response, Status,
    transport::{Server, server::TcpIncoming},
};

use crate::ask;

#[derive(Debug)]
struct Floor {
    client: Client<HttpConnector, Full<Bytes>>,
    uri: String,
}

/// Relays calls to `model` until the process is ended.
pub(crate) async fn serve(listener: TcpListener, model: SocketAddr) -> Result<()> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let floor = Floor {
        client: Client::builder(TokioExecutor::new()).build(connector),
        uri: format!("http://{model}{}", ask::PATH),
    };
    Server::builder()
        .max_frame_size(16 * 1024)
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .add_service(InferenceServiceServer::new(floor))
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
        .await?;
    Ok(())
}

impl Floor {
    async fn post(&self, request: InferRequest, is_streamed: bool) -> Result<Incoming, Status> {
        let Some(Input::Prompt(prompt)) = request.input else {
            return Err(Status::invalid_argument("only prompts are supported"));
        };
        let request = Request::post(&self.uri)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::from(ask::chat(&prompt, is_streamed)))
            .map_err(failed)?;
        Ok(self.client.request(request).await.map_err(failed)?.into_body())
    }
}

#[tonic::async_trait]
impl InferenceService for Floor {
    async fn infer(&self, request: tonic::Request<InferRequest>) -> Result<Response<InferResponse>, Status> {
        let body = self.post(request.into_inner(), false).await?;
        let body = body.collect().await.map_err(failed)?.to_bytes();
        let answer: Answer = serde_json::from_slice(&body).map_err(failed)?;
        let said = answer.choices.into_iter().next().and_then(|choice| choice.message);
        let text = said.and_then(|said| said.content).unwrap_or_default();
        let part = Part {
            kind: Some(part::Kind::Text(text)),
        };
        Ok(Response::new(InferResponse {
            selection: Some(Selection::default()),
            message: Some(Message {
                role: Role::Assistant.into(),
                parts: vec![part],
            }),
            completion: Some(completion()),
        }))
    }

    type StreamInferStream = Pin<Box<dyn Stream<Item = Result<StreamInferResponse, Status>> + Send>>;

    async fn stream_infer(
        &self,
        request: tonic::Request<InferRequest>,
    ) -> Result<Response<Self::StreamInferStream>, Status> {
        let mut body = self.post(request.into_inner(), true).await?;
        let messages = async_stream::try_stream! {
            yield message(Event::Selection(Selection::default()));
            let mut received = BytesMut::new();
            while let Some(frame) = body.frame().await {
                let Ok(bytes) = frame.map_err(failed)?.into_data() else { continue };
                received.extend_from_slice(&bytes);
                while let Some(end) = received.iter().position(|byte| *byte == b'\n') {
                    let line = received.split_to(end + 1);
                    let Some(data) = line.strip_prefix(b"data: ") else { continue };
                    if data == b"[DONE]\n" {
                        yield message(Event::Completion(completion()));
                        continue;
                    }
                    let answer: Answer = serde_json::from_slice(data).map_err(failed)?;
                    let said = answer.choices.into_iter().next().and_then(|choice| choice.delta);
                    if let Some(text) = said.and_then(|said| said.content).filter(|text| !text.is_empty()) {
                        yield message(Event::Delta(Delta { kind: Some(delta::Kind::Text(text)) }));
                    }
                }
            }
        };
        Ok(Response::new(Box::pin(messages)))
    }
}

#[derive(Deserialize)]
struct Answer {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Option<Said>,
    message: Option<Said>,
}

#[derive(Deserialize)]
struct Said {
    content: Option<String>,
}

fn completion() -> Completion {
    Completion {
        finish_reason: FinishReason::Stop.into(),
        usage: None,
    }
}

fn message(event: Event) -> StreamInferResponse {
    StreamInferResponse {
        event: Some(event),
        ..Default::default()
    }
}

fn failed(error: impl ToString) -> Status {
    Status::internal(error.to_string())
}
