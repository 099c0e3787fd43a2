//! `ResolveFeature`, `ListRoutes` and `GetStatus`: the outcome of a call without making it.

use std::{sync::Arc, time::Duration};

use switchboard::{
    pb::{
        router::{self, CandidateOutcome, SelectionReason},
        types::{EndpointState, Provider},
    },
    resource::model::{self, Count},
};
use switchboard_router::{
    call::CallLimits,
    catalog::{CompiledSetting, ModelState},
    current::Current,
};
use tokio::time::Instant;
use tonic::Code;

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{Router, Setup, TOKEN, Told, assigned, limited, named, prompt},
};

const NOWHERE: &str = "http://127.0.0.1:1";

#[expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking")]
async fn resolve(router: &Router, feature: &str, namespace: &str) -> router::ResolveFeatureResponse {
    let request = router::ResolveFeatureRequest {
        feature: feature.to_owned(),
        scope: Some(router::Scope {
            root_namespace_id: namespace.to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    router
        .routing
        .clone()
        .resolve_feature(request)
        .await
        .unwrap()
        .into_inner()
}

/// Returns the route of a feature from `ListRoutes`.
#[expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking")]
async fn route(router: &Router, feature: &str) -> router::Route {
    let listed = router.routing.clone().list_routes(router::ListRoutesRequest {}).await;
    let mut routes = listed.unwrap().into_inner().routes.into_iter();
    routes
        .find(|route| route.feature == format!("features/{feature}"))
        .unwrap()
}

fn outcomes(resolved: &router::ResolveFeatureResponse) -> Vec<(&str, &str, CandidateOutcome)> {
    let candidates = resolved.candidates.iter();
    candidates
        .map(|candidate| (candidate.model.as_str(), candidate.rule.as_str(), candidate.outcome()))
        .collect()
}

#[tokio::test]
async fn every_candidate_is_listed_with_its_outcome() {
    use CandidateOutcome::{Chosen, Disabled, RuleNotMatched, Standby};
    let setting = assigned(&[("pilot", "42", "b"), ("late", "42", "c")], &["c"]);
    let router = Setup::at(NOWHERE)
        .state(ModelState::Disabled)
        .other("b", NOWHERE)
        .other("c", NOWHERE)
        .setting("duo_chat", setting)
        .start()
        .await;
    let pilot = resolve(&router, "features/duo_chat_explain_code", "42").await;
    assert_eq!(pilot.provider(), Provider::SelfHosted);
    let selection = pilot.selection.as_ref().unwrap();
    assert_eq!(
        (selection.model.as_str(), selection.rule.as_str()),
        ("models/b", "pilot")
    );
    assert_eq!(selection.reason(), SelectionReason::Rule);
    assert_eq!(selection.source_feature, "features/duo_chat");
    assert_eq!(selection.config_revision, 7);
    assert_eq!(selection.endpoint, "");
    let expected = [
        ("models/c", "late", RuleNotMatched),
        ("models/b", "pilot", Chosen),
        ("models/c", "", Standby),
    ];
    assert_eq!(outcomes(&pilot), expected);

    let rest = resolve(&router, "duo_chat", "1").await;
    assert_eq!(rest.selection.as_ref().unwrap().reason(), SelectionReason::Failover);
    let expected = [
        ("models/b", "pilot", RuleNotMatched),
        ("models/c", "late", RuleNotMatched),
        ("models/m", "", Disabled),
        ("models/c", "", Chosen),
    ];
    assert_eq!(outcomes(&rest), expected);
}

#[tokio::test]
async fn resolve_returns_the_reason_of_a_failure_and_only_an_unknown_feature_is_an_error() {
    for (setup, provider, reason) in [
        (
            Setup::at(NOWHERE).setting("duo_chat", CompiledSetting::Disabled),
            Provider::Disabled,
            "FEATURE_DISABLED",
        ),
        (
            Setup::at(NOWHERE).setting("duo_chat", CompiledSetting::Vendored),
            Provider::Vendored,
            "FEATURE_VENDORED",
        ),
        (
            Setup::at(NOWHERE).setting("duo_chat", CompiledSetting::Unassigned),
            Provider::Unassigned,
            "FEATURE_UNASSIGNED",
        ),
        (
            Setup::at(NOWHERE).state(ModelState::Disabled),
            Provider::SelfHosted,
            "MODEL_DISABLED",
        ),
        (
            Setup::at(NOWHERE).state(ModelState::CredentialMissing),
            Provider::SelfHosted,
            "MODEL_CREDENTIAL_MISSING",
        ),
        (
            Setup::at(NOWHERE).state(ModelState::NotReady),
            Provider::SelfHosted,
            "MODEL_NOT_READY",
        ),
        (Setup::at(NOWHERE).paused(), Provider::SelfHosted, "INFERENCE_PAUSED"),
    ] {
        let router = setup.start().await;
        let resolved = resolve(&router, "chat", "").await;
        assert_eq!((resolved.provider(), resolved.reason.as_str()), (provider, reason));
        assert_eq!(resolved.selection, None);
        let routes = router
            .routing
            .clone()
            .list_routes(router::ListRoutesRequest {})
            .await
            .unwrap()
            .into_inner();
        let route = routes
            .routes
            .iter()
            .find(|route| route.feature == "features/duo_chat_explain_code")
            .unwrap();
        assert_eq!((route.available, route.reason.as_str()), (false, reason));
    }
    let router = Setup::at(NOWHERE).start().await;
    let unknown = router::ResolveFeatureRequest {
        feature: "no_such".to_owned(),
        ..Default::default()
    };
    let told = Told::of(&router.routing.clone().resolve_feature(unknown).await.unwrap_err());
    assert_eq!((told.code, told.reason.as_str()), (Code::NotFound, "FEATURE_UNKNOWN"));
    assert_eq!(told.metadata["revision"], "7");
    let bare = Router::start(Arc::new(Current::default()), CallLimits::default()).await;
    let status = bare
        .routing
        .clone()
        .list_routes(router::ListRoutesRequest {})
        .await
        .unwrap_err();
    assert_eq!(Told::of(&status).reason, "CONFIG_NOT_LOADED");
}

#[tokio::test]
async fn routes_show_for_every_feature_whether_it_is_available() {
    let router = Setup::at(NOWHERE).start().await;
    let listed = router
        .routing
        .clone()
        .list_routes(router::ListRoutesRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(listed.routes.len(), 21);
    assert_eq!(listed.config_revision, 7);
    let route = |feature: &str| listed.routes.iter().find(|route| route.feature == feature).unwrap();
    let child = route("features/duo_chat_write_tests");
    assert!(child.available);
    assert_eq!((child.model.as_str(), child.reason.as_str()), ("models/m", ""));
    assert_eq!(child.source_feature, "features/duo_chat");
    assert_eq!(route("features/code_generations").reason, "FEATURE_UNASSIGNED");
}

#[tokio::test]
async fn the_status_shows_running_calls_a_full_model_and_the_shutdown() {
    let upstream = FakeUpstream::start().await;
    upstream.then(Script::stream().text("one").hang());
    let limits = model::Limits {
        max_concurrency: Count::parse(1).ok(),
        max_queue: Count::parse(0).ok(),
        ..model::Limits::default()
    };
    let router = Setup::at(upstream.url()).model_limits(limits).start().await;
    let mut client = router.routing.clone();
    let idle = client
        .get_status(router::GetStatusRequest {})
        .await
        .unwrap()
        .into_inner();
    let server = router::EndpointStatus {
        model: "models/m".to_owned(),
        uri: upstream.url(),
        slowness: 1.0,
        ramp: 1.0,
        ..Default::default()
    };
    let expected = router::GetStatusResponse {
        endpoints: vec![server],
        ..Default::default()
    };
    assert_eq!(idle, expected, "the router follows no registry and has made no call");
    let running = router.begin().await;
    let full = resolve(&router, "duo_chat", "").await;
    assert_eq!(full.reason, "MODEL_OVERLOADED");
    assert_eq!(outcomes(&full), [("models/m", "", CandidateOutcome::Full)]);
    router.stop.cancel();
    let status = client
        .get_status(router::GetStatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!((status.active_calls, status.draining), (1, true));
    let server = &status.endpoints[0];
    assert_eq!((server.state(), server.in_flight), (EndpointState::Healthy, 1));
    drop(running);
}

#[tokio::test]
async fn a_model_that_is_down_is_shown_as_degraded_when_its_fallback_refuses_the_credential() {
    let (upstream, b) = (FakeUpstream::start().await, FakeUpstream::start().await);
    b.then(Script::response(401, &[], ""));
    let router = Setup::at(upstream.url())
        .token_for(&[&upstream.url()])
        .token(TOKEN)
        .other("b", b.url())
        .fallbacks(&["b"])
        .start()
        .await;
    let well = route(&router, "duo_chat").await;
    assert_eq!((well.degraded, well.degraded_reason.as_str()), (false, ""));
    let port = upstream.kill().await;
    for _ in 0..3 {
        router.ask(prompt("hi")).await.told();
    }
    let shown = resolve(&router, "duo_chat", "").await;
    let selection = shown.selection.as_ref().unwrap();
    assert_eq!((selection.model.as_str(), selection.degraded), ("models/m", true));
    let expected = [
        ("models/m", "", CandidateOutcome::Chosen),
        ("models/b", "", CandidateOutcome::Failed),
    ];
    assert_eq!(outcomes(&shown), expected);
    let row = route(&router, "duo_chat").await;
    assert_eq!(
        (row.available, row.model.as_str(), row.reason.as_str()),
        (true, "models/m", "")
    );
    assert_eq!(
        (row.degraded, row.degraded_reason.as_str()),
        (true, "UPSTREAM_CONNECT_FAILED")
    );
    let _back = FakeUpstream::on_port(port, Script::answer(["hello"])).await;
    let answer = router.ask(prompt("hi")).await;
    assert_eq!(
        (answer.text.as_str(), answer.selection.unwrap().degraded),
        ("hello", true)
    );
    assert!(!route(&router, "duo_chat").await.degraded);
}

#[tokio::test]
async fn a_feature_is_not_available_while_others_have_reserved_every_place_of_its_model() {
    let upstream = FakeUpstream::start().await;
    let limits = model::Limits {
        max_concurrency: Count::parse(2).ok(),
        ..model::Limits::default()
    };
    let setup = |reserved| {
        Setup::at(upstream.url())
            .model_limits(limits)
            .setting("code_generations", limited(None, reserved))
            .setting("code_completions", named("m"))
    };
    let router = setup(2).start().await;
    for feature in ["duo_chat", "code_completions"] {
        let row = route(&router, feature).await;
        assert_eq!(
            (row.available, row.reason.as_str()),
            (false, "MODEL_OVERLOADED"),
            "{feature}"
        );
        assert_eq!(resolve(&router, feature, "").await.reason, "MODEL_OVERLOADED");
    }
    let begun = Instant::now();
    let told = router.ask(prompt("hi")).await.told();
    assert_eq!(told.reason, "MODEL_OVERLOADED");
    assert_eq!(told.metadata["limit"], "2");
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "the call does not wait in the queue"
    );
    assert!(route(&router, "code_generations").await.available);
    assert_eq!(upstream.requests().len(), 0);
    router.swap(setup(1));
    assert!(route(&router, "duo_chat").await.available);
    assert_eq!(router.ask(prompt("hi")).await.text, "hello");
}

#[tokio::test]
async fn a_feature_that_is_switched_off_reserves_no_places() {
    let upstream = FakeUpstream::start().await;
    let limits = model::Limits {
        max_concurrency: Count::parse(1).ok(),
        ..model::Limits::default()
    };
    let setup = |setting| {
        Setup::at(upstream.url())
            .model_limits(limits)
            .setting("code_generations", setting)
    };
    let router = setup(limited(None, 1)).start().await;
    assert_eq!(route(&router, "duo_chat").await.reason, "MODEL_OVERLOADED");
    router.swap(setup(CompiledSetting::Disabled));
    assert!(route(&router, "duo_chat").await.available);
    assert_eq!(router.ask(prompt("hi")).await.text, "hello");
}
