//! A refused credential: the router waits for a newer one, and without one it does not call the model for a while.

use std::time::Duration;

use switchboard::pb::router::{CandidateOutcome, InferRequest, SelectionReason};
use switchboard_router::endpoints::Health;
use tokio::time::Instant;
use tonic::Code;

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{Setup, TOKEN, named, prompt},
};

const NEWER: &str = "sk-canary-newer";

fn refused() -> Script {
    Script::response(401, &[], "")
}

fn setup(upstream: &FakeUpstream, token: &'static str) -> Setup {
    Setup::at(upstream.url()).token_for(&[&upstream.url()]).token(token)
}

#[tokio::test]
async fn a_refused_call_waits_for_a_newer_credential() {
    let upstream = FakeUpstream::start().await;
    let router = setup(&upstream, TOKEN).start().await;
    let streamed = async {
        let answer = router.ask(prompt("hi")).await;
        assert_eq!(answer.text, "hello");
        let selection = answer.selection.unwrap();
        assert_eq!(
            (selection.attempt_count, selection.reason()),
            (2, SelectionReason::Assigned)
        );
    };
    let rotated = async |asked, token| {
        upstream.request(asked).await;
        router.swap(setup(&upstream, token));
    };
    upstream.then(refused());
    tokio::join!(streamed, rotated(0, NEWER));
    upstream.then(refused()).then(Script::whole("hello"));
    let (whole, ()) = tokio::join!(router.infer(prompt("hi")), rotated(2, TOKEN));
    assert!(whole.is_ok());
    let sent = upstream.requests();
    let tokens: Vec<_> = sent.iter().map(|sent| sent.headers["authorization"].clone()).collect();
    assert_eq!(
        tokens,
        [TOKEN, NEWER, NEWER, TOKEN].map(|token| format!("Bearer {token}"))
    );
}

#[tokio::test]
async fn a_newer_credential_is_tried_once() {
    let upstream = FakeUpstream::always(refused()).await;
    let router = setup(&upstream, TOKEN).start().await;
    let rotate = async {
        upstream.request(0).await;
        router.swap(setup(&upstream, NEWER));
    };
    let (answer, ()) = tokio::join!(router.ask(prompt("hi")), rotate);
    let told = answer.told();
    assert_eq!(told.reason, "UPSTREAM_CREDENTIAL_REJECTED");
    assert_eq!(told.metadata["attempts"], "2");
    // Both credentials are known to be refused.
    router.ask(prompt("hi")).await.told();
    assert_eq!(upstream.requests().len(), 2);
}

#[tokio::test]
async fn a_model_whose_credential_is_refused_is_not_called_until_it_has_another() {
    let (upstream, other) = (FakeUpstream::start().await, FakeUpstream::start().await);
    upstream.then(refused());
    let router = setup(&upstream, TOKEN)
        .other("b", other.url())
        .setting("code_generations", named("b"))
        .start()
        .await;
    let begun = Instant::now();
    for attempts in [Some("1"), None] {
        let told = router.ask(prompt("hi")).await.told();
        assert_eq!(
            (told.code, told.reason.as_str()),
            (Code::FailedPrecondition, "UPSTREAM_CREDENTIAL_REJECTED")
        );
        assert_eq!(told.metadata.get("attempts").map(String::as_str), attempts);
        assert_eq!(told.metadata["upstream_status"], "401");
        assert_eq!(told.candidates, [("models/m".to_owned(), CandidateOutcome::Failed)]);
        let waited = begun.elapsed();
        assert!(
            (Duration::from_secs(1)..Duration::from_millis(1800)).contains(&waited),
            "{waited:?}"
        );
    }
    assert_eq!(upstream.requests().len(), 1, "the server gets no second request");
    let resolved = router.resolved("duo_chat").await;
    assert_eq!(
        (resolved.reason.as_str(), resolved.selection),
        ("UPSTREAM_CREDENTIAL_REJECTED", None)
    );
    let untouched = InferRequest {
        feature: "code_generations".to_owned(),
        ..prompt("hi")
    };
    assert_eq!(router.ask(untouched).await.text, "hello");
    router.swap(setup(&upstream, NEWER));
    assert_eq!(router.ask(prompt("hi")).await.text, "hello");
}

#[tokio::test]
async fn a_fallback_answers_for_a_model_whose_credential_is_refused() {
    let (upstream, b) = (FakeUpstream::start().await, FakeUpstream::start().await);
    upstream.then(refused());
    let router = setup(&upstream, TOKEN)
        .other("b", b.url())
        .fallbacks(&["b"])
        .start()
        .await;
    for attempts in [2, 1] {
        let selection = router.ask(prompt("hi")).await.selection.unwrap();
        assert_eq!(
            (selection.model.as_str(), selection.reason()),
            ("models/b", SelectionReason::Failover)
        );
        assert_eq!(
            selection.attempt_count, attempts,
            "passing over a model is not an attempt"
        );
    }
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn a_model_that_is_down_is_called_if_its_fallbacks_credential_is_refused() {
    let (upstream, b) = (FakeUpstream::start().await, FakeUpstream::start().await);
    b.then(refused());
    let router = setup(&upstream, TOKEN)
        .other("b", b.url())
        .fallbacks(&["b"])
        .start()
        .await;
    let port = upstream.kill().await;
    for _ in 0..3 {
        router.ask(prompt("hi")).await.told();
    }
    assert!(matches!(router.servers()[1].health, Some(Health::Ejected(_))));
    let _back = FakeUpstream::on_port(port, Script::answer(["hello"])).await;
    assert_eq!(router.ask(prompt("hi")).await.text, "hello");
    assert_eq!(b.requests().len(), 1);
}
