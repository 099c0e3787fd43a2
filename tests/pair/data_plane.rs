//! Model servers that die, come back, stay silent or fail every call, while calls continue.

use std::time::Duration;

use switchboard::pb::{
    registry::{Endpoint, Feature, GetModelRequest, Model, UpdateFeatureRequest},
    router::GetStatusRequest,
    types::{EndpointState, Provider},
};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{Answer, PATIENCE, Pair, asking, call, infer, reason_of},
    peer::number,
    routing::Load,
};

const FEATURE: &str = "code_generations";
const MODEL: &str = "models/mistral";
/// Number of callers that make calls without pauses.
const CALLERS: usize = 20;
/// Number of consecutive hard failures that take a server out.
const HARD_MAX: usize = 3;

/// Builds a model with these servers. It is not created yet.
pub(crate) fn model(servers: &[&FakeUpstream]) -> Model {
    let endpoint = |server: &&FakeUpstream| Endpoint {
        uri: server.url(),
        ..Default::default()
    };
    Model {
        display_name: Some("Mistral".to_owned()),
        family: Some("mistral".to_owned()),
        endpoints: servers.iter().map(endpoint).collect(),
        ..Default::default()
    }
}

/// Starts a server that answers with its name in two pieces.
async fn server(name: &'static str) -> FakeUpstream {
    FakeUpstream::always(named(name)).await
}

fn named(name: &'static str) -> Script {
    let begun = Script::stream().text(name).pause(Duration::from_millis(5));
    begun.text(".").finish("stop").done().end()
}

fn failing() -> Script {
    Script::response(500, &[], "")
}

impl Pair {
    /// Creates a model and returns its name.
    pub(crate) async fn add(&self, model: Model) -> String {
        let request = switchboard::pb::registry::CreateModelRequest {
            model: Some(model),
            ..Default::default()
        };
        self.models().create_model(request).await.unwrap().into_inner().name
    }

    /// Assigns a model to a feature and waits until the router uses the assignment. It makes no inference call.
    pub(crate) async fn route(&self, feature: &str, model: &str, more: Feature) {
        let feature = Feature {
            name: format!("features/{feature}"),
            provider: Some(Provider::SelfHosted.into()),
            model: Some(model.to_owned()),
            ..more
        };
        let request = UpdateFeatureRequest {
            feature: Some(feature.clone()),
            ..Default::default()
        };
        let written = self.features().update_feature(request).await.unwrap().into_inner();
        self.wait_until_resolved(&feature.name, written.revision).await;
    }

    /// Returns the health of one of the model's servers as the registry reports it.
    async fn health(&self, server: &str) -> Option<(EndpointState, String)> {
        let request = GetModelRequest { name: MODEL.to_owned() };
        let model = self.models().get_model(request).await.unwrap().into_inner();
        let health = model.health.iter().find(|health| health.uri == server)?;
        Some((health.state(), health.reason.clone()))
    }

    async fn is_known_as(&self, server: &str, state: EndpointState, reason: &str) {
        self.wait_until(async || self.health(server).await == Some((state, reason.to_owned())))
            .await;
    }

    async fn down_models(&self) -> Vec<String> {
        let status = self.routing().get_status(GetStatusRequest {}).await.unwrap();
        status.into_inner().down_models
    }

    /// Makes a call with this affinity key and returns the answer, which names the server.
    async fn by_key(&self, key: &str) -> String {
        let mut request = asking(FEATURE, "hello");
        key.clone_into(&mut request.affinity_key);
        call(&mut self.inference(), request).await.unwrap().text
    }
}

/// Counts the failed attempts that preceded these answers.
fn failed_attempts(answers: &[&Answer]) -> usize {
    let more = |answer: &&Answer| usize::try_from(answer.selection.attempt_count - 1).unwrap();
    answers.iter().map(more).sum()
}

