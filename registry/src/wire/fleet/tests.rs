//! Tests of the fleet in answers, and of reading requests to wait.

use std::sync::Arc;

use switchboard::{
    history::View,
    names::ModelName,
    stream::{EndpointReport, EndpointState, HeldKind, HeldReport, Hello, Resume, SnapshotWhy, WithheldWhy},
};

use super::*;
use crate::{
    fleet::{Fleet, Member, health::OF_ROUTER_MAX},
    testing::History,
    wire::tests::{World, model},
};

const SERVER: &str = "http://gpu1:8000";

fn join(fleet: &Arc<Fleet>, router: &str, mode: WelcomeMode) -> Member {
    let hello = Hello {
        router: RouterId::parse(router).unwrap(),
        instance: InstanceId::random(),
        group: Group::parse("north").unwrap(),
        build: "1.2.3".into(),
        can_check: true,
        resume: Resume::Nothing,
        want_snapshot: false,
    };
    fleet.join(hello, mode).unwrap()
}

fn joined(fleet: &Arc<Fleet>, router: &str) -> Member {
    join(fleet, router, WelcomeMode::Snapshot(SnapshotWhy::First))
}

fn shown(fleet: &Fleet, history: &History) -> Vec<registry::Router> {
    let page = Page::parse("ListRouters", 0, "").unwrap();
    routers(&page, fleet.routers(None, 100), &history.state().items).0
}

#[tokio::test(start_paused = true)]
async fn a_router_is_listed_with_its_cursors_its_lag_and_its_held_items() {
    let (fleet, history) = (Arc::new(Fleet::default()), History::with_revisions(5));
    let member = joined(&fleet, "a");
    let row = &shown(&fleet, &history)[0];
    assert_eq!((&*row.router_id, &*row.group, &*row.build), ("a", "north", "1.2.3"));
    assert_eq!(
        (row.mode(), row.mode_reason()),
        (registry::Mode::Snapshot, registry::ModeReason::First)
    );
    assert_eq!((row.lag, row.report_time, row.duplicate), (None, None, false));

    tokio::time::advance(Duration::from_secs(5)).await;
    let at = history.cursor_at(3, View::Router);
    let held = HeldReport {
        resource: "models/a".into(),
        field: "family".into(),
        reason: "FAMILY_UNKNOWN".into(),
        revision: Revision::new(3).unwrap(),
        used_revision: Revision::ZERO,
        message: Box::default(),
        kind: HeldKind::Refused,
    };
    let report = Report {
        applied: Some(at),
        persisted: Some(at),
        held: vec![held],
        held_total: 7,
        ..Report::default()
    };
    member.report(report, &history.state());
    let row = &shown(&fleet, &history)[0];
    assert_eq!((row.lag, row.held_total), (Some(2), 7));
    assert_eq!(row.persisted, row.applied);
    let item = row.held[0].item.as_ref().unwrap();
    assert_eq!(
        (&*item.resource, &*item.field, &*item.reason),
        ("models/a", "family", "FAMILY_UNKNOWN")
    );
    let (connected, reported) = (row.connect_time.unwrap(), row.report_time.unwrap());
    assert!((4..=6).contains(&(reported.seconds - connected.seconds)), "{row:?}");
}

#[test]
fn the_lag_is_only_reported_for_this_history() {
    let (fleet, history) = (Arc::new(Fleet::default()), History::with_revisions(5));
    let withheld = join(&fleet, "a", WelcomeMode::Withheld(WithheldWhy::Diverged));
    let stranger = joined(&fleet, "b");
    for (member, history) in [(&withheld, &history), (&stranger, &History::with_revisions(5))] {
        let applied = Some(history.cursor_at(3, View::Router));
        let report = Report {
            applied,
            ..Report::default()
        };
        member.report(report, &history.state());
    }
    let rows = shown(&fleet, &history);
    assert_eq!((rows[0].lag, rows[1].lag), (None, None));
    assert_eq!(
        (rows[0].mode(), rows[0].mode_reason()),
        (registry::Mode::Withheld, registry::ModeReason::Diverged)
    );
}

