//! A model never has more concurrent calls than its limit, and every place becomes free again.

use std::time::Duration;

use switchboard::{
    pb::router::{CandidateOutcome, InferRequest},
    resource::model::{Count, Limits, Timeout},
};
use tokio::time::Instant;
use tonic::Code;

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{Setup, limited, prompt},
};

fn one_at_a_time(queue: i32) -> Limits {
    Limits {
        max_concurrency: Count::parse(1).ok(),
        max_queue: Count::parse(queue).ok(),
        queue_timeout: Timeout::parse(Duration::from_millis(300)).ok(),
        ..Limits::default()
    }
}

fn endless() -> Script {
    Script::stream().text("one").hang()
}

#[tokio::test]
async fn a_full_model_fails_a_call_at_once_or_after_the_queue_timeout() {
    for (queue, wait) in [(0, Duration::ZERO), (1, Duration::from_millis(300))] {
        let upstream = FakeUpstream::start().await;
        upstream.then(endless());
        let router = Setup::at(upstream.url())
            .model_limits(one_at_a_time(queue))
            .start()
            .await;
        let running = router.begin().await;
        let begun = Instant::now();
        let told = router.ask(prompt("hi")).await.told();
        assert_eq!(
            (told.code, told.reason.as_str()),
            (Code::Unavailable, "MODEL_OVERLOADED")
        );
        assert!(begun.elapsed() >= wait);
        assert_eq!(told.metadata["limit"], "1");
        assert!(told.retry.is_some());
        assert_eq!(upstream.requests().len(), 1);
        // The caller cancels, and its place is free.
        drop(running);
        upstream.closed(0).await;
        router.settled().await;
        assert_eq!(router.ask(prompt("hi")).await.text, "hello");
    }
}

#[tokio::test]
async fn a_free_place_goes_to_a_waiting_call() {
    let upstream = FakeUpstream::start().await;
    upstream.then(
        Script::stream()
            .text("one")
            .pause(Duration::from_millis(100))
            .finish("stop")
            .done()
            .end(),
    );
    let limits = Limits {
        queue_timeout: None,
        ..one_at_a_time(1)
    };
    let router = Setup::at(upstream.url()).model_limits(limits).start().await;
    let running = router.begin().await;
    assert_eq!(router.ask(prompt("hi")).await.text, "hello");
    drop(running);
}

#[tokio::test]
async fn a_caller_that_does_not_read_holds_no_place() {
    let upstream = FakeUpstream::always(Script::whole("hello")).await;
    let piece = "x".repeat(40_000);
    // More than the transport's window holds, less than the router's buffer.
    upstream.then(Script::answer(std::iter::repeat_n(piece.as_str(), 7)).close());
    let router = Setup::at(upstream.url()).model_limits(one_at_a_time(1)).start().await;
    let mut other = router.client.clone();
    let router = router.narrow().await;
    let running = router.begin().await;
    upstream.closed(0).await;
    assert!(other.infer(prompt("hi")).await.is_ok());
    drop(running);
}

#[tokio::test]
async fn a_full_model_is_passed_over_if_a_fallback_can_answer() {
    let (m, b) = (FakeUpstream::start().await, FakeUpstream::start().await);
    m.then(endless());
    let router = Setup::at(m.url())
        .model_limits(one_at_a_time(0))
        .other("b", b.url())
        .fallbacks(&["b"])
        .start()
        .await;
    let running = router.begin().await;
    let selection = router.ask(prompt("hi")).await.selection.unwrap();
    assert_eq!(selection.model, "models/b");
    assert_eq!(selection.attempt_count, 1, "passing over a model is not an attempt");
    drop(running);
}

#[tokio::test]
async fn a_call_cancelled_while_it_waits_leaves_the_queue() {
    let upstream = FakeUpstream::start().await;
    upstream.then(endless());
    let limits = Limits {
        queue_timeout: None,
        ..one_at_a_time(1)
    };
    let router = Setup::at(upstream.url()).model_limits(limits).start().await;
    let running = router.begin().await;
    let gone = tokio::time::timeout(Duration::from_millis(100), router.ask(prompt("hi"))).await;
    assert!(gone.is_err(), "the call waits in the queue");
    // Both calls are cancelled, which frees the place and the queue.
    drop(running);
    router.settled().await;
    assert_eq!(router.ask(prompt("hi")).await.text, "hello");
    assert_eq!(upstream.requests().len(), 2);
}

