//! The request to the model for each kind of input, and the tool calls in its answer.

use serde_json::{Value, json};
use switchboard::{
    pb::router::{self, infer_request::Input},
    resource::model::InfillMode,
};
use switchboard_router::catalog::CompiledSetting;
use tonic::Code;

use crate::{
    fake_upstream::{FakeUpstream, Received, Script},
    harness::{Setup, model_name, prompt},
};

fn infill() -> router::InferRequest {
    router::InferRequest {
        feature: "code_completions".to_owned(),
        input: Some(Input::Infill(router::InfillInput {
            prefix: "def f(".to_owned(),
            suffix: "end".to_owned(),
            language: "ruby".to_owned(),
            ..Default::default()
        })),
        ..Default::default()
    }
}

fn completing(upstream: &FakeUpstream, family: &'static str) -> Setup {
    let on = || CompiledSetting::from(model_name());
    Setup::at(upstream.url())
        .family(family)
        .setting("code_completions", on())
        .setting("code_generations", on())
}

fn posted(received: &Received) -> Value {
    serde_json::from_str(&received.body).unwrap_or_default()
}

fn with_tool(mut request: router::InferRequest) -> router::InferRequest {
    request.tools = vec![router::Tool {
        name: "add".to_owned(),
        parameters_json: r#"{"type":"object"}"#.to_owned(),
        ..Default::default()
    }];
    request
}

#[tokio::test]
async fn infill_uses_the_familys_tokens() {
    let upstream = FakeUpstream::start().await;
    let chunk = r#"{"choices":[{"index":0,"text":"x)","finish_reason":"stop"}]}"#;
    upstream.then(Script::stream().event(chunk).done().end());
    let router = completing(&upstream, "starcoder").start().await;
    assert_eq!(router.ask(infill()).await.text, "x)");
    let received = upstream.request(0).await;
    assert_eq!(received.line, "POST /v1/completions HTTP/1.1");
    assert_eq!(
        posted(&received),
        json!({
            "prompt": "<fim_prefix>def f(<fim_suffix>end<fim_middle>",
            "max_tokens": 64,
            "temperature": 0.2,
            "stop": ["<file_sep>", "<fim_prefix>", "<|endoftext|>"],
            "model": "org/model",
            "stream": true,
            "stream_options": {"include_usage": true},
        })
    );
}

#[tokio::test]
async fn the_models_infill_mode_overrides_its_familys() {
    let upstream = FakeUpstream::start().await;
    let router = completing(&upstream, "qwen")
        .infill_mode(InfillMode::Suffix)
        .start()
        .await;
    router.ask(infill()).await;
    let body = posted(&upstream.request(0).await);
    assert_eq!((&body["prompt"], &body["suffix"]), (&json!("def f("), &json!("end")));

    let router = completing(&upstream, "qwen")
        .infill_mode(InfillMode::Chat)
        .start()
        .await;
    router.ask(infill()).await;
    assert_eq!(upstream.request(1).await.line, "POST /v1/chat/completions HTTP/1.1");
}

#[tokio::test]
async fn code_generations_have_their_own_defaults() {
    let upstream = FakeUpstream::start().await;
    let router = completing(&upstream, "codellama").start().await;
    let mut request = prompt("write f");
    request.feature = "code_generations".to_owned();
    router.ask(request).await;
    let body = posted(&upstream.request(0).await);
    assert_eq!((&body["temperature"], &body["max_tokens"]), (&json!(0.95), &json!(256)));
}

#[tokio::test]
async fn a_tool_call_streams_in_pieces_byte_for_byte() {
    let upstream = FakeUpstream::start().await;
    let call = |call: &str| format!(r#"{{"choices":[{{"index":0,"delta":{{"tool_calls":[{call}]}}}}]}}"#);
    upstream.then(
        Script::stream()
            .event(&call(
                r#"{"index":0,"id":"c1","function":{"name":"add","arguments":""}}"#,
            ))
            .event(&call(r#"{"index":0,"function":{"arguments":"{\"a\":"}}"#))
            .event(&call(r#"{"index":0,"function":{"arguments":" 1"}}"#))
            .finish("tool_calls")
            .done()
            .end(),
    );
    let router = Setup::at(upstream.url()).start().await;
    let mut request = with_tool(prompt("1 + 1?"));
    request.tool_choice = Some(router::ToolChoice {
        mode: router::ToolMode::Required.into(),
        ..Default::default()
    });
    let answer = router.ask(request).await;
    let pieces: Vec<_> = answer
        .calls
        .iter()
        .map(|call| {
            (
                call.index,
                call.id.as_str(),
                call.name.as_str(),
                call.arguments_json.as_str(),
            )
        })
        .collect();
    assert_eq!(
        pieces,
        [(0, "c1", "add", ""), (0, "", "", "{\"a\":"), (0, "", "", " 1")]
    );
    let completion = answer.completion.unwrap();
    assert_eq!(completion.finish_reason(), router::FinishReason::ToolCalls);
    let body = posted(&upstream.request(0).await);
    assert_eq!(body["tool_choice"], "required");
    assert_eq!(body["tools"][0]["function"]["name"], "add");
}

#[tokio::test]
async fn input_that_a_model_does_not_support_is_refused_before_the_call() {
    let upstream = FakeUpstream::start().await;
    let with_format = |mut request: router::InferRequest| {
        request.response_format = Some(router::ResponseFormat {
            kind: router::ResponseFormatKind::JsonObject.into(),
            ..Default::default()
        });
        request
    };
    let mut by_instruction = infill();
    if let Some(Input::Infill(infill)) = &mut by_instruction.input {
        infill.instruction = "write f".to_owned();
    }
    let no_tokens = completing(&upstream, "gpt").infill_mode(InfillMode::Completions);
    for (setup, request) in [
        (completing(&upstream, "qwen"), with_tool(infill())),
        (completing(&upstream, "qwen"), with_format(infill())),
        (completing(&upstream, "starcoder"), by_instruction),
        (no_tokens, infill()),
    ] {
        let told = setup.start().await.ask(request).await.told();
        assert_eq!(
            (told.code, told.reason.as_str()),
            (Code::FailedPrecondition, "INPUT_NOT_SUPPORTED")
        );
    }
    assert_eq!(upstream.requests().len(), 0);
}

#[tokio::test]
async fn a_server_that_refuses_stream_options_does_not_get_them_again() {
    let upstream = FakeUpstream::start().await;
    let refusal = |word: &str| {
        let body = format!(r#"{{"error":{{"message":"unknown field {word}"}}}}"#);
        Script::response(400, &[("content-type", "application/json")], &body)
    };
    let router = Setup::at(upstream.url()).start().await;
    // A repeat that does not help is not remembered, because a refusal may quote any text of the caller.
    upstream.then(refusal("stream_options")).then(refusal("stream_options"));
    let told = router.ask(prompt("stream_options")).await.told();
    assert_eq!(told.reason, "UPSTREAM_REJECTED_REQUEST");

    upstream.then(refusal("stream_options"));
    for _ in 0..2 {
        assert_eq!(router.ask(prompt("hi")).await.text, "hello");
    }
    let asked: Vec<bool> = upstream
        .requests()
        .iter()
        .map(|request| posted(request).get("stream_options").is_some())
        .collect();
    assert_eq!(asked, [true, false, true, false, false]);
}
