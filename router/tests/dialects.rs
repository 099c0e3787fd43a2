//! Calls to servers that do not speak the default dialect.

use std::time::Duration;

use serde_json::{Value, json};
use switchboard::{
    pb::router::{self, FinishReason, infer_request::Input, part},
    resource::model::{ApiVersion, InfillMode, Platform},
};
use switchboard_router::catalog::CompiledSetting;
use tonic::Code;

use crate::{
    fake_upstream::{FakeUpstream, Received, Script},
    harness::{Setup, TOKEN, model_name, prompt},
};

const THINKING: &str = include_str!("../src/upstream/dialect/recorded/anthropic_thinking.sse");

fn anthropic(upstream: &FakeUpstream) -> Setup {
    Setup::at(upstream.url())
        .family("claude_3")
        .platform(Platform::Anthropic, "claude-x")
        .token_for(&[&upstream.url()])
}

#[expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking")]
fn azure(upstream: &FakeUpstream) -> Setup {
    let api_version = ApiVersion::parse("2024-10-21").unwrap().unwrap();
    Setup::at(upstream.url())
        .family("gpt")
        .platform(Platform::AzureOpenAi { api_version }, "my deployment")
        .token_for(&[&upstream.url()])
}

fn posted(received: &Received) -> Value {
    serde_json::from_str(&received.body).unwrap_or_default()
}

fn assistant(parts: Vec<part::Kind>) -> router::Message {
    router::Message {
        role: router::Role::Assistant.into(),
        parts: parts
            .into_iter()
            .map(|kind| router::Part { kind: Some(kind) })
            .collect(),
    }
}

#[tokio::test]
async fn azure_is_called_by_deployment_and_with_its_own_header() {
    let upstream = FakeUpstream::start().await;
    let router = azure(&upstream).start().await;
    assert_eq!(router.ask(prompt("hi")).await.text, "hello");
    let received = upstream.request(0).await;
    assert_eq!(
        received.line,
        "POST /openai/deployments/my%20deployment/chat/completions?api-version=2024-10-21 HTTP/1.1"
    );
    assert_eq!(received.headers.get("api-key").map(String::as_str), Some(TOKEN));
    assert!(!received.headers.contains_key("authorization"));
    assert_eq!(posted(&received)["stream_options"], json!({"include_usage": true}));
}

#[tokio::test]
async fn anthropic_gets_its_own_headers_and_its_reasoning_is_relayed_with_signatures() {
    let upstream = FakeUpstream::start().await;
    upstream.then(Script::stream().chunk(THINKING).end());
    let router = anthropic(&upstream).start().await;
    let answer = router.ask(prompt("hi")).await;
    assert_eq!((answer.reasoning.as_str(), answer.text.as_str()), ("let me see", "yes"));
    assert_eq!(answer.signatures, [b"EqQBCg==".to_vec(), b"redacted:Zm9v".to_vec()]);
    let completion = answer.completion.unwrap();
    assert_eq!(completion.finish_reason(), FinishReason::Length);
    assert_eq!(completion.usage.unwrap().output_tokens, Some(20));
    let received = upstream.request(0).await;
    assert_eq!(received.line, "POST /v1/messages HTTP/1.1");
    for (name, value) in [("x-api-key", TOKEN), ("anthropic-version", "2023-06-01")] {
        assert_eq!(received.headers.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(!received.headers.contains_key("authorization"));
    assert_eq!(
        posted(&received),
        json!({
            "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
            "max_tokens": 4096,
            "model": "claude-x",
            "stream": true,
        })
    );
}

#[tokio::test]
async fn the_reasoning_of_a_unary_answer_can_be_appended_to_the_chat() {
    let upstream = FakeUpstream::start().await;
    let body = json!({
        "type": "message",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": "sig"},
            {"type": "tool_use", "id": "c1", "name": "add", "input": {"x": 1}},
        ],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 3, "output_tokens": 2},
    });
    upstream.then(Script::json(&body.to_string()));
    upstream.then(Script::json(&body.to_string()));
    let router = anthropic(&upstream).start().await;
    let message = router.infer(prompt("hi")).await.unwrap().into_inner().message.unwrap();
    let thought = part::Kind::Reasoning(router::Reasoning {
        text: "hm".to_owned(),
        signature: b"sig".to_vec(),
    });
    let call = part::Kind::ToolCall(router::ToolCall {
        id: "c1".to_owned(),
        name: "add".to_owned(),
        arguments_json: r#"{"x":1}"#.to_owned(),
    });
    assert_eq!(message, assistant(vec![thought, call]));
    let mut next = prompt("");
    next.input = Some(Input::Chat(router::ChatInput {
        messages: vec![message],
    }));
    router.infer(next).await.unwrap();
    let received = upstream.request(1).await;
    assert_eq!(posted(&received)["messages"][0]["content"], body["content"]);
}