async fn a_server_that_dies_under_load_fails_no_later_call_and_returns_after_one_trial() {
    let (dying, other) = (server("dying").await, server("other").await);
    let url = dying.url();
    let pair = Pair::start().await;
    let name = pair.add(model(&[&dying, &other])).await;
    pair.route(FEATURE, &name, Feature::default()).await;

    let load = Load::start(&pair, CALLERS);
    dying.request(50).await;
    other.request(50).await;
    let port = dying.kill().await;
    let died = Instant::now();
    pair.is_known_as(&url, EndpointState::Ejected, "UPSTREAM_CONNECT_FAILED")
        .await;

    let back = FakeUpstream::on_port(port, named("back")).await;
    // The trial has to wait for its first token while other calls continue.
    let trial = Duration::from_secs(3);
    back.then(Script::stream().pause(trial).text("back").finish("stop").done().end());
    pair.wait_until(async || !back.requests().is_empty()).await;
    let answered = other.requests().len();
    other.request(answered + 50).await;
    assert_eq!(back.requests().len(), 1, "only the trial reaches the server");
    pair.is_known_as(&url, EndpointState::Healthy, "").await;
    let answered = (back.requests().len(), other.requests().len());
    pair.wait_until(async || back.requests().len() >= answered.0 + 10).await;
    let (to_it, to_other) = (back.requests().len() - answered.0, other.requests().len() - answered.1);
    assert!(
        3 * to_it < to_other,
        "{to_it} calls to the returned server at once, {to_other} to the other"
    );

    let calls = load.finish().await;
    let mut later = Vec::new();
    for call in &calls {
        match &call.result {
            Ok(answer) if call.began > died => later.push(answer),
            Ok(_) => {}
            Err(status) => {
                // Only a call whose text had begun may fail.
                assert_eq!(
                    reason_of(&call.result).unwrap(),
                    "UPSTREAM_STREAM_TRUNCATED",
                    "{status:?}"
                );
                assert!(call.began <= died, "{:?} after its death", call.began - died);
            }
        }
    }
    let in_vain = failed_attempts(&later);
    assert!(
        in_vain <= CALLERS + HARD_MAX,
        "{in_vain} attempts at the dead server in {} calls",
        later.len()
    );
    pair.finish().await;
}

async fn a_model_with_one_server_is_never_locked_out() {
    let only = server("only").await;
    let url = only.url();
    let pair = Pair::start().await;
    let name = pair.add(model(&[&only])).await;
    pair.route(FEATURE, &name, Feature::default()).await;
    assert_eq!(
        infer(&mut pair.inference(), FEATURE, "hello").await.unwrap().text,
        "only."
    );

    let mut port = only.kill().await;
    for life in ["second", "third"] {
        let failing = Instant::now();
        for _ in 0..2 * HARD_MAX {
            let failed = infer(&mut pair.inference(), FEATURE, "hello").await;
            assert_eq!(reason_of(&failed).unwrap(), "UPSTREAM_CONNECT_FAILED");
        }
        assert!(failing.elapsed() < Duration::from_secs(2), "calls fail fast");
        pair.is_known_as(&url, EndpointState::Ejected, "UPSTREAM_CONNECT_FAILED")
            .await;
        assert_eq!(pair.down_models().await, [MODEL]);

        let back = FakeUpstream::on_port(port, named(life)).await;
        let answer = infer(&mut pair.inference(), FEATURE, "hello").await.unwrap();
        assert_eq!(
            answer.text,
            format!("{life}."),
            "the first call after the server's return succeeds"
        );
        assert!(pair.down_models().await.is_empty());
        port = back.kill().await;
    }
    pair.finish().await;
}

/// `SWITCHBOARD_TEST_CALLS` sets the number of calls; the rate is fifty a second.
async fn servers_that_fail_everything_get_little_more_than_one_attempt_per_call() {
    let calls = number("SWITCHBOARD_TEST_CALLS", 200);
    let servers = [
        FakeUpstream::always(failing()).await,
        FakeUpstream::always(failing()).await,
        FakeUpstream::always(failing()).await,
    ];
    let [first, second, fallback] = &servers;
    let pair = Pair::start().await;
    let name = pair.add(model(&[first, second])).await;
    let other = Model {
        display_name: Some("Other".to_owned()),
        ..model(&[fallback])
    };
    let more = Feature {
        fallback_models: vec![pair.add(other).await],
        ..Default::default()
    };
    pair.route(FEATURE, &name, more).await;

    let mut pace = interval(Duration::from_millis(20));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut running = JoinSet::new();
    for _ in 0..calls {
        pace.tick().await;
        let mut client = pair.inference();
        running.spawn(async move { infer(&mut client, FEATURE, "hello").await });
    }
    for result in running.join_all().await {
        assert_eq!(reason_of(&result).unwrap(), "UPSTREAM_SERVER_ERROR");
    }
    let requests: usize = servers.iter().map(|server| server.requests().len()).sum();
    eprintln!("{requests} requests for {calls} calls");
    assert!(requests > calls, "some calls are repeated");
    assert!(5 * requests <= 6 * calls, "{requests} requests for {calls} calls");
    pair.finish().await;
}