#[tokio::test]
async fn the_limits_of_a_model_apply_to_its_calls() {
    let upstream = FakeUpstream::start().await;
    let limits = |change: fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        limits
    };
    let soon = Some(Duration::from_millis(200));
    for (script, limits, reason) in [
        (
            Script::silence(),
            limits(|limits| limits.first_token_timeout = Timeout::parse(Duration::from_millis(200)).ok()),
            "UPSTREAM_FIRST_BYTE_TIMEOUT",
        ),
        (
            endless(),
            limits(|limits| limits.idle_timeout = Timeout::parse(Duration::from_millis(200)).ok()),
            "UPSTREAM_IDLE_TIMEOUT",
        ),
        (
            endless(),
            limits(|limits| limits.total_timeout = Timeout::parse(Duration::from_millis(200)).ok()),
            "DEADLINE_EXCEEDED",
        ),
    ] {
        upstream.then(script);
        let router = Setup::at(upstream.url()).model_limits(limits).start().await;
        let begun = Instant::now();
        assert_eq!(router.ask(prompt("hi")).await.told().reason, reason);
        assert!(Some(begun.elapsed()) >= soon && begun.elapsed() < Duration::from_secs(2));
    }
    let fewer = limits(|limits| limits.max_output_tokens = Count::parse(7).ok());
    let router = Setup::at(upstream.url()).model_limits(fewer).start().await;
    router.ask(prompt("hi")).await;
    let sent = upstream.requests().pop().unwrap().body;
    assert!(sent.contains(r#""max_tokens":7"#), "{sent}");
}

fn of_feature(feature: &str) -> InferRequest {
    InferRequest {
        feature: feature.to_owned(),
        ..prompt("hi")
    }
}

#[tokio::test]
async fn a_feature_at_its_limit_is_refused_until_a_call_has_ended() {
    let upstream = FakeUpstream::start().await;
    upstream.then(endless());
    let router = Setup::at(upstream.url())
        .setting("duo_chat", limited(Some(1), 0))
        .setting("code_generations", limited(None, 0))
        .start()
        .await;
    assert_eq!(router.resolved("duo_chat").await.reason, "");
    // The answer of the call has begun, and the call still counts.
    let running = router.begin().await;
    // A feature that uses its parent's setting counts as the parent.
    for feature in ["duo_chat", "duo_chat_write_tests"] {
        let failures = [
            router.ask(of_feature(feature)).await.told(),
            router.infer(of_feature(feature)).await.unwrap_err(),
        ];
        for told in failures {
            assert_eq!(
                (told.code, told.reason.as_str()),
                (Code::ResourceExhausted, "QUOTA_EXCEEDED")
            );
            assert_eq!(told.metadata["limit"], "1");
            assert_eq!(told.metadata["feature"], format!("features/{feature}"));
            assert!(told.retry.is_some());
        }
        let told = router.resolved(feature).await;
        assert_eq!((told.reason.as_str(), told.selection), ("QUOTA_EXCEEDED", None));
        assert_eq!(told.candidates[0].outcome(), CandidateOutcome::Standby);
    }
    assert_eq!(router.ask(of_feature("code_generations")).await.text, "hello");
    assert_eq!(upstream.requests().len(), 2);
    drop(running);
    router.settled().await;
    assert_eq!(router.ask(prompt("hi")).await.text, "hello");
}

#[tokio::test]
async fn a_feature_with_reserved_places_is_served_while_another_floods_the_model() {
    let upstream = FakeUpstream::start().await;
    upstream.then(endless()).then(endless());
    let limits = Limits {
        max_concurrency: Count::parse(3).ok(),
        max_queue: Count::parse(1).ok(),
        // Longer than the test, so that it would notice a call that waits.
        queue_timeout: Timeout::parse(Duration::from_secs(60)).ok(),
        ..Limits::default()
    };
    let router = Setup::at(upstream.url())
        .model_limits(limits)
        .setting("code_generations", limited(None, 1))
        .start()
        .await;
    // The flooding feature has all places that are not reserved, and the queue.
    let running = [router.begin().await, router.begin().await];
    let mut waiting = std::pin::pin!(router.ask(prompt("hi")));
    let waits = tokio::time::timeout(Duration::from_millis(100), &mut waiting).await;
    assert!(waits.is_err(), "the call waits although a reserved place is free");
    let refused = router.ask(prompt("hi")).await.told();
    assert_eq!(refused.reason, "MODEL_OVERLOADED");
    for feature in ["duo_chat", "code_generations"] {
        let is_full = router.resolved(feature).await.candidates[0].outcome() == CandidateOutcome::Full;
        assert_eq!(is_full, feature == "duo_chat", "{feature}");
    }
    for _ in 0..5 {
        assert_eq!(router.ask(of_feature("code_generations")).await.text, "hello");
    }
    drop(running);
    assert_eq!(waiting.await.text, "hello");
}
