//! `CheckModel`: from the administrator over the control stream to the model server and back.

use std::time::Duration;

use switchboard::pb::registry::{
    CheckModelRequest, CheckOutcome, CheckStep, CreateModelRequest, DeleteModelRequest, Endpoint, Fault,
    ListModelsRequest, ListRoutersRequest, Model, ModelCheck,
};
use tonic::{Request, Status};

use crate::{
    fake_upstream::{FakeUpstream, Script},
    fleet::Other,
    harness::{Pair, reason_of},
    peer::Peer,
};

/// A token of which nothing may be found anywhere.
const CANARY: &str = "sk-canary-7d1e";

/// A server that lists one model and answers whatever it is asked, in the order in which a check asks.
async fn server(names: &[&str]) -> FakeUpstream {
    let server = FakeUpstream::start().await;
    server
        .then(list(names))
        .then(Script::whole("yes"))
        .then(Script::answer(["yes"]))
        .then(completion());
    server
}

fn list(names: &[&str]) -> Script {
    let names: Vec<String> = names.iter().map(|name| format!(r#"{{"id":"{name}"}}"#)).collect();
    Script::json(&format!(r#"{{"object":"list","data":[{}]}}"#, names.join(",")))
}

/// What both kinds of call take for a whole answer.
fn completion() -> Script {
    Script::json(r#"{"choices":[{"index":0,"text":"a","message":{"content":"a"},"finish_reason":"stop"}]}"#)
}

fn refusal(status: u16) -> Script {
    let echo = format!(r#"{{"error":{{"message":"Bearer {CANARY} is not welcome"}}}}"#);
    Script::response(status, &[("content-type", "application/json")], &echo)
}

fn unsaved(endpoint: &str) -> Model {
    Model {
        family: Some("mistral".to_owned()),
        endpoint: Some(endpoint.to_owned()),
        ..Default::default()
    }
}

async fn check(pair: &Pair, request: CheckModelRequest) -> Result<Vec<ModelCheck>, Status> {
    let mut request = Request::new(request);
    request.set_timeout(Duration::from_secs(20));
    let answer = pair.models().check_model(request).await?;
    Ok(answer.into_inner().checks)
}

/// The only check, of a model that is not saved.
async fn check_unsaved(pair: &Pair, model: Model) -> ModelCheck {
    let request = CheckModelRequest {
        model: Some(model),
        ..Default::default()
    };
    only(check(pair, request).await.unwrap())
}

fn only(mut checks: Vec<ModelCheck>) -> ModelCheck {
    assert_eq!(checks.len(), 1, "{checks:?}");
    checks.remove(0)
}

/// The steps that have failed or passed, in order.
fn taken(check: &ModelCheck) -> Vec<(&str, CheckOutcome)> {
    let steps = check
        .steps
        .iter()
        .filter(|step| step.outcome() != CheckOutcome::Skipped);
    steps.map(|step| (step.step.as_str(), step.outcome())).collect()
}

/// The step at which a check ended: all behind it are skipped.
fn failed(check: &ModelCheck) -> &CheckStep {
    assert!(!check.passed, "{check:?}");
    let place = check
        .steps
        .iter()
        .position(|step| step.outcome() == CheckOutcome::Failed);
    let place = place.unwrap_or_else(|| panic!("no step failed: {check:?}"));
    let behind = &check.steps[place + 1..];
    assert!(
        behind.iter().all(|step| step.outcome() == CheckOutcome::Skipped),
        "{behind:?}"
    );
    let step = &check.steps[place];
    assert!(!step.message.is_empty() && !step.remedy.is_empty(), "{step:?}");
    step
}

fn told(step: &CheckStep) -> (&str, Fault, &str) {
    (&step.step, step.fault(), &step.reason)
}

async fn create(pair: &Pair, model: Model) {
    let request = CreateModelRequest {
        model: Some(Model {
            display_name: Some("Mistral".to_owned()),
            ..model
        }),
        ..Default::default()
    };
    pair.models().create_model(request).await.unwrap();
}

const ALL: [(&str, CheckOutcome); 7] = [
    ("tcp", CheckOutcome::Passed),
    ("http", CheckOutcome::Passed),
    ("credential", CheckOutcome::Passed),
    ("model_list", CheckOutcome::Passed),
    ("chat", CheckOutcome::Passed),
    ("streaming", CheckOutcome::Passed),
    ("infill", CheckOutcome::Passed),
];

#[tokio::test]
async fn what_was_saved_a_moment_ago_is_checked_with_its_token_though_no_feature_uses_it() {
    let pair = Pair::start().await;
    for _ in 0..5 {
        let server = server(&["mistral"]).await;
        let model = Model {
            api_token: Some(CANARY.to_owned()),
            ..unsaved(&server.url())
        };
        create(&pair, model).await;
        let request = CheckModelRequest {
            name: "models/mistral".to_owned(),
            ..Default::default()
        };
        let check = only(check(&pair, request).await.unwrap());
        assert_eq!(taken(&check), ALL, "{check:?}");
        assert!(check.passed);
        assert_eq!((check.router.as_str(), check.endpoint), ("pair", server.url()));
        let lines: Vec<String> = server.requests().iter().map(|request| request.line.clone()).collect();
        assert_eq!(lines[0], "GET /v1/models HTTP/1.1");
        assert_eq!(lines.len(), 4, "one list and three calls for one token: {lines:?}");
        for request in server.requests() {
            assert_eq!(request.headers["authorization"], format!("Bearer {CANARY}"));
            assert!(request.line.starts_with("GET") || request.body.contains(r#""max_tokens":1"#));
        }
        let delete = DeleteModelRequest {
            name: "models/mistral".to_owned(),
            ..Default::default()
        };
        pair.models().delete_model(delete).await.unwrap();
    }
    assert!(!pair.router.log().contains(CANARY) && !pair.registry().log().contains(CANARY));
    pair.finish().await;
}

#[tokio::test]
async fn a_wrong_token_is_the_credentials_fault_and_is_told_nowhere() {
    let pair = Pair::start().await;
    // Some servers show their list to anybody, so only a call finds it out.
    for is_list_open in [true, false] {
        let server = FakeUpstream::always(refusal(401)).await;
        if is_list_open {
            server.then(list(&["mistral"]));
        }
        let model = Model {
            api_token: Some(CANARY.to_owned()),
            ..unsaved(&server.url())
        };
        let check = check_unsaved(&pair, model).await;
        let step = failed(&check);
        assert_eq!(
            told(step),
            ("credential", Fault::Credential, "UPSTREAM_CREDENTIAL_REJECTED")
        );
        assert_eq!(
            server.requests()[0].headers["authorization"],
            format!("Bearer {CANARY}"),
            "the token came by its one-time id"
        );
        assert!(!format!("{check:?}").contains(CANARY));
    }
    for log in [pair.router.log(), pair.registry().log()] {
        assert!(!log.contains(CANARY), "{log}");
    }
    let listed = pair.models().list_models(ListModelsRequest::default()).await.unwrap();
    assert_eq!(listed.into_inner().total_size, 0, "nothing was saved");
    pair.finish().await;
}

#[tokio::test]
async fn an_edit_form_is_laid_over_what_is_stored_and_its_token_goes_nowhere_new() {
    let pair = Pair::start().await;
    let old = server(&["mistral"]).await;
    let model = Model {
        api_token: Some(CANARY.to_owned()),
        ..unsaved(&old.url())
    };
    create(&pair, model).await;
    let overlay = |model: Model| CheckModelRequest {
        name: "models/mistral".to_owned(),
        model: Some(model),
        ..Default::default()
    };

    let renamed = overlay(Model {
        identifier: Some("mistral".to_owned()),
        ..Default::default()
    });
    let passed = only(check(&pair, renamed).await.unwrap());
    assert_eq!(taken(&passed), ALL, "{passed:?}");
    assert_eq!(
        old.request(1).await.headers["authorization"],
        format!("Bearer {CANARY}"),
        "the stored token is used"
    );

    let new = server(&["mistral"]).await;
    let moved = overlay(Model {
        endpoint: Some(new.url()),
        ..Default::default()
    });
    let check_moved = only(check(&pair, moved).await.unwrap());
    assert_eq!(check_moved.endpoint, new.url());
    assert_eq!(
        told(failed(&check_moved)),
        ("credential", Fault::Credential, "MODEL_CREDENTIAL_MISSING")
    );
    for request in new.requests() {
        assert!(!request.headers.contains_key("authorization"), "{request:?}");
    }

    let bad = overlay(Model {
        endpoint: Some("ftp://gpu".to_owned()),
        ..Default::default()
    });
    assert_eq!(
        reason_of(&check(&pair, bad).await).as_deref(),
        Some("VALIDATION_FAILED")
    );
    let unknown = CheckModelRequest {
        name: "models/nobody".to_owned(),
        ..Default::default()
    };
    assert_eq!(
        reason_of(&check(&pair, unknown).await).as_deref(),
        Some("MODEL_NOT_FOUND")
    );
    pair.finish().await;
}

#[tokio::test]
async fn each_endpoint_is_checked_by_itself_and_says_where_it_fails() {
    let pair = Pair::start().await;
    let well = server(&["mistral"]).await;
    let down = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let loading = FakeUpstream::always(refusal(503)).await;
    let elsewhere = FakeUpstream::always(Script::response(302, &[("location", "http://h/")], "")).await;
    let endpoint = |uri: &str| Endpoint {
        uri: uri.to_owned(),
        ..Default::default()
    };
    let model = Model {
        endpoint: None,
        endpoints: vec![
            endpoint(&well.url()),
            endpoint(&down),
            endpoint(&loading.url()),
            endpoint(&elsewhere.url()),
            endpoint("http://name.invalid:1"),
        ],
        ..unsaved("")
    };
    let request = CheckModelRequest {
        model: Some(model),
        ..Default::default()
    };
    let checks = check(&pair, request).await.unwrap();
    assert_eq!(checks.len(), 5);
    assert!(checks[0].passed, "{:?}", checks[0]);
    let expected = [
        ("tcp", Fault::Network, "UPSTREAM_CONNECT_FAILED"),
        ("http", Fault::ModelServer, "UPSTREAM_SERVER_ERROR"),
        ("http", Fault::Configuration, "UPSTREAM_REDIRECT_REFUSED"),
        ("dns", Fault::Network, "UPSTREAM_DNS_FAILED"),
    ];
    for (check, expected) in checks[1..].iter().zip(expected) {
        assert_eq!(told(failed(check)), expected);
    }
    pair.finish().await;
}

#[tokio::test]
async fn the_servers_list_says_which_model_it_is() {
    let pair = Pair::start().await;
    let several = FakeUpstream::always(list(&["one", "two", "<b>"])).await;
    let ambiguous = check_unsaved(&pair, unsaved(&several.url())).await;
    let step = failed(&ambiguous);
    assert_eq!(
        told(step),
        ("model_list", Fault::Configuration, "UPSTREAM_MODEL_NOT_FOUND")
    );
    assert!(
        step.message.contains("`one`, `two` and 1 more") && !step.message.contains("<b>"),
        "{step:?}"
    );

    let other = FakeUpstream::always(refusal(404)).await;
    other.then(list(&["one"]));
    let wrong = Model {
        identifier: Some("mistrl".to_owned()),
        ..unsaved(&other.url())
    };
    let wrong = check_unsaved(&pair, wrong).await;
    let step = failed(&wrong);
    assert_eq!(
        told(step),
        ("model_list", Fault::Configuration, "UPSTREAM_MODEL_NOT_FOUND")
    );
    assert!(
        step.message.contains("`mistrl`") && step.message.contains("`one`"),
        "{step:?}"
    );

    let single = server(&["only/one"]).await;
    let nameless = check_unsaved(&pair, unsaved(&single.url())).await;
    assert!(nameless.passed, "{nameless:?}");
    assert!(single.request(1).await.body.contains(r#""model":"only/one""#));
    pair.finish().await;
}

#[tokio::test]
async fn every_router_tells_what_it_finds_and_one_that_cannot_holds_nobody_up() {
    let pair = Pair::start().await;
    let server = FakeUpstream::always(refusal(401)).await;
    let other = Other::start(&pair, "other", &[]).await;
    // A router of a release that knows no checks.
    let mut old = Peer::new(pair.registry(), "old");
    let _stream = old.open().await.unwrap();
    pair.wait_until(async || {
        let listed = pair.config().list_routers(ListRoutersRequest::default()).await;
        listed.unwrap().into_inner().total_size == 3
    })
    .await;
    let request = |router: &str, all_routers| CheckModelRequest {
        model: Some(unsaved(&server.url())),
        router: router.to_owned(),
        all_routers,
        ..Default::default()
    };
    let checks = check(&pair, request("", true)).await.unwrap();
    let told_by: Vec<(&str, &str)> = checks
        .iter()
        .map(|check| (check.router.as_str(), failed(check).reason.as_str()))
        .collect();
    assert_eq!(
        told_by,
        [
            ("old", "METHOD_UNKNOWN"),
            ("other", "UPSTREAM_CREDENTIAL_REJECTED"),
            ("pair", "UPSTREAM_CREDENTIAL_REJECTED")
        ]
    );
    assert_eq!(failed(&checks[0]).fault(), Fault::Switchboard);
    let chosen = only(check(&pair, request("other", false)).await.unwrap());
    assert_eq!(chosen.router, "other");
    let any = only(check(&pair, request("", false)).await.unwrap());
    assert_ne!(any.router, "old", "one that can check is chosen");
    assert_eq!(
        reason_of(&check(&pair, request("nobody", false)).await).as_deref(),
        Some("NO_ROUTER_CONNECTED")
    );
    assert_eq!(
        reason_of(&check(&pair, request("other", true)).await).as_deref(),
        Some("VALIDATION_FAILED")
    );

    other.service.freeze();
    let mut frozen = Request::new(request("other", false));
    frozen.set_timeout(Duration::from_secs(2));
    let late = only(pair.models().check_model(frozen).await.unwrap().into_inner().checks);
    assert_eq!(told(failed(&late)), ("router", Fault::Switchboard, "DEADLINE_EXCEEDED"));
    other.service.thaw();
    pair.finish().await;
}

#[tokio::test]
async fn without_a_router_it_says_so_and_one_that_dies_is_a_failed_check() {
    let mut pair = Pair::start().await;
    let server = FakeUpstream::always(Script::silence()).await;
    let request = CheckModelRequest {
        model: Some(unsaved(&server.url())),
        ..Default::default()
    };
    let asked = request.clone();
    let mut models = pair.models();
    let (checked, ()) = tokio::join!(models.check_model(asked), async {
        server.request(0).await;
        pair.kill_router();
    });
    let gone = only(checked.unwrap().into_inner().checks);
    assert_eq!(
        told(failed(&gone)),
        ("router", Fault::Switchboard, "NO_ROUTER_CONNECTED")
    );
    assert_eq!(
        reason_of(&check(&pair, request).await).as_deref(),
        Some("NO_ROUTER_CONNECTED")
    );
}
