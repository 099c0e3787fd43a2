//! `CheckModel`: from the administrator's call through the control stream to the model server and back.

pub(crate) mod routers;
pub(crate) mod servers;

use std::time::Duration;

use switchboard::pb::registry::{
    CheckModelRequest, CheckOutcome, CheckStep, CreateModelRequest, DeleteModelRequest, Fault, Model, ModelCheck,
};
use tonic::{Request, Status};

use crate::{
    fake_upstream::{FakeUpstream, Script},
    harness::{Pair, reason_of},
};

/// A token that must not appear in any log.
const CANARY: &str = "sk-canary-7d1e";

/// Starts a server that lists these models and has one answer for each call of a check, in the order of the calls.
async fn server(names: &[&str]) -> FakeUpstream {
    let server = FakeUpstream::start().await;
    server
        .listing(list(names))
        .then(Script::whole("yes"))
        .then(Script::answer(["yes"]))
        .then(completion());
    server
}

fn list(names: &[&str]) -> Script {
    let names: Vec<String> = names.iter().map(|name| format!(r#"{{"id":"{name}"}}"#)).collect();
    Script::json(&format!(r#"{{"object":"list","data":[{}]}}"#, names.join(",")))
}

/// A response that both kinds of call accept as a complete answer.
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

/// Checks an unsaved model and returns the only check.
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

/// Returns the steps that passed or failed, in order.
fn taken(check: &ModelCheck) -> Vec<(&str, CheckOutcome)> {
    let steps = check
        .steps
        .iter()
        .filter(|step| step.outcome() != CheckOutcome::Skipped);
    steps.map(|step| (step.step.as_str(), step.outcome())).collect()
}

/// Returns the step at which a check failed. All later steps must be skipped.
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

async fn a_new_model_is_checked_with_its_token_before_any_feature_uses_it() {
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
        assert_eq!(lines.len(), 3, "three calls of one token each: {lines:?}");
        for request in server.requests() {
            assert_eq!(request.headers["authorization"], format!("Bearer {CANARY}"));
            assert!(request.body.contains(r#""max_tokens":1"#), "{request:?}");
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

async fn a_check_merges_an_edit_with_the_stored_model_and_sends_the_token_to_no_new_origin() {
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
        old.request(0).await.headers["authorization"],
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
    for request in new.requests().into_iter().chain(new.probes()) {
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

tests! {
    a_new_model_is_checked_with_its_token_before_any_feature_uses_it,
    a_check_merges_an_edit_with_the_stored_model_and_sends_the_token_to_no_new_origin,
}
