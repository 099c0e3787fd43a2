//! The size and the compression of requests that both services accept.

use bytes::Bytes;
use futures_util::stream;
use http::Request;
use http_body_util::BodyExt as _;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use switchboard::pb::{
    self,
    router::{InferRequest, infer_request::Input},
};
use tokio::{net::TcpStream, task::JoinSet};
use tonic::{
    Code, Status,
    codec::{Codec as _, CompressionEncoding, EncodeBody},
};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt as _;

use crate::{
    fake_upstream::FakeUpstream,
    harness::{Pair, Service},
};

const MIB: usize = 1024 * 1024;
/// Size of a decompression bomb after decompression.
const BOMB: usize = 100 * MIB;
/// Memory in KiB that a service may need to detect a bomb: the message limit, twice that while its buffer grows, and
/// some other memory.
const BOMB_KIB: u64 = 24 * 1024;
const ENCODINGS: [CompressionEncoding; 2] = [CompressionEncoding::Gzip, CompressionEncoding::Zstd];
const GET_MODEL: &str = "switchboard.registry.v1.ModelService/GetModel";
const INFER: &str = "switchboard.router.v1.InferenceService/StreamInfer";

/// A caller that uses one HTTP/2 connection by hand, because a gRPC client would silently open a new one.
struct Caller {
    client: h2::client::SendRequest<Bytes>,
    origin: String,
    connection: JoinSet<Result<(), h2::Error>>,
}

impl Caller {
    async fn connect(service: &Service) -> Self {
        let stream = TcpStream::connect(service.listen_addr).await.unwrap();
        let (client, driver) = h2::client::handshake(stream).await.unwrap();
        let mut connection = JoinSet::new();
        connection.spawn(driver);
        Self {
            client,
            origin: format!("http://{}", service.listen_addr),
            connection,
        }
    }

    /// Returns the status of a call that fails before its response begins, or `None` if the response begins.
    async fn refused(&self, method: &str, encoding: Option<&str>, frame: Bytes) -> Option<Status> {
        let mut request = Request::post(format!("{}/{method}", self.origin))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(encoding) = encoding {
            request = request.header("grpc-encoding", encoding);
        }
        let mut client = self.client.clone().ready().await.unwrap();
        let (response, mut sender) = client.send_request(request.body(()).unwrap(), false).unwrap();
        sender.send_data(frame, true).unwrap();
        let response = response.await.unwrap();
        assert!(
            !response.headers().contains_key("grpc-encoding"),
            "answers are not compressed"
        );
        Status::from_header_map(response.headers())
    }

    /// Checks that the original connection is still open.
    fn assert_unharmed(mut self) {
        assert!(self.connection.try_join_next().is_none());
    }
}

/// Encodes a message with one text, which is field 1 of most requests, as a gRPC frame.
async fn of_text(text: String, encoding: Option<CompressionEncoding>) -> Bytes {
    let encoder = ProstCodec::<String, ()>::default().encoder();
    let body = EncodeBody::new_client(encoder, stream::once(async { Ok(text) }), encoding, None);
    body.collect().await.unwrap().to_bytes()
}

/// Like [`of_text`], with a message of this many bytes in total.
async fn of_bytes(bytes: usize, encoding: Option<CompressionEncoding>) -> Bytes {
    let head = 1 + prost::length_delimiter_len(bytes - 5);
    let frame = of_text("x".repeat(bytes - head), encoding).await;
    assert!(encoding.is_some() || frame.len() == 5 + bytes);
    frame
}

/// Builds a frame with these bytes that is marked as compressed.
fn marked(bytes: &[u8]) -> Bytes {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [[1].as_slice(), &length, bytes].concat().into()
}

fn told(status: &Status) -> (Code, String) {
    let details = status.get_error_details();
    (status.code(), details.error_info().unwrap().reason.clone())
}

fn assert_too_large(status: &Status, limit: usize) {
    assert_eq!(told(status), (Code::ResourceExhausted, "MESSAGE_TOO_LARGE".to_owned()));
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().metadata["limit"], limit.to_string());
}

async fn a_too_large_message_leaves_its_connection_usable() {
    let pair = Pair::start().await;
    for (service, method, limit) in [(pair.registry(), GET_MODEL, MIB), (&pair.router, INFER, 4 * MIB)] {
        let caller = Caller::connect(service).await;
        for encoding in [None, Some(ENCODINGS[0]), Some(ENCODINGS[1])] {
            let name = encoding.map(|encoding| encoding.to_string());
            for (bytes, is_taken) in [(limit - 1, true), (limit, true), (limit + 1, false)] {
                let frame = of_bytes(bytes, encoding).await;
                // More often than a connection would survive if each refusal used up its window.
                for _ in 0..3 {
                    let frame = frame.clone();
                    let status = caller.refused(method, name.as_deref(), frame).await.unwrap();
                    if is_taken {
                        assert_eq!(
                            told(&status).0,
                            Code::InvalidArgument,
                            "{name:?}, {bytes}: the message is accepted"
                        );
                    } else {
                        assert_too_large(&status, limit);
                    }
                }
            }
        }
        caller.assert_unharmed();
    }
    pair.finish().await;
}