async fn a_router_prefers_the_servers_of_its_zone_while_they_answer() {
    let (near, far) = (server("near").await, server("far").await);
    let mut pair = Pair::start().await;
    let registry = pair.registry().listen_addr;
    pair.restart_router(registry, &["--group=a".to_owned()]).await;
    let mut zoned = model(&[&near, &far]);
    for (endpoint, zone) in zoned.endpoints.iter_mut().zip(["a", "b"]) {
        zone.clone_into(&mut endpoint.zone);
    }
    let name = pair.add(zoned).await;
    pair.route(FEATURE, &name, Feature::default()).await;

    let ask = async |expected: &str| {
        for _ in 0..30 {
            let answer = infer(&mut pair.inference(), FEATURE, "hello").await.unwrap();
            assert_eq!(answer.text, expected);
        }
    };
    ask("near.").await;
    near.kill().await;
    ask("far.").await;
    pair.finish().await;
}

async fn calls_with_one_affinity_key_stay_at_one_server_and_return_to_it() {
    let (mortal, other) = (server("mortal").await, server("other").await);
    let url = mortal.url();
    let pair = Pair::start().await;
    let name = pair.add(model(&[&mortal, &other])).await;
    pair.route(FEATURE, &name, Feature::default()).await;

    let (mut movable, mut settled) = (Vec::new(), Vec::new());
    for number in 0..40 {
        let key = format!("key-{number}");
        let home = pair.by_key(&key).await;
        for _ in 0..2 {
            assert_eq!(pair.by_key(&key).await, home, "{key}");
        }
        if home == "mortal." {
            movable.push(key);
        } else {
            settled.push(key);
        }
    }
    assert!(movable.len() > 5 && settled.len() > 5, "{movable:?}, {settled:?}");

    let port = mortal.kill().await;
    for key in movable.iter().chain(&settled) {
        assert_eq!(pair.by_key(key).await, "other.", "{key}");
    }
    let _back = FakeUpstream::on_port(port, named("mortal")).await;
    // One call has to try the server.
    pair.wait_until(async || {
        pair.by_key("any").await;
        pair.health(&url).await == Some((EndpointState::Healthy, String::new()))
    })
    .await;
    // The keys return gradually, as the server's share grows. No other key moves.
    pair.wait_until(async || {
        let mut returned = 0;
        for key in &movable {
            returned += usize::from(pair.by_key(key).await == "mortal.");
        }
        for key in &settled {
            assert_eq!(pair.by_key(key).await, "other.", "{key}");
        }
        3 * returned >= movable.len()
    })
    .await;
    pair.finish().await;
}

async fn a_short_call_that_gets_no_token_is_hedged_to_another_server() {
    let (silent, good) = (FakeUpstream::always(Script::silence()).await, server("good").await);
    let pair = Pair::start().await;
    let name = pair.add(model(&[&silent, &good])).await;
    let delay = Duration::from_millis(50);
    let more = Feature {
        hedge_delay: Some(delay.try_into().unwrap()),
        ..Default::default()
    };
    pair.route(FEATURE, &name, more).await;

    // The router may call either server first.
    let (answer, took) = loop {
        assert!(good.requests().len() < 100, "the silent server is never called first");
        let began = Instant::now();
        let answer = infer(&mut pair.inference(), FEATURE, "hello").await.unwrap();
        assert_eq!(answer.text, "good.");
        if !silent.requests().is_empty() {
            break (answer, began.elapsed());
        }
        assert_eq!(answer.selection.attempt_count, 1);
    };
    assert_eq!(answer.selection.attempt_count, 2);
    assert!((delay..PATIENCE).contains(&took), "{took:?}");
    silent.closed(0).await;
    pair.finish().await;
}

tests! {
    a_server_that_dies_under_load_fails_no_later_call_and_returns_after_one_trial,
    a_model_with_one_server_is_never_locked_out,
    servers_that_fail_everything_get_little_more_than_one_attempt_per_call,
    a_router_prefers_the_servers_of_its_zone_while_they_answer,
    calls_with_one_affinity_key_stay_at_one_server_and_return_to_it,
    a_short_call_that_gets_no_token_is_hedged_to_another_server,
}
