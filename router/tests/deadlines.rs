//! The caller's deadline limits the whole stream, whether or not the caller reads it.

use std::{convert::Infallible, time::Duration};

use switchboard::{
    pb::router::{self, stream_infer_response::Event},
    service::deadline::less_margin,
};
use tokio::time::{Instant, sleep, sleep_until};
use tonic::metadata::MetadataValue;

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{Setup, Told, event, prompt},
    peer::{Method, Peer},
};

/// Builds a call with a `grpc-timeout`. The client has a timer of its own that limits the time until an answer begins.
#[expect(clippy::expect_used, reason = "a helper of tests fails by panicking")]
fn within(milliseconds: u32) -> tonic::Request<router::InferRequest> {
    let mut request = tonic::Request::new(prompt("hi"));
    let value = MetadataValue::try_from(format!("{milliseconds}m"));
    request
        .metadata_mut()
        .insert("grpc-timeout", value.expect("a number is ASCII"));
    request
}

/// Measures the longest time for which the machine did not run this task, from `begin` until the future is dropped. It
/// never ends by itself.
async fn standstill(begin: Instant, longest: &mut Duration) -> Infallible {
    const LOOK: Duration = Duration::from_millis(2);
    sleep_until(begin).await;
    let mut last = Instant::now();
    *longest = last - begin;
    loop {
        sleep(LOOK).await;
        *longest = (*longest).max(last.elapsed().saturating_sub(LOOK));
        last = Instant::now();
    }
}

#[tokio::test]
async fn a_deadline_before_the_first_token_fails_the_call_in_time() {
    const TIMEOUT: Duration = Duration::from_secs(2);
    let upstream = FakeUpstream::always(Script::silence()).await;
    let router = Setup::at(upstream.url()).start().await;
    // A caller without a timer of its own, so that every failure comes from the router.
    let peer = Peer::connect(router.address).await;
    for connection in 0..10 {
        let begun = Instant::now();
        let call = peer
            .call_with(&[("grpc-timeout", "2S")], Method::StreamInfer, &prompt("hi"))
            .await;
        let mut stood_still = Duration::ZERO;
        let (status, took) = tokio::select! {
            status = call.refused() => (status, begun.elapsed()),
            never = standstill(begun + less_margin(TIMEOUT), &mut stood_still) => match never {},
        };
        upstream.closed(connection).await;
        // The router could not have answered in time, and the transport's own timer in the router may have fired first.
        if stood_still > (TIMEOUT - less_margin(TIMEOUT)) / 4 {
            continue;
        }
        assert!((less_margin(TIMEOUT)..TIMEOUT).contains(&took), "{took:?}");
        let told = Told::of(&status);
        assert_eq!(
            (told.code, told.reason.as_str()),
            (tonic::Code::DeadlineExceeded, "DEADLINE_EXCEEDED")
        );
        assert_eq!(told.metadata["stage"], "first_token");
        assert!(!told.metadata.contains_key("partial"));
        return;
    }
    panic!("the machine paused the test in every round");
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
async fn a_deadline_frees_the_model_even_if_the_caller_does_not_read() {
    let piece = format!(r#"{{"choices":[{{"delta":{{"content":"{}"}}}}]}}"#, "x".repeat(8000));
    let upstream = FakeUpstream::start().await;
    upstream.then(Script::stream().flood(format!("data: {piece}\n\n")));
    let router = Setup::at(upstream.url()).start().await;
    let mut client = router.client.clone();
    let mut stream = client.stream_infer(within(500)).await.unwrap().into_inner();
    upstream.closed(0).await;
    let status = loop {
        match stream.message().await {
            Ok(message) => assert!(message.is_some(), "the stream must end with a failure"),
            Err(status) => break status,
        }
    };
    assert_eq!(Told::of(&status).reason, "DEADLINE_EXCEEDED");
}

#[tokio::test]
async fn a_call_with_too_short_a_deadline_is_refused() {
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
async fn a_call_without_a_deadline_gets_the_routers_own() {
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
async fn a_deadline_does_not_fail_a_complete_answer() {
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