async fn a_decompression_bomb_costs_little_memory() {
    let pair = Pair::start().await;
    for encoding in ENCODINGS {
        let bomb = of_bytes(BOMB, Some(encoding)).await;
        assert!(bomb.len() < BOMB / 900, "{encoding}: {} bytes", bomb.len());
        for (service, method, limit) in [(pair.registry(), GET_MODEL, MIB), (&pair.router, INFER, 4 * MIB)] {
            let caller = Caller::connect(service).await;
            let before = service.peak_kib();
            for _ in 0..10 {
                let status = caller.refused(method, Some(&encoding.to_string()), bomb.clone()).await;
                assert_too_large(&status.unwrap(), limit);
            }
            let now = service.peak_kib();
            assert!(now < before + BOMB_KIB, "{encoding}: {before} KiB, then {now}");
            caller.assert_unharmed();
        }
    }
    pair.finish().await;
}

/// Returns the full name of every method of the services.
fn methods(files: &[u8]) -> Vec<String> {
    let files = FileDescriptorSet::decode(files).unwrap().file;
    let of_file = |file: prost_types::FileDescriptorProto| {
        let package = file.package().to_owned();
        file.service.into_iter().flat_map(move |service| {
            let service_name = format!("{package}.{}", service.name());
            let methods = service.method.into_iter();
            methods
                .map(|method| format!("{service_name}/{}", method.name()))
                .collect::<Vec<_>>()
        })
    };
    files.into_iter().flat_map(of_file).collect()
}

async fn every_method_accepts_gzip_and_zstd_and_refuses_other_encodings() {
    let pair = Pair::start().await;
    let own = methods(pb::FILE_DESCRIPTOR_SET);
    assert!(own.len() > 20, "{own:?}");
    let others = [
        "grpc.health.v1.Health/Check",
        "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ];
    for method in own.iter().map(String::as_str).chain(others) {
        for service in [pair.registry(), &pair.router] {
            let of_another = match method.split('.').nth(1) {
                Some("registry") => service.listen_addr != pair.registry().listen_addr,
                Some("router") => service.listen_addr != pair.router.listen_addr,
                _ => false,
            };
            if of_another {
                continue;
            }
            let caller = Caller::connect(service).await;
            for encoding in ENCODINGS {
                // A request without any model, feature or rule.
                let frame = of_text(String::new(), Some(encoding)).await;
                if let Some(status) = caller.refused(method, Some(&encoding.to_string()), frame).await {
                    assert_ne!(status.code(), Code::Unimplemented, "{method}, {encoding}: {status:?}");
                    assert_ne!(status.code(), Code::Internal, "{method}, {encoding}: {status:?}");
                }
            }
            for encoding in ["deflate", "made-up"] {
                let status = caller
                    .refused(method, Some(encoding), marked(&[0; 1024]))
                    .await
                    .unwrap();
                let refused = (Code::Unimplemented, "ENCODING_NOT_SUPPORTED".to_owned());
                assert_eq!(told(&status), refused, "{method}, {encoding}");
                let accepted = status.metadata().get("grpc-accept-encoding").unwrap();
                assert_eq!(accepted, "gzip,zstd,identity", "{method}");
            }
            caller.assert_unharmed();
        }
    }
    pair.finish().await;
}

async fn a_compressed_call_is_answered_and_a_damaged_one_affects_no_other_call() {
    let upstream = FakeUpstream::start().await;
    let pair = Pair::start().await;
    let feature = "code_generations";
    pair.configure(&upstream.url(), None).await;
    pair.wait_until_routed(feature).await;
    let caller = Caller::connect(&pair.router).await;
    for encoding in ENCODINGS {
        let name = encoding.to_string();
        let request = InferRequest {
            feature: feature.to_owned(),
            input: Some(Input::Prompt("compressed by the caller".to_owned())),
            ..Default::default()
        };
        let encoder = ProstCodec::<InferRequest, ()>::default().encoder();
        let body = EncodeBody::new_client(encoder, stream::once(async { Ok(request) }), Some(encoding), None);
        let frame = body.collect().await.unwrap().to_bytes();
        assert!(caller.refused(INFER, Some(&name), frame.clone()).await.is_none());
        let asked = upstream.requests().pop().unwrap();
        assert!(asked.body.contains("compressed by the caller"), "{name}");

        let damaged = frame.slice(5..frame.len() / 2);
        let status = caller.refused(INFER, Some(&name), marked(&damaged)).await.unwrap();
        assert_eq!(told(&status), (Code::Internal, "INTERNAL_ERROR".to_owned()), "{name}");
        // A compressed message without the `grpc-encoding` header.
        let status = caller.refused(INFER, None, frame).await.unwrap();
        assert_eq!(told(&status), (Code::Internal, "INTERNAL_ERROR".to_owned()), "{name}");
    }
    caller.assert_unharmed();
    pair.finish().await;
}

tests! {
    a_too_large_message_leaves_its_connection_usable,
    a_decompression_bomb_costs_little_memory,
    every_method_accepts_gzip_and_zstd_and_refuses_other_encodings,
    a_compressed_call_is_answered_and_a_damaged_one_affects_no_other_call,
}
