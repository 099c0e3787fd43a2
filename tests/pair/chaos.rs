//! Tests the router against llmock, an independent model server that injects faults and reports how its client handled
//! them.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use prost_types::Duration as Seconds;
use serde_json::{Value, json};
use switchboard::pb::{
    registry::{CreateModelRequest, Endpoint, Model, ModelLimits},
    router::FinishReason,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tonic_types::StatusExt as _;

use crate::{
    harness::{PATIENCE, Pair, infer, reason_of},
    proxy::Proxy,
    runner::Requirement,
};

const LLMOCK: Requirement = Requirement::Program {
    name: "llmock",
    remedy: "pip install llmock==0.2.2",
};
/// The path of requests for answers.
const COMPLETIONS: &str = "/v1/chat/completions";

/// A running llmock, which ends when it is dropped.
struct Llmock {
    child: Child,
    addr: SocketAddr,
}

impl Llmock {
    async fn start(folder: &Path) -> Self {
        // A port that was free a moment ago, because llmock cannot report which port it uses.
        let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let log = fs::File::create(folder.join("llmock.log")).unwrap();
        let child = Command::new(LLMOCK.path())
            // Slow enough to notice a client that stops reading.
            .args([
                "serve",
                "--host",
                "127.0.0.1",
                "--stream-chunk-delay-ms",
                "20",
                "--port",
            ])
            .arg(addr.port().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let server = Self { child, addr };
        let started = Instant::now();
        while TcpStream::connect(addr).await.is_err() {
            assert!(started.elapsed() < PATIENCE, "llmock is not ready");
            sleep(Duration::from_millis(20)).await;
        }
        server
    }

    /// Sends a request to llmock's administration interface and returns the body of the answer.
    async fn ask(&self, method: &str, path: &str, body: &Value) -> String {
        let body = body.to_string();
        let length = body.len();
        let request = format!(
            "{method} /_llmock/{path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer))
            .await
            .unwrap()
            .unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 2"), "{answer}");
        body.to_owned()
    }

    /// Sets the fault for the next request for an answer.
    async fn will(&self, behaviour: Value) {
        let mut behaviour = behaviour;
        behaviour["match"] = json!({"path": COMPLETIONS});
        self.ask("POST", "scenario", &json!({"behaviors": [behaviour]})).await;
    }
}

impl Drop for Llmock {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Registers a model with these servers and assigns it to the feature.
async fn configure(pair: &Pair, feature: &str, servers: &[SocketAddr], limits: ModelLimits) {
    let model = Model {
        display_name: Some(feature.replace('_', " ")),
        family: Some("mistral".to_owned()),
        identifier: Some("chaos".to_owned()),
        endpoints: servers
            .iter()
            .map(|server| Endpoint {
                uri: format!("http://{server}/v1"),
                ..Default::default()
            })
            .collect(),
        limits: Some(limits),
        ..Default::default()
    };
    let request = CreateModelRequest {
        model: Some(model),
        ..Default::default()
    };
    let model = pair.models().create_model(request).await.unwrap().into_inner();
    pair.assign(feature, &model.name).await;
    pair.wait_until_routed(feature).await;
}

/// Makes a call and expects a complete answer.
async fn answered(pair: &Pair, feature: &str) {
    let answer = infer(&mut pair.inference(), feature, feature).await.unwrap();
    assert!(!answer.text.is_empty(), "{feature}");
    assert_eq!(answer.completion.finish_reason(), FinishReason::Stop, "{feature}");
}

/// Each fault has a model of its own, so that it does not affect the counts of another one.
async fn llmock_finds_no_misbehaviour_of_the_router() {
    let pair = Pair::start().await;
    let server = Llmock::start(pair.folder.path()).await;
    let usual = ModelLimits::default();
    let hurried = ModelLimits {
        first_token_timeout: Some(Seconds { seconds: 1, nanos: 0 }),
        ..usual
    };
    // Two addresses of the same server, which the router treats as two servers.
    let other = Proxy::start(server.addr);
    let two = [server.addr, other.addr()];
    let elsewhere = [
        ("code_generations", json!({"type": "fail", "status": 500}), usual),
        (
            "duo_chat",
            json!({"type": "stream_fault", "kind": "disconnect", "after_chunks": 1}),
            usual,
        ),
        (
            "duo_chat_explain_code",
            json!({"type": "slow_first_token", "seconds": 4}),
            hurried,
        ),
    ];
    let told = [
        (
            "code_completions",
            json!({"type": "fail", "status": 503, "retry_after": 1}),
            "UPSTREAM_SERVER_ERROR",
            false,
        ),
        (
            "duo_chat_write_tests",
            json!({"type": "fail", "status": 429, "retry_after": 1}),
            "UPSTREAM_RATE_LIMITED",
            false,
        ),
        (
            "duo_chat_refactor_code",
            json!({"type": "stream_fault", "kind": "truncate", "after_chunks": 3}),
            "UPSTREAM_STREAM_TRUNCATED",
            true,
        ),
        (
            "duo_chat_fix_code",
            json!({"type": "stream_fault", "kind": "disconnect", "after_chunks": 3}),
            "UPSTREAM_STREAM_TRUNCATED",
            true,
        ),
        (
            "duo_agent_platform",
            json!({"type": "stream_fault", "kind": "malformed", "after_chunks": 3}),
            "UPSTREAM_PROTOCOL_ERROR",
            true,
        ),
    ];
    let refused = "duo_agent_platform_agentic_chat";
    for (feature, _, limits) in &elsewhere {
        configure(&pair, feature, &two, *limits).await;
    }
    for (feature, ..) in &told {
        configure(&pair, feature, &[server.addr], usual).await;
    }
    configure(&pair, refused, &two, usual).await;
    server.ask("POST", "reset", &Value::Null).await;

    // Before the first token another server answers, and the caller does not notice the fault.
    for (feature, behaviour, _) in elsewhere {
        server.will(behaviour).await;
        answered(&pair, feature).await;
    }
    // Without another server, or after the first token, the caller gets the failure and repeats the call after the
    // given delay.
    for (feature, behaviour, reason, is_partial) in told {
        server.will(behaviour).await;
        let result = infer(&mut pair.inference(), feature, feature).await;
        assert_eq!(reason_of(&result).as_deref(), Some(reason), "{feature}: {result:?}");
        let details = result.unwrap_err().get_error_details();
        let metadata = &details.error_info().unwrap().metadata;
        assert_eq!(metadata.contains_key("partial"), is_partial, "{feature}");
        let pause = details.retry_info().and_then(|info| info.retry_delay);
        assert_eq!(pause.is_some(), !is_partial, "{feature}");
        sleep(pause.unwrap_or_default()).await;
        answered(&pair, feature).await;
    }
    // A request that would be refused again is not repeated.
    server.will(json!({"type": "fail", "status": 400})).await;
    let result = infer(&mut pair.inference(), refused, refused).await;
    assert_eq!(reason_of(&result).as_deref(), Some("UPSTREAM_REJECTED_REQUEST"));

    let pending: Value = serde_json::from_str(&server.ask("GET", "scenario", &Value::Null).await).unwrap();
    assert_eq!(pending["pending"], json!([]), "each fault was injected");
    let verdict: Value = serde_json::from_str(&server.ask("GET", "verdict", &Value::Null).await).unwrap();
    // llmock takes probes on both addresses for a repeated request, so its findings about probes are ignored.
    let findings = verdict["findings"].as_array().unwrap().iter();
    let of_calls: Vec<&Value> = findings.filter(|finding| finding["path"] != "GET /metrics").collect();
    assert!(of_calls.is_empty(), "{of_calls:#?}");
    assert_eq!(verdict["faults_injected"], 8);
    let requests: Value = serde_json::from_str(&server.ask("GET", "requests", &Value::Null).await).unwrap();
    let requests = requests["requests"].as_array().unwrap().iter();
    let calls = requests.filter(|request| request["path"] == COMPLETIONS).count();
    assert_eq!(calls, 17, "each fault costs one attempt");
    pair.finish().await;
}

tests! {
    llmock_finds_no_misbehaviour_of_the_router needs LLMOCK,
}