#[test]
fn pages_of_routers_follow_one_another() {
    let (fleet, history) = (Arc::new(Fleet::default()), History::with_revisions(1));
    let _members = ["c", "a", "b", "a"].map(|router| joined(&fleet, router));
    let (mut token, mut seen) = (String::new(), Vec::new());
    for _ in 0..2 {
        let page = Page::parse("ListRouters", 2, &token).unwrap();
        let rest = fleet.routers(after(&page).unwrap().as_ref(), page.size() + 1);
        let (rows, next) = routers(&page, rest, &history.state().items);
        seen.extend(rows.into_iter().map(|row| row.router_id));
        token = next;
    }
    assert_eq!((seen, &*token), (["a", "a", "b", "c"].map(str::to_owned).to_vec(), ""));
    let (_, foreign) = Page::parse("ListRouters", 1, "")
        .unwrap()
        .cut(["x", "y"].into_iter(), |key| key);
    assert!(after(&Page::parse("ListRouters", 1, &foreign).unwrap()).is_err());
}

#[test]
fn every_invalid_field_of_a_wait_is_named() {
    let request = registry::WaitForRevisionRequest {
        revision: -1,
        incarnation: "x".to_owned(),
        group: "a\nb".to_owned(),
        min_routers: Some(-1),
        timeout: prost_types::Duration::try_from(Duration::from_secs(901)).ok(),
    };
    let violations = wait(&request, None).unwrap_err();
    let fields: Vec<&str> = violations.as_slice().iter().map(|bad| bad.field.as_str()).collect();
    assert_eq!(fields, ["revision", "incarnation", "group", "min_routers", "timeout"]);
}

#[test]
fn a_wait_ends_before_its_call_does() {
    let seconds = Duration::from_secs;
    let rows = [
        (None, None, 60),
        (None, Some(200), 200),
        (None, Some(2_000), 900),
        (Some(30), None, 30),
        (Some(30), Some(10), 10),
        (Some(0), Some(10), 0),
    ];
    for (timeout, allowed, expected) in rows {
        let request = registry::WaitForRevisionRequest {
            timeout: timeout.and_then(|timeout| prost_types::Duration::try_from(seconds(timeout)).ok()),
            ..Default::default()
        };
        let (wanted, timeout) = wait(&request, allowed.map(seconds)).unwrap();
        assert_eq!(timeout, seconds(expected));
        assert_eq!((wanted.revision, wanted.min_routers), (None, 1));
    }
}

fn told(model: &str, uri: &str, state: Option<EndpointState>, reason: &str) -> EndpointReport {
    EndpointReport {
        model: ModelName::from_id(model).unwrap(),
        uri: uri.into(),
        state,
        reason: reason.into(),
    }
}

fn endpoints(endpoints: Vec<EndpointReport>) -> Report {
    Report {
        endpoints,
        ..Report::default()
    }
}

fn world() -> World {
    let mut world = World::new();
    world.create(model("Mistral", "mistral", SERVER)).unwrap();
    world
}

/// Returns the endpoint, state, reason, and number of reporting routers of each endpoint.
fn health_of(fleet: &Fleet, world: &World) -> Vec<(String, types::EndpointState, String, i32)> {
    let models = world.state.models.values().map(|model| &model.value);
    let all = fleet.health_of(models, 2).into_iter().flatten().collect();
    let shown = health(all, 2).into_iter();
    shown
        .map(|shown| {
            (
                shown.uri.clone(),
                shown.state(),
                shown.reason.clone(),
                shown.router_count,
            )
        })
        .collect()
}

#[test]
fn the_worst_state_is_shown_until_its_router_reports_another_or_disconnects() {
    use EndpointState::{Healthy, Misconfigured, Recovering};
    let (fleet, world) = (Arc::new(Fleet::default()), world());
    let [a, b, c] = ["a", "b", "c"].map(|router| joined(&fleet, router));
    let says = |member: &Member, state, reason: &str| {
        member.report(endpoints(vec![told("mistral", SERVER, state, reason)]), &world.state);
    };
    assert!(health_of(&fleet, &world).is_empty(), "no router has reported it");
    says(&a, Some(Healthy), "");
    says(&b, Some(Misconfigured), "UPSTREAM_CREDENTIAL_REJECTED");
    says(&c, Some(Recovering), "UPSTREAM_CONNECT_FAILED");
    let row = |state, reason: &str, count| vec![(SERVER.to_owned(), state, reason.to_owned(), count)];
    assert_eq!(
        health_of(&fleet, &world),
        row(types::EndpointState::Misconfigured, "UPSTREAM_CREDENTIAL_REJECTED", 3)
    );
    let models = world.state.models.values().map(|model| &model.value);
    let all = fleet.health_of(models, 2).into_iter().flatten().collect();
    let routers = &health(all, 2)[0].routers;
    let ids: Vec<&str> = routers.iter().map(|router| router.router.as_str()).collect();
    assert_eq!(ids, ["b", "c"], "the worst first, up to the requested number");

    says(&b, None, "");
    drop(c);
    assert_eq!(health_of(&fleet, &world), row(types::EndpointState::Healthy, "", 1));
    a.report(Report::default(), &world.state);
    assert_eq!(
        health_of(&fleet, &world).len(),
        1,
        "a report only changes the endpoints that it contains"
    );
}