#[tokio::test]
async fn an_overloaded_server_is_recognized_by_its_status_or_a_stream_error() {
    let overloaded = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    let json = ("content-type", "application/json");
    for (script, retry) in [
        (
            Script::response(529, &[json, ("retry-after", "7")], overloaded),
            Some(Duration::from_secs(7)),
        ),
        (Script::response(529, &[json], overloaded), None),
        (Script::stream().event(overloaded).end(), None),
    ] {
        // Each script has a server of its own, because the first server asks for a pause.
        let upstream = FakeUpstream::always(script).await;
        let router = anthropic(&upstream).start().await;
        let told = router.ask(prompt("hi")).await.told();
        assert_eq!(
            (told.code, told.reason.as_str()),
            (Code::Unavailable, "UPSTREAM_SERVER_ERROR")
        );
        assert_eq!(told.metadata.get("upstream_status").map(String::as_str), Some("529"));
        assert!(retry.is_none_or(|retry| told.retry == Some(retry)), "{:?}", told.retry);
    }
}

#[tokio::test]
async fn a_ping_does_not_count_as_a_token() {
    let upstream = FakeUpstream::start().await;
    let ping = r#"{"type":"ping"}"#;
    upstream.then(Script::stream().event(ping).hang());
    let router = anthropic(&upstream)
        .limits(|limits| limits.first_token = Duration::from_millis(200))
        .start()
        .await;
    let told = router.ask(prompt("hi")).await.told();
    assert_eq!(told.reason, "UPSTREAM_FIRST_BYTE_TIMEOUT");
}

#[tokio::test]
async fn a_prompt_that_is_too_long_for_anthropic_exceeds_the_context_length() {
    let upstream = FakeUpstream::start().await;
    let body = r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 9 tokens > 8 maximum"}}"#;
    upstream.then(Script::response(400, &[("content-type", "application/json")], body));
    let router = anthropic(&upstream).start().await;
    let told = router.ask(prompt("hi")).await.told();
    assert_eq!(
        (told.code, told.reason.as_str()),
        (Code::InvalidArgument, "CONTEXT_LENGTH_EXCEEDED")
    );
    assert_eq!(told.fields, ["prompt"]);
}

#[tokio::test]
async fn input_that_a_platform_does_not_support_is_refused_before_the_call() {
    let upstream = FakeUpstream::start().await;
    let mut formatted = prompt("hi");
    formatted.response_format = Some(router::ResponseFormat {
        kind: router::ResponseFormatKind::JsonObject.into(),
        ..Default::default()
    });
    let mut infill = prompt("");
    infill.feature = "code_completions".to_owned();
    infill.input = Some(Input::Infill(router::InfillInput {
        prefix: "def f(".to_owned(),
        ..Default::default()
    }));
    let suffix = |setup: Setup| {
        let on = CompiledSetting::from(model_name());
        setup.infill_mode(InfillMode::Suffix).setting("code_completions", on)
    };
    for (setup, request) in [
        (anthropic(&upstream), formatted),
        (suffix(anthropic(&upstream)), infill.clone()),
        (suffix(azure(&upstream)), infill),
    ] {
        let told = setup.start().await.ask(request).await.told();
        assert_eq!(
            (told.code, told.reason.as_str()),
            (Code::FailedPrecondition, "INPUT_NOT_SUPPORTED")
        );
    }
    assert!(upstream.requests().is_empty());
}
