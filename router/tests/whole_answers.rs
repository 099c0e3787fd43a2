//! Unary calls, whose answer comes in one message.

use std::time::Duration;

use serde_json::Value;
use switchboard::{
    pb::router::{self, CandidateOutcome, part::Kind},
    resource::model::{Count, Limits, Timeout},
};
use tokio::time::Instant;
use tonic::Code;

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{Setup, assigned, prompt},
};

#[tokio::test]
async fn a_unary_answer_has_a_selection_a_message_and_a_completion() {
    let upstream = FakeUpstream::always(Script::whole("wörld 🦀")).await;
    let router = Setup::at(upstream.url()).start().await;
    let response = router.infer(prompt("hi")).await.unwrap();
    assert_eq!(response.metadata().get("x-switchboard-model").unwrap(), "models/m");
    let answer = response.into_inner();
    assert_eq!(answer.selection.unwrap().model, "models/m");
    let message = answer.message.unwrap();
    assert_eq!(message.role(), router::Role::Assistant);
    let kinds: Vec<Option<Kind>> = message.parts.into_iter().map(|part| part.kind).collect();
    assert_eq!(kinds, [Some(Kind::Text("wörld 🦀".to_owned()))]);
    let completion = answer.completion.unwrap();
    assert_eq!(completion.finish_reason(), router::FinishReason::Stop);
    assert_eq!(completion.usage.unwrap().output_tokens, Some(2));

    let received = upstream.request(0).await;
    assert_eq!(received.headers["accept"], "application/json");
    let body: Value = serde_json::from_str(&received.body).unwrap();
    assert_eq!(body["stream"], false);
    assert_eq!(body.get("stream_options"), None);
    router.settled().await;
}

#[tokio::test]
async fn the_message_of_an_answer_can_be_appended_to_the_chat() {
    let upstream = FakeUpstream::always(Script::whole("done")).await;
    let call = r#"{"choices":[{"message":{"content":null,"reasoning_content":"hm","tool_calls":[{"id":"c1","function":{"name":"add","arguments":"{"}}]},"finish_reason":"tool_calls"}]}"#;
    let nothing = r#"{"choices":[{"message":{"content":null},"finish_reason":"stop"}]}"#;
    upstream.then(Script::json(call)).then(Script::json(nothing));
    let router = Setup::at(upstream.url()).start().await;
    let mut messages = vec![said(router::Role::User, Kind::Text("hi".to_owned()))];
    for number in 0..3 {
        let mut request = prompt("");
        let chat = router::ChatInput {
            messages: messages.clone(),
        };
        request.input = Some(router::infer_request::Input::Chat(chat));
        let answer = router.infer(request).await.unwrap().into_inner();
        messages.extend(answer.message);
        if number == 0 {
            let result = router::ToolResult {
                tool_call_id: "c1".to_owned(),
                content: "3".to_owned(),
                is_error: false,
            };
            messages.push(said(router::Role::Tool, Kind::ToolResult(result)));
        }
    }
    assert_eq!(messages[1].parts.len(), 2, "the message has reasoning and a tool call");
    let last: Value = serde_json::from_str(&upstream.request(2).await.body).unwrap();
    assert_eq!(last["messages"][1]["tool_calls"][0]["function"]["arguments"], "{");
    assert_eq!(last["messages"][2]["tool_call_id"], "c1");
    assert_eq!(last["messages"][3]["content"], "");
}

fn said(role: router::Role, kind: Kind) -> router::Message {
    router::Message {
        role: role.into(),
        parts: vec![router::Part { kind: Some(kind) }],
    }
}

