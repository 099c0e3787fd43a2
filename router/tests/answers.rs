//! Answers to calls without faults, and failures that need no model server.

use std::sync::Arc;

use serde_json::{Value, json};
use switchboard::pb::router;
use switchboard_router::{
    call::CallLimits,
    catalog::{CompiledSetting, ModelState},
    current::Current,
};

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{Router, Setup, model_name, prompt},
};

#[tokio::test]
async fn an_answer_has_one_selection_its_text_and_one_completion() {
    let upstream = FakeUpstream::start().await;
    upstream.then(Script::answer(["Hel", "lo ", "wörld 🦀"]));
    let router = Setup::at(upstream.url()).start().await;

    let answer = router.ask(prompt("hi")).await;

    assert_eq!(answer.text, "Hello wörld 🦀");
    assert_eq!(answer.deltas, 3);
    let completion = answer.completion.unwrap();
    assert_eq!(completion.finish_reason(), router::FinishReason::Stop);
    let usage = completion.usage.unwrap();
    assert_eq!((usage.input_tokens, usage.output_tokens), (Some(3), Some(2)));
    let selection = answer.selection.unwrap();
    assert_eq!(selection.feature, "features/duo_chat");
    assert_eq!(selection.source_feature, "features/duo_chat");
    assert_eq!(selection.model, "models/m");
    assert_eq!(selection.family, "mistral");
    assert_eq!(selection.identifier, "org/model");
    assert_eq!(format!("http://{}/v1", selection.endpoint), upstream.url());
    assert_eq!(selection.reason(), router::SelectionReason::Assigned);
    assert_eq!(selection.config_revision, 7);
    let metadata = answer.metadata.unwrap();
    assert_eq!(metadata.get("x-switchboard-model").unwrap(), "models/m");
    assert_eq!(metadata.get("x-switchboard-revision").unwrap(), "7");
    assert_eq!(metadata.get("x-switchboard-reason").unwrap(), "ASSIGNED");

    let received = upstream.request(0).await;
    assert_eq!(received.line, "POST /v1/chat/completions HTTP/1.1");
    assert_eq!(received.headers.get("authorization"), None);
    assert_eq!(received.headers.get("accept-encoding"), None);
    assert_eq!(received.headers["x-request-id"].len(), 32);
    let body: Value = serde_json::from_str(&received.body).unwrap();
    assert_eq!(
        body,
        json!({
            "messages": [{"role": "user", "content": "hi"}],
            "max_tokens": 4096,
            "temperature": 0.0,
            "stream_options": {"include_usage": true},
            "model": "org/model",
            "stream": true,
        })
    );
    router.settled().await;
}

#[tokio::test]
async fn an_unassigned_feature_uses_its_parents_model() {
    let upstream = FakeUpstream::start().await;
    let router = Setup::at(upstream.url()).start().await;
    for name in [
        "duo_chat_explain_code",
        "features/duo_chat_explain_code",
        "explain_code",
    ] {
        let mut request = prompt("hi");
        request.feature = name.to_owned();
        let answer = router.ask(request).await;
        let selection = answer.selection.unwrap();
        assert_eq!(selection.feature, "features/duo_chat_explain_code", "{name}");
        assert_eq!(selection.source_feature, "features/duo_chat", "{name}");
        assert_eq!(selection.reason(), router::SelectionReason::ParentFeature, "{name}");
        let metadata = answer.metadata.unwrap();
        assert_eq!(
            metadata.get("x-switchboard-reason").unwrap(),
            "PARENT_FEATURE",
            "{name}"
        );
    }
}

#[tokio::test]
async fn reasoning_is_separate_from_text() {
    let upstream = FakeUpstream::start().await;
    let thought = r#"{"choices":[{"index":0,"delta":{"reasoning_content":"hm"}}]}"#;
    upstream.then(Script::stream().event(thought).text("yes").finish("stop").end());
    let router = Setup::at(upstream.url()).start().await;
    let answer = router.ask(prompt("hi")).await;
    assert_eq!((answer.reasoning.as_str(), answer.text.as_str()), ("hm", "yes"));
    assert_eq!(
        answer.completion.unwrap().usage,
        None,
        "the router never invents a usage"
    );
}

