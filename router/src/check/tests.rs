//! Tests of the parts of a check that need no server.

use switchboard::pb::registry;

use std::time::Duration;

use super::{models::Models, *};
use crate::{
    live::LiveModels,
    upstream::{model_list::ModelList, names::Names},
};

fn subject(identifier: NameOnServers) -> CheckedServers {
    let model = registry::Model {
        display_name: Some("M".to_owned()),
        family: Some("mistral".to_owned()),
        endpoint: Some("http://h".to_owned()),
        ..Default::default()
    };
    CheckedServers {
        spec: Spec {
            model: Arc::new(ModelSpec::whole(model).unwrap()),
            identifier,
            tls: None,
        },
        credential: CheckCredential::None,
    }
}

fn upstream() -> Upstream {
    let names = Names::default();
    let models = LiveModels::new("", names.clone());
    Upstream::new(Duration::from_secs(2), names, models).unwrap()
}

fn identifier(given: NameOnServers, models: &Models) -> Result<String, String> {
    let (subject, endpoint) = (subject(given), EndpointUri::parse("http://h").unwrap());
    let server = ServerCheck {
        upstream: &upstream(),
        subject: &subject,
        endpoint: &endpoint,
        request_id: RequestId::from_headers(&HeaderMap::new()),
        deadline: Instant::now(),
    };
    server.identifier(models).map_err(|problem| problem.message)
}

#[tokio::test]
async fn a_check_sends_the_same_identifier_as_calls() {
    let listed = |names: &str| Models::Listed(ModelList::parse(names.as_bytes()).unwrap(), Duration::ZERO);
    let one = listed(r#"{"data":[{"id":"one"}]}"#);
    let two = listed(r#"{"data":[{"id":"one"},{"id":"two"}]}"#);
    let none = listed(r#"{"data":[]}"#);
    let given = || NameOnServers::Given("given".to_owned());
    let default = |name: &str| NameOnServers::Default(name.to_owned());

    for models in [&one, &two, &none, &Models::Unlisted] {
        assert_eq!(
            identifier(given(), models).unwrap(),
            "given",
            "an identifier that is set is sent"
        );
    }
    assert_eq!(identifier(default("mine"), &one).unwrap(), "one");
    assert_eq!(identifier(default("two"), &two).unwrap(), "two");
    for models in [&two, &none, &Models::Unlisted] {
        assert_eq!(identifier(default("mine"), models).unwrap(), "mine");
    }
    assert_eq!(identifier(NameOnServers::None, &one).unwrap(), "one");
    assert!(
        identifier(NameOnServers::None, &two)
            .unwrap_err()
            .contains("`one`, `two`")
    );
    assert!(identifier(NameOnServers::None, &none).unwrap_err().contains("no model"));
    assert!(identifier(NameOnServers::None, &Models::Unlisted).is_err());
}

#[test]
fn all_steps_are_reported_in_order_whichever_were_reached() {
    let mut steps = Steps::default();
    steps.passed(StepKind::Http, None, "");
    steps.skipped(StepKind::Dns, "why");
    let _failed = steps.failed(StepKind::Credential, None, advice::dropped());
    let steps = steps.finish();
    let names: Vec<&str> = steps.iter().map(|step| step.kind.as_str()).collect();
    assert_eq!(
        names,
        [
            "dns",
            "tcp",
            "tls",
            "http",
            "credential",
            "model_list",
            "chat",
            "streaming",
            "infill"
        ]
    );
    assert!(matches!(&steps[8].outcome, StepOutcome::Skipped(why) if why.contains("earlier")));
    let finding = Finding { endpoint: None, steps };
    assert!(!finding.passed());
}

#[tokio::test]
async fn a_check_that_cannot_begin_before_its_deadline_fails_with_that_reason() {
    let checker = Checker::new(upstream());
    let _taken = checker.places.acquire_many(4).await.unwrap();
    let deadline = Instant::now() + Duration::from_millis(50);
    let findings = checker.check(&subject(NameOnServers::None), deadline).await;
    let [
        Step {
            outcome: StepOutcome::Failed(problem),
            ..
        },
    ] = &*findings[0].steps
    else {
        panic!("{findings:?}")
    };
    assert_eq!(problem.reason, Reason::DeadlineExceeded);
    assert!(Instant::now() >= deadline);
}