#[test]
fn only_endpoints_of_existing_models_are_kept() {
    let (fleet, mut world) = (Arc::new(Fleet::default()), world());
    let member = joined(&fleet, "a");
    let healthy = Some(EndpointState::Healthy);
    let other = "http://gpu2:8000";
    let report = endpoints(vec![
        told("mistral", SERVER, healthy, ""),
        told("mistral", other, healthy, ""),
        told("other", SERVER, healthy, ""),
    ]);
    member.report(report, &world.state);
    assert_eq!(health_of(&fleet, &world).len(), 1);
    let moved = registry::Model {
        name: "models/mistral".to_owned(),
        endpoint: Some(other.to_owned()),
        ..Default::default()
    };
    world.update(moved, &[]).unwrap();
    assert!(health_of(&fleet, &world).is_empty());
}

#[test]
fn a_platforms_own_endpoint_belongs_to_the_model() {
    let (fleet, mut world) = (Arc::new(Fleet::default()), World::new());
    let claude = registry::Model {
        endpoint: None,
        platform: Some(registry::Platform::Anthropic.into()),
        ..model("Claude", "claude_3", "")
    };
    world.create(claude).unwrap();
    let member = joined(&fleet, "a");
    let own = "https://api.anthropic.com";
    let report = endpoints(vec![told("claude", own, Some(EndpointState::Healthy), "")]);
    member.report(report, &world.state);
    assert_eq!(health_of(&fleet, &world)[0].0, own);
}

#[test]
fn a_newer_stream_of_a_router_begins_without_health_reports() {
    let (fleet, world) = (Arc::new(Fleet::default()), world());
    let hello = Hello {
        router: RouterId::parse("a").unwrap(),
        instance: InstanceId::random(),
        group: Group::default(),
        build: "1".into(),
        can_check: true,
        resume: Resume::Nothing,
        want_snapshot: false,
    };
    let mode = WelcomeMode::Snapshot(SnapshotWhy::First);
    let older = fleet.join(hello.clone(), mode).unwrap();
    let report = || endpoints(vec![told("mistral", SERVER, Some(EndpointState::Recovering), "X")]);
    older.report(report(), &world.state);
    let _newer = fleet.join(hello, mode).unwrap();
    older.report(report(), &world.state);
    assert!(health_of(&fleet, &world).is_empty());
    drop(older);
    assert!(health_of(&fleet, &world).is_empty());
}

#[test]
fn the_number_of_endpoints_kept_per_router_is_limited() {
    let (fleet, mut world) = (Arc::new(Fleet::default()), World::new());
    let per_model = 64;
    let count = OF_ROUTER_MAX / per_model + 1;
    let uri = |number: usize| format!("http://gpu{number}:8000");
    for number in 0..count {
        let mut model = model(&format!("M{number}"), "mistral", SERVER);
        model.endpoint = None;
        model.endpoints = (0..per_model)
            .map(|number| registry::Endpoint {
                uri: uri(number),
                ..Default::default()
            })
            .collect();
        world.create(model).unwrap();
    }
    let member = joined(&fleet, "a");
    for number in 0..count {
        let told =
            (0..per_model).map(|server| told(&format!("m{number}"), &uri(server), Some(EndpointState::Healthy), ""));
        member.report(endpoints(told.collect()), &world.state);
    }
    assert_eq!(health_of(&fleet, &world).len(), OF_ROUTER_MAX);
    drop(member);
    assert!(health_of(&fleet, &world).is_empty());
}