#[tokio::test]
async fn a_completion_only_family_receives_plain_text_and_refuses_chat() {
    let upstream = FakeUpstream::start().await;
    let chunk = r#"{"choices":[{"index":0,"text":"x = 1","finish_reason":"length"}]}"#;
    upstream.then(Script::stream().event(chunk).done().end());
    let router = Setup::at(upstream.url()).family("starcoder").start().await;
    let answer = router.ask(prompt("def f")).await;
    assert_eq!(answer.text, "x = 1");
    assert_eq!(answer.completion.unwrap().finish_reason(), router::FinishReason::Length);
    let received = upstream.request(0).await;
    assert_eq!(received.line, "POST /v1/completions HTTP/1.1");

    let mut chat = prompt("");
    chat.input = Some(router::infer_request::Input::Chat(router::ChatInput {
        messages: vec![router::Message {
            role: router::Role::User.into(),
            parts: vec![router::Part {
                kind: Some(router::part::Kind::Text("hi".to_owned())),
            }],
        }],
    }));
    let told = router.ask(chat).await.told();
    assert_eq!(
        (told.code, told.reason.as_str()),
        (tonic::Code::FailedPrecondition, "INPUT_NOT_SUPPORTED")
    );
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn an_answer_is_complete_with_a_finish_reason_or_the_end_marker() {
    use router::FinishReason::{Other, Stop};
    let upstream = FakeUpstream::start().await;
    let router = Setup::at(upstream.url()).start().await;
    for (script, finish) in [
        (Script::stream().text("a").done().end(), Other),
        (Script::stream().text("a").finish("stop").end(), Stop),
        (Script::stream().text("a").finish("stop").close(), Stop),
        (Script::stream().text("a").finish("stop").reset(), Stop),
        (
            Script::stream()
                .text("a")
                .finish("stop")
                .chunk(b"data: {\n\n".as_slice())
                .end(),
            Stop,
        ),
        (Script::stream().text("a").finish("stop").hang(), Stop),
        (Script::stream().text("a").finish("unheard-of").done().end(), Other),
        (Script::stream().finish("stop").done().end(), Stop),
        (Script::stream().done().end(), Other),
    ] {
        let shown = format!("{script:?}");
        upstream.then(script);
        let answer = router.ask(prompt("hi")).await;
        assert_eq!(
            answer.completion.map(|completion| completion.finish_reason()),
            Some(finish),
            "{shown}"
        );
    }
}

#[tokio::test]
async fn a_call_of_an_unavailable_feature_fails_with_the_reason() {
    let upstream = FakeUpstream::start().await;
    let code = tonic::Code::FailedPrecondition;
    for (setup, feature, code, reason) in [
        (
            Setup::at(upstream.url()).setting("code_generations", CompiledSetting::Disabled),
            "code_generations",
            code,
            "FEATURE_DISABLED",
        ),
        (
            Setup::at(upstream.url()).setting("code_generations", CompiledSetting::Vendored),
            "generate_code",
            code,
            "FEATURE_VENDORED",
        ),
        (
            Setup::at(upstream.url()),
            "code_generations",
            code,
            "FEATURE_UNASSIGNED",
        ),
        (
            Setup::at(upstream.url()),
            "no_such",
            tonic::Code::NotFound,
            "FEATURE_UNKNOWN",
        ),
        (
            Setup::at(upstream.url()).state(ModelState::Disabled),
            "duo_chat",
            code,
            "MODEL_DISABLED",
        ),
        (
            Setup::at(upstream.url()).state(ModelState::CredentialMissing),
            "duo_chat",
            code,
            "MODEL_CREDENTIAL_MISSING",
        ),
        (
            Setup::at(upstream.url()).state(ModelState::NotReady),
            "duo_chat",
            tonic::Code::Unavailable,
            "MODEL_NOT_READY",
        ),
        (
            Setup::at(upstream.url()).setting("code_generations", model_name().into()),
            "no_such",
            tonic::Code::NotFound,
            "FEATURE_UNKNOWN",
        ),
    ] {
        let router = setup.start().await;
        let mut request = prompt("hi");
        request.feature = feature.to_owned();
        let told = router.ask(request).await.told();
        assert_eq!((told.code, told.reason.as_str()), (code, reason));
        assert_eq!(told.retry.is_some(), code == tonic::Code::Unavailable, "{reason}");
        if reason == "FEATURE_UNKNOWN" {
            assert_eq!(told.metadata["revision"], "7");
        } else {
            assert!(told.metadata.contains_key("feature"), "{reason}");
        }
    }
    assert_eq!(upstream.requests().len(), 0);
}

#[tokio::test]
async fn without_a_configuration_a_call_fails_with_a_retry_delay() {
    let router = Router::start(Arc::new(Current::default()), CallLimits::default()).await;
    let told = router.ask(prompt("hi")).await.told();
    assert_eq!(
        (told.code, told.reason.as_str()),
        (tonic::Code::Unavailable, "CONFIG_NOT_LOADED")
    );
    assert!(told.retry.is_some());
}

#[tokio::test]
async fn all_violations_of_a_request_are_reported_at_once() {
    let upstream = FakeUpstream::start().await;
    let router = Setup::at(upstream.url()).start().await;
    let mut wrong = prompt("");
    wrong.feature = String::new();
    let mut request = tonic::Request::new(wrong);
    request.metadata_mut().insert("grpc-timeout", "soon".parse().unwrap());
    let told = router.ask(request).await.told();
    assert_eq!(
        (told.code, told.reason.as_str()),
        (tonic::Code::InvalidArgument, "VALIDATION_FAILED")
    );
    assert_eq!(told.fields, ["grpc-timeout", "feature", "prompt"]);
    assert_eq!(upstream.requests().len(), 0);
}
