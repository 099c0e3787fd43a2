use std::sync::Arc;

use switchboard::{names::CredentialId, pb::registry::check_request};

use super::*;
use crate::{domain::write::Write as _, fleet::check::Unsaved};

fn fields(request: registry::CheckModelRequest) -> Vec<String> {
    let violations = wanted(request, None).unwrap_err();
    violations.as_slice().iter().map(|bad| bad.field.clone()).collect()
}

fn mistral() -> registry::Model {
    registry::Model {
        family: Some("mistral".to_owned()),
        endpoint: Some("http://h:1".to_owned()),
        api_token: Some("sk-1".to_owned()),
        ..Default::default()
    }
}

#[test]
fn a_request_selects_the_model_and_the_routers() {
    assert_eq!(fields(registry::CheckModelRequest::default()), ["name"]);
    let all = registry::CheckModelRequest {
        name: "mistral".to_owned(),
        update_mask: Some(prost_types::FieldMask::default()),
        router: "a".to_owned(),
        all_routers: true,
        ..Default::default()
    };
    assert_eq!(fields(all), ["all_routers", "name", "update_mask"]);
    let other_name = registry::CheckModelRequest {
        name: "models/a".to_owned(),
        model: Some(registry::Model {
            name: "models/b".to_owned(),
            ..mistral()
        }),
        router: "a b".to_owned(),
        ..Default::default()
    };
    assert_eq!(fields(other_name), ["router", "model.name"]);
    let request = registry::CheckModelRequest {
        name: "models/a".to_owned(),
        router: "r".to_owned(),
        ..Default::default()
    };
    let (wanted, allowed) = wanted(request, None).unwrap();
    assert!(matches!(wanted.subject, CheckSubject::Registered(_)));
    assert_eq!(wanted.routers, Routers::One(RouterId::parse("r").unwrap()));
    assert_eq!(allowed, CHECK_MAX);
}

#[test]
fn an_unsaved_model_needs_no_name_and_is_sent_without_its_token() {
    let request = registry::CheckModelRequest {
        model: Some(mistral()),
        ..Default::default()
    };
    let (wanted, _) = wanted(request, None).unwrap();
    let CheckSubject::New { write, is_named } = wanted.subject else {
        panic!("{:?}", wanted.subject)
    };
    assert!(!is_named);
    let state = crate::testing::History::with_revisions(1).state();
    let verdict = write.judge(&state, CredentialId::random()).unwrap();
    let Some(crate::domain::state::Change::Model { model, .. }) = verdict.change else {
        panic!("the write must create a model")
    };
    let id = CredentialId::random();
    let order = CheckOrder {
        id: CheckId::random(),
        target: CheckedModel::Unsaved(Arc::new(Unsaved {
            model,
            is_named,
            is_token_dropped: false,
        })),
        credential: Some(id),
        until: Instant::now() + Duration::from_secs(5),
    };
    let wire = registry::CheckRequest::from(CheckRequest::from(&order));
    assert_eq!(wire.credential_id, id.to_string());
    assert!(wire.timeout.unwrap().seconds >= 4);
    let Some(check_request::Target::Unsaved(model)) = wire.target else {
        panic!("{:?}", wire.target)
    };
    assert_eq!((model.name.as_str(), model.api_token), ("", None));
    assert_eq!(model.endpoints[0].uri, "http://h:1");
}
