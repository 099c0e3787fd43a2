//! The caller's deadline bounds the whole stream, read or not.

use std::time::Duration;

use switchboard::pb::router::{self, stream_infer_response::Event};
use tokio::time::Instant;
use tonic::metadata::MetadataValue;

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{Setup, Told, event, prompt},
};

/// A call with a `grpc-timeout`, written by hand: with the client's own setter the client would end the call itself.
#[expect(clippy::expect_used, reason = "a helper of tests fails by panicking")]
fn within(milliseconds: u32) -> tonic::Request<router::InferRequest> {
    let mut request = tonic::Request::new(prompt("hi"));
    let value = MetadataValue::try_from(format!("{milliseconds}m"));
    request
        .metadata_mut()
        .insert("grpc-timeout", value.expect("a number is ASCII"));
    request
}

#[tokio::test]
async fn a_deadline_that_passes_before_the_first_token_is_told_in_time() {
    let upstream = FakeUpstream::start().await;
    upstream.then(Script::silence());
    let router = Setup::at(upstream.url()).start().await;
    let begun = Instant::now();
    let told = router.ask(within(2000)).await.told();
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(
        (told.code, told.reason.as_str()),
        (tonic::Code::DeadlineExceeded, "DEADLINE_EXCEEDED")
    );
    assert_eq!(told.metadata["stage"], "first_token");
    assert!(!told.metadata.contains_key("partial"));
    upstream.closed(0).await;
}

#[tokio::test]
async fn a_deadline_ends_a_stream_that_has_begun() {
    let upstream = FakeUpstream::start().await;
    let dripping = (0..100).fold(Script::stream(), |script, _| {
        script.text("x").pause(Duration::from_millis(50))
    });
    upstream.then(dripping);
    let router = Setup::at(upstream.url()).start().await;
    let begun = Instant::now();
    let answer = router.ask(within(500)).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    let told = answer.told();
    assert_eq!(told.reason, "DEADLINE_EXCEEDED");
    assert_eq!(told.metadata["stage"], "stream");
    assert_eq!(told.metadata["partial"], "true");
    assert_eq!(told.metadata["tokens_sent"], answer.deltas.to_string());
    upstream.closed(0).await;
}

#[tokio::test]
async fn a_deadline_frees_the_model_though_the_caller_does_not_read() {
    let piece = format!(r#"{{"choices":[{{"delta":{{"content":"{}"}}}}]}}"#, "x".repeat(8000));
    let upstream = FakeUpstream::start().await;
    upstream.then(Script::stream().flood(format!("data: {piece}\n\n")));
    let router = Setup::at(upstream.url()).start().await;
    let mut client = router.client.clone();
    let mut stream = client.stream_infer(within(500)).await.unwrap().into_inner();
    upstream.closed(0).await;
    let status = loop {
        match stream.message().await {
            Ok(message) => assert!(message.is_some(), "it does not end well"),
            Err(status) => break status,
        }
    };
    assert_eq!(Told::of(&status).reason, "DEADLINE_EXCEEDED");
}

#[tokio::test]
async fn a_call_with_too_little_time_is_not_begun() {
    let upstream = FakeUpstream::start().await;
    let router = Setup::at(upstream.url()).start().await;
    let told = router.ask(within(100)).await.told();
    assert_eq!(
        (told.code, told.reason.as_str()),
        (tonic::Code::DeadlineExceeded, "DEADLINE_BUDGET_TOO_SMALL")
    );
    assert_eq!(upstream.requests().len(), 0);
}

#[tokio::test]
async fn a_call_without_a_deadline_has_the_routers_own() {
    let upstream = FakeUpstream::start().await;
    upstream.then(Script::stream().text("one").hang());
    let router = Setup::at(upstream.url())
        .limits(|limits| limits.total = Duration::from_millis(200))
        .start()
        .await;
    let mut stream = router.begin().await;
    let status = stream.message().await.unwrap_err();
    assert_eq!(Told::of(&status).reason, "DEADLINE_EXCEEDED");
}

#[tokio::test]
async fn an_answer_that_is_complete_is_not_spoilt_by_its_deadline() {
    let upstream = FakeUpstream::start().await;
    upstream.then(Script::stream().text("one").finish("stop").hang());
    let router = Setup::at(upstream.url())
        .limits(|limits| {
            limits.total = Duration::from_millis(200);
            limits.patience.finish = Duration::from_secs(60);
        })
        .start()
        .await;
    let mut stream = router.begin().await;
    let last = event(&mut stream).await;
    assert!(matches!(last, Event::Completion(_)));
}
