use std::{collections::BTreeSet, time::Duration};

use switchboard::{
    names::{Group, InstanceId, Revision, RouterId},
    secret::ApiToken,
    stream::{Hello, Resume, SnapshotWhy, WelcomeMode},
};

use super::*;
use crate::fleet::Member;

fn join(fleet: &Arc<Fleet>, router: &str) -> (RouterInstance, Member) {
    let key = (RouterId::parse(router).unwrap(), InstanceId::random());
    let hello = Hello {
        router: key.0.clone(),
        instance: key.1,
        group: Group::default(),
        build: "".into(),
        can_check: true,
        resume: Resume::Nothing,
        want_snapshot: false,
    };
    let member = fleet.join(hello, WelcomeMode::Snapshot(SnapshotWhy::First)).unwrap();
    (key, member)
}

fn target() -> CheckedModel {
    CheckedModel::Registered(ModelName::parse("models/a").unwrap())
}

fn credential() -> SetCredential {
    SetCredential {
        id: CredentialId::random(),
        origins: BTreeSet::new(),
        token: ApiToken::parse("sk-1".to_owned()).unwrap(),
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(1)
}

fn findings(id: CheckId) -> Findings {
    let endpoint = EndpointCheck {
        endpoint: "http://h".into(),
        passed: true,
        steps: Vec::new(),
    };
    Findings {
        id,
        revision: Revision::ZERO,
        endpoints: vec![endpoint],
    }
}

#[tokio::test]
async fn only_the_router_that_was_asked_can_answer_and_only_once() {
    let fleet = Arc::new(Fleet::default());
    let (asked, mut member) = join(&fleet, "asked");
    let (_, other) = join(&fleet, "other");
    let mut asking = fleet.ask(&asked, target(), None, soon()).unwrap();
    let order = member.orders().unwrap().recv().await.unwrap();
    other.check_findings(findings(order.id));
    member.check_findings(findings(CheckId::random()));
    member.check_findings(findings(order.id));
    member.check_findings(Findings {
        endpoints: Vec::new(),
        ..findings(order.id)
    });
    assert_eq!(asking.findings().await.unwrap(), findings(order.id).endpoints);
}

#[tokio::test]
async fn a_token_is_handed_out_once_and_only_while_its_check_runs() {
    let fleet = Arc::new(Fleet::default());
    let (router, mut member) = join(&fleet, "r");
    let mut orders = member.orders().unwrap();
    let credential = credential();
    let asking = fleet.ask(&router, target(), Some(credential.clone()), soon()).unwrap();
    let order = orders.recv().await.unwrap();
    assert_eq!(order.credential, Some(credential.id));
    assert!(fleet.take_credential(CheckId::random(), credential.id).is_none());
    assert!(fleet.take_credential(order.id, CredentialId::random()).is_none());
    assert!(fleet.take_credential(order.id, credential.id).is_some());
    assert!(
        fleet.take_credential(order.id, credential.id).is_none(),
        "a token is handed out only once"
    );
    drop(asking);

    let asking = fleet.ask(&router, target(), Some(credential.clone()), soon()).unwrap();
    let order = orders.recv().await.unwrap();
    drop(asking);
    assert!(
        fleet.take_credential(order.id, credential.id).is_none(),
        "the check is over"
    );
}

#[tokio::test]
async fn a_waiting_caller_is_notified_when_the_router_leaves_or_reconnects() {
    let fleet = Arc::new(Fleet::default());
    let (router, member) = join(&fleet, "r");
    let mut asking = fleet.ask(&router, target(), None, soon()).unwrap();
    drop(member);
    assert_eq!(asking.findings().await, Err(AskError::Gone));
    assert_eq!(fleet.ask(&router, target(), None, soon()).unwrap_err(), AskError::Gone);

    let (again, _older) = join(&fleet, "r");
    let mut asking = fleet.ask(&again, target(), None, soon()).unwrap();
    let hello = Hello {
        router: again.0.clone(),
        instance: again.1,
        group: Group::default(),
        build: "".into(),
        can_check: true,
        resume: Resume::Nothing,
        want_snapshot: false,
    };
    let _newer = fleet.join(hello, WelcomeMode::Snapshot(SnapshotWhy::First)).unwrap();
    assert_eq!(asking.findings().await, Err(AskError::Gone));
}

#[tokio::test]
async fn a_router_has_a_limited_number_of_checks_and_an_ended_check_makes_room() {
    let fleet = Arc::new(Fleet::default());
    let (router, mut member) = join(&fleet, "r");
    let mut orders = member.orders().unwrap();
    let mut asked: Vec<Asking> = (0..RUNNING_MAX)
        .map(|_| fleet.ask(&router, target(), None, soon()).unwrap())
        .collect();
    let refused = |fleet: &Arc<Fleet>| fleet.ask(&router, target(), None, soon()).unwrap_err();
    assert_eq!(refused(&fleet), AskError::Busy);
    // An order that was not sent yet takes a slot too.
    asked.pop();
    assert_eq!(refused(&fleet), AskError::Busy);
    orders.recv().await.unwrap();
    asked.push(fleet.ask(&router, target(), None, soon()).unwrap());
    assert_eq!(refused(&fleet), AskError::Busy);
    drop(asked);
    assert!(fleet.checks.lock().is_empty(), "no check remains");
}
