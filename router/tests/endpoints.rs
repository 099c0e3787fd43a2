//! Several servers of a model: servers that die and come back, models whose servers all fail, and the state that a
//! catalog swap keeps.

use std::{sync::Arc, time::Duration};

use switchboard::pb::{
    router::{CandidateOutcome, EndpointStatus, GetStatusRequest, ResolveFeatureRequest, SelectionReason},
    types::EndpointState,
};
use switchboard_router::endpoints::Probed;
use tokio::{task::JoinSet, time};

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{Router, Setup, prompt},
};

fn failing() -> Script {
    Script::response(500, &[], "")
}

fn slow() -> Script {
    let begun = Script::stream().text("hel").pause(Duration::from_millis(5)).text("lo");
    begun.finish("stop").done().end()
}

/// Advances all timers by this time.
async fn pass(span: Duration) {
    time::pause();
    time::advance(span).await;
    time::resume();
}

#[expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking")]
impl Router {
    async fn endpoints(&self) -> Vec<EndpointStatus> {
        let status = self.routing.clone().get_status(GetStatusRequest {}).await.unwrap();
        status.into_inner().endpoints
    }

    async fn down_models(&self) -> Vec<String> {
        let status = self.routing.clone().get_status(GetStatusRequest {}).await.unwrap();
        status.into_inner().down_models
    }

    /// Reports a passed probe for every server that is due for one.
    fn pass_probes(&self) {
        let catalog = self.current.load().unwrap();
        for identity in self.models.to_probe(&catalog) {
            self.models.probed(&identity, Probed::Passed);
        }
    }

    async fn resolve(&self) -> switchboard::pb::router::ResolveFeatureResponse {
        let request = ResolveFeatureRequest {
            feature: "duo_chat".to_owned(),
            ..Default::default()
        };
        self.routing
            .clone()
            .resolve_feature(request)
            .await
            .unwrap()
            .into_inner()
    }

    /// Makes calls until the model is down.
    async fn break_down(&self) {
        for _ in 0..20 {
            self.ask(prompt("hi")).await;
        }
        assert_eq!(self.down_models().await, ["models/m"]);
    }
}

#[tokio::test]
async fn one_of_two_servers_is_killed_under_load_and_comes_back() {
    let (dying, other) = (FakeUpstream::always(slow()).await, FakeUpstream::always(slow()).await);
    let router = Arc::new(Setup::at(dying.url()).and_at(other.url()).start().await);
    let mut calls = JoinSet::new();
    for _ in 0..8 {
        let router = Arc::clone(&router);
        calls.spawn(async move {
            for _ in 0..60 {
                let answer = router.ask(prompt("hi")).await;
                // Only a call whose answer had begun may be truncated.
                assert!(answer.text == "hello" || answer.told().metadata["partial"] == "true");
            }
        });
    }
    dying.request(20).await;
    let port = dying.kill().await;
    while let Some(ended) = calls.join_next().await {
        ended.unwrap();
    }
    let state = |endpoints: &[EndpointStatus]| (endpoints[0].state(), endpoints[0].in_flight);
    assert_eq!(state(&router.endpoints().await), (EndpointState::Ejected, 0));

    let back = FakeUpstream::on_port(port, slow()).await;
    for _ in 0..10 {
        assert_eq!(router.ask(prompt("hi")).await.text, "hello");
    }
    assert_eq!(back.requests().len(), 0, "the returned server gets no calls at first");
    pass(Duration::from_secs(7)).await;
    router.pass_probes();
    assert_eq!(router.ask(prompt("hi")).await.text, "hello");
    assert_eq!(back.requests().len(), 1, "only the trial reaches the server");
    let ramping = router.endpoints().await;
    assert_eq!(ramping[0].state(), EndpointState::Healthy);
    assert!(ramping[0].ramp < 0.2, "{}", ramping[0].ramp);
    pass(Duration::from_secs(31)).await;
    for _ in 0..40 {
        assert_eq!(router.ask(prompt("hi")).await.text, "hello");
    }
    assert!(back.requests().len() > 5, "the server gets its share of calls again");
}

#[tokio::test]
async fn the_status_shows_the_newest_error_of_a_server_until_it_answers() {
    let upstream = FakeUpstream::always(failing()).await;
    let router = Setup::at(upstream.url()).start().await;
    let origin = format!("http://{}", upstream.addr());
    let detail = async || router.endpoints().await.remove(0).detail;
    assert_eq!(detail().await, "", "the server was not called yet");

    router.ask(prompt("hi")).await.told();
    let failed = format!("{origin} failed to process the request (HTTP status 500)");
    assert_eq!(detail().await, failed);
    let port = upstream.kill().await;
    router.ask(prompt("hi")).await.told();
    let refused = format!("could not connect to {origin}: connection refused");
    assert_eq!(detail().await, refused);

    let back = FakeUpstream::on_port(port, slow()).await;
    assert_eq!(router.ask(prompt("hi")).await.text, "hello");
    assert_eq!(detail().await, "", "the server answers");
    drop(back);
}