#[tokio::test]
async fn an_incomplete_or_invalid_body_is_a_failure() {
    let json = &[("content-type", "application/json"), ("content-length", "100")];
    let large = format!(r#"{{"x":"{}"}}"#, "x".repeat(4 * 1024 * 1024));
    for (name, script, code, reason) in [
        (
            "a cut body",
            Script::head(200, json)
                .raw(r#"{"choices":[{"message":{"content":"a"}}]}"#)
                .close(),
            Code::Unavailable,
            "UPSTREAM_STREAM_TRUNCATED",
        ),
        (
            "a large body",
            Script::json(&large),
            Code::Internal,
            "UPSTREAM_RESPONSE_TOO_LARGE",
        ),
        (
            "truncated JSON",
            Script::json(r#"{"choices":["#),
            Code::Internal,
            "UPSTREAM_PROTOCOL_ERROR",
        ),
        (
            "no choice",
            Script::json(r#"{"choices":[]}"#),
            Code::Internal,
            "UPSTREAM_PROTOCOL_ERROR",
        ),
        (
            "an error in a 200",
            Script::json(r#"{"error":{"code":503}}"#),
            Code::Unavailable,
            "UPSTREAM_SERVER_ERROR",
        ),
        (
            "a stream",
            Script::answer(["hello"]),
            Code::FailedPrecondition,
            "UPSTREAM_UNEXPECTED_CONTENT_TYPE",
        ),
        (
            "401",
            Script::response(401, &[], ""),
            Code::FailedPrecondition,
            "UPSTREAM_CREDENTIAL_REJECTED",
        ),
    ] {
        let upstream = FakeUpstream::start().await;
        upstream.then(script);
        let router = Setup::at(upstream.url()).start().await;
        let told = router.infer(prompt("hi")).await.unwrap_err();
        assert_eq!((told.code, told.reason.as_str()), (code, reason), "{name}");
        assert_eq!(told.metadata["model"], "models/m", "{name}");
        assert!(!told.metadata.contains_key("partial"), "{name}");
    }
}

#[tokio::test]
async fn only_the_total_timeout_applies() {
    let upstream = FakeUpstream::start().await;
    upstream
        .then(
            Script::default()
                .pause(Duration::from_millis(200))
                .raw("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"),
        )
        .then(Script::silence());
    let router = Setup::at(upstream.url())
        .limits(|limits| {
            limits.first_token = Duration::from_millis(50);
            limits.patience.idle = Duration::from_millis(50);
            limits.total = Duration::from_millis(1000);
        })
        .start()
        .await;
    let told = router.infer(prompt("hi")).await.unwrap_err();
    assert_eq!(told.reason, "UPSTREAM_PROTOCOL_ERROR", "a slow answer is still read");
    let told = router.infer(prompt("hi")).await.unwrap_err();
    assert_eq!(
        (told.code, told.reason.as_str()),
        (Code::DeadlineExceeded, "DEADLINE_EXCEEDED")
    );
    let connection = upstream.request(1).await.connection;
    upstream.closed(connection).await;
}

#[tokio::test]
async fn a_cancellation_closes_the_connection_to_the_model() {
    let upstream = FakeUpstream::start().await;
    upstream.then(Script::silence());
    let router = Setup::at(upstream.url()).start().await;
    tokio::select! {
        _ = router.infer(prompt("hi")) => panic!("the call must not be answered"),
        _ = upstream.request(0) => {}
    }
    let gone = Instant::now();
    upstream.closed(0).await;
    assert!(gone.elapsed() < Duration::from_millis(100), "{:?}", gone.elapsed());
    router.settled().await;
}

#[tokio::test]
async fn a_call_ends_when_the_router_shuts_down() {
    let upstream = FakeUpstream::start().await;
    upstream.then(Script::silence());
    let router = Setup::at(upstream.url()).start().await;
    let drained = async {
        upstream.request(0).await;
        router.drain.cancel();
    };
    let (told, ()) = tokio::join!(router.infer(prompt("hi")), drained);
    assert_eq!(told.unwrap_err().reason, "SERVER_DRAINING");
}

#[tokio::test]
async fn a_fallback_answers_after_a_failure_and_the_selection_reports_it() {
    let failing = || Script::response(500, &[], "");
    let (m, b) = (FakeUpstream::always(failing()).await, FakeUpstream::start().await);
    b.then(Script::whole("hello")).then(failing());
    let setting = assigned(&[("beta-group", "42", "m")], &["b"]);
    let router = Setup::at(m.url())
        .other("b", b.url())
        .setting("duo_chat", setting)
        .start()
        .await;
    let mut request = tonic::Request::new(prompt("hi"));
    let metadata = request.metadata_mut();
    metadata.insert("x-gitlab-namespace-id", "42".parse().unwrap());
    let response = router.infer(request).await.unwrap();
    assert_eq!(response.metadata().get("x-switchboard-reason").unwrap(), "FAILOVER");
    let selection = response.into_inner().selection.unwrap();
    assert_eq!(selection.model, "models/b");
    assert_eq!(selection.reason(), router::SelectionReason::Failover);
    assert_eq!(selection.rule, "beta-group");
    assert_eq!(selection.attempt_count, 2);

    let told = router.infer(prompt("hi")).await.unwrap_err();
    assert_eq!(told.reason, "UPSTREAM_SERVER_ERROR");
    assert_eq!(told.metadata["attempts"], "2");
    let failed = ["models/m", "models/b"].map(|model| (model.to_owned(), CandidateOutcome::Failed));
    assert_eq!(told.candidates, failed);
}

#[tokio::test]
async fn a_slow_server_is_waited_for_until_the_total_timeout() {
    let (m, b) = (FakeUpstream::start().await, FakeUpstream::start().await);
    m.then(Script::silence());
    let limits = Limits {
        first_token_timeout: Timeout::parse(Duration::from_millis(50)).ok(),
        idle_timeout: Timeout::parse(Duration::from_millis(50)).ok(),
        total_timeout: Timeout::parse(Duration::from_millis(400)).ok(),
        ..Limits::default()
    };
    let router = Setup::at(m.url())
        .model_limits(limits)
        .other("b", b.url())
        .fallbacks(&["b"])
        .start()
        .await;
    let begun = Instant::now();
    let told = router.infer(prompt("hi")).await.unwrap_err();
    assert_eq!(told.reason, "DEADLINE_EXCEEDED");
    assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
    assert_eq!(b.requests().len(), 0);
}

#[tokio::test]
async fn a_unary_call_takes_a_place_and_returns_it() {
    let upstream = FakeUpstream::always(Script::whole("hello")).await;
    upstream.then(Script::silence());
    let limits = Limits {
        max_concurrency: Count::parse(1).ok(),
        max_queue: Count::parse(0).ok(),
        ..Limits::default()
    };
    let router = Setup::at(upstream.url()).model_limits(limits).start().await;
    tokio::select! {
        _ = router.infer(prompt("hi")) => panic!("the call must not be answered"),
        () = async {
            upstream.request(0).await;
            let told = router.infer(prompt("hi")).await.unwrap_err();
            assert_eq!(told.reason, "MODEL_OVERLOADED");
            assert_eq!(told.candidates, [("models/m".to_owned(), CandidateOutcome::Full)]);
        } => {}
    }
    router.settled().await;
    for _ in 0..2 {
        assert!(router.infer(prompt("hi")).await.is_ok());
    }
}