#[tokio::test]
async fn the_status_shows_the_error_of_a_failed_probe() {
    let upstream = FakeUpstream::start().await;
    upstream.probed(Script::response(503, &[], ""));
    let router = Setup::at(upstream.url()).start().await;
    router.probe().await;
    let failed = format!(
        "http://{} failed to process the request (HTTP status 503)",
        upstream.addr()
    );
    assert_eq!(router.endpoints().await[0].detail, failed);
}

#[tokio::test]
async fn a_model_that_is_down_is_passed_over_while_a_fallback_answers() {
    let (m, b) = (FakeUpstream::always(failing()).await, FakeUpstream::start().await);
    let router = Setup::at(m.url()).other("b", b.url()).fallbacks(&["b"]).start().await;
    router.break_down().await;
    let before = m.requests().len();
    let answer = router.ask(prompt("hi")).await;
    let selection = answer.selection.unwrap();
    assert_eq!((answer.text.as_str(), selection.model.as_str()), ("hello", "models/b"));
    assert_eq!(selection.attempt_count, 1, "passing over a model is not an attempt");
    assert_eq!(
        (selection.reason(), selection.degraded),
        (SelectionReason::Failover, false)
    );
    assert_eq!(m.requests().len(), before);

    let resolved = router.resolve().await;
    let outcomes: Vec<_> = resolved
        .candidates
        .iter()
        .map(|candidate| candidate.outcome())
        .collect();
    assert_eq!(outcomes, [CandidateOutcome::Ejected, CandidateOutcome::Chosen]);
    assert_eq!(resolved.selection.unwrap().model, "models/b");
}

#[tokio::test]
async fn a_model_with_one_server_and_no_fallback_is_never_locked_out() {
    let m = FakeUpstream::always(failing()).await;
    let router = Setup::at(m.url()).start().await;
    router.break_down().await;
    assert_eq!(m.requests().len(), 20, "each call reaches the only server");
    let resolved = router.resolve().await;
    assert!(resolved.selection.unwrap().degraded);
    m.then(Script::answer(["hello"]));
    let answer = router.ask(prompt("hi")).await;
    assert!(answer.selection.unwrap().degraded);
    assert!(
        router.down_models().await.is_empty(),
        "an answer ends the outage at once"
    );
    m.then(Script::answer(["hello"]));
    assert!(!router.ask(prompt("hi")).await.selection.unwrap().degraded);
}

#[tokio::test]
async fn a_model_that_is_down_is_called_if_its_fallback_is_down_too() {
    let (m, b) = (
        FakeUpstream::always(failing()).await,
        FakeUpstream::always(failing()).await,
    );
    let router = Setup::at(m.url()).other("b", b.url()).fallbacks(&["b"]).start().await;
    for _ in 0..20 {
        router.ask(prompt("hi")).await;
    }
    assert_eq!(router.down_models().await, ["models/b", "models/m"]);
    m.then(Script::answer(["hello"]));
    let selection = router.ask(prompt("hi")).await.selection.unwrap();
    assert_eq!((selection.model.as_str(), selection.degraded), ("models/m", true));
}

#[tokio::test]
async fn a_server_that_asks_for_a_pause_gets_no_calls_and_callers_get_its_reason() {
    let busy = Script::response(429, &[("retry-after", "30")], "");
    let m = FakeUpstream::always(busy).await;
    let router = Setup::at(m.url()).start().await;
    for _ in 0..5 {
        let told = router.ask(prompt("hi")).await.told();
        assert_eq!(told.reason, "UPSTREAM_RATE_LIMITED");
        assert!(
            told.retry.is_some_and(|pause| pause > Duration::from_secs(25)),
            "{:?}",
            told.retry
        );
    }
    assert_eq!(m.requests().len(), 1);
    pass(Duration::from_secs(31)).await;
    m.then(Script::answer(["hello"]));
    assert_eq!(router.ask(prompt("hi")).await.text, "hello");
}

#[tokio::test]
async fn a_catalog_swap_keeps_the_health_of_servers() {
    let m = FakeUpstream::always(failing()).await;
    let router = Setup::at(m.url()).start().await;
    router.break_down().await;
    let again = Setup::at(m.url()).other("b", m.url()).catalog();
    router.current.swap(Arc::new(again));
    assert_eq!(router.down_models().await, ["models/m"]);
}

#[tokio::test]
async fn calls_with_one_affinity_key_stay_at_one_server() {
    let (one, two) = (FakeUpstream::start().await, FakeUpstream::start().await);
    let router = Setup::at(one.url()).and_at(two.url()).start().await;
    let mut homes = Vec::new();
    for key in 0..12 {
        let mut request = prompt("hi");
        request.affinity_key = format!("conversation-{key}");
        let first = router.ask(request.clone()).await.selection.unwrap().endpoint;
        for _ in 0..3 {
            assert_eq!(router.ask(request.clone()).await.selection.unwrap().endpoint, first);
        }
        homes.push(first);
    }
    homes.sort();
    homes.dedup();
    assert_eq!(homes.len(), 2, "different keys use different servers");
}
