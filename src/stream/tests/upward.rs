//! Tests of messages from routers: which fields are read, and which values are refused.

use super::*;

fn hello() -> registry::Hello {
    registry::Hello {
        group: "north".to_owned(),
        router_id: "router-1".to_owned(),
        instance: InstanceId::random().to_string(),
        build: "1.2.3".to_owned(),
        capabilities: Vec::new(),
        resume: None,
        want_snapshot: true,
    }
}

fn held() -> registry::Held {
    registry::Held {
        item: Some(types::Refusal {
            resource: "models/a".to_owned(),
            field: "model.family".to_owned(),
            reason: "VALUE_UNKNOWN".to_owned(),
            message: "x".repeat(10_000),
            revision: 7,
        }),
        why: registry::HeldWhy::Dependency.into(),
        used_revision: 5,
    }
}

fn endpoint() -> registry::EndpointReport {
    registry::EndpointReport {
        model: "models/a".to_owned(),
        uri: "http://gpu1:8000".to_owned(),
        state: types::EndpointState::Misconfigured.into(),
        reason: "UPSTREAM_CREDENTIAL_REJECTED".to_owned(),
    }
}

fn report() -> registry::Report {
    let at = cursor(3);
    registry::Report {
        persisted: Some((&at).into()),
        endpoints: vec![endpoint()],
        applied: Some((&at).into()),
        received: Some((&at).into()),
        held: vec![held()],
        held_total: 1,
        history_refusal: Some(registry::HistoryRefusal {
            why: registry::HistoryRefusalWhy::StoreChanged.into(),
            offered: Some((&at).into()),
        }),
        probe: 3,
        apply_duration: prost_types::Duration::try_from(Duration::from_millis(20)).ok(),
    }
}

fn bad_fields<T: std::fmt::Debug>(parsed: Result<T, Violations>) -> Vec<(String, FieldReason)> {
    let violations = parsed.unwrap_err();
    let bad = violations.as_slice().iter();
    bad.map(|bad| (bad.field.clone(), bad.reason)).collect()
}

#[test]
fn a_hello_is_read() {
    let wire = hello();
    let read = Hello::try_from(&wire).unwrap();
    assert_eq!(read.router.to_string(), wire.router_id);
    assert_eq!(read.instance.to_string(), wire.instance);
    assert_eq!((&*read.build, read.want_snapshot), ("1.2.3", true));
    assert_eq!(read.group.to_string(), "north");
    assert_eq!(read.resume, Resume::Nothing);
}

#[test]
fn a_hello_with_an_unreadable_cursor_is_accepted() {
    let wire = registry::Hello {
        resume: Some(types::Cursor::default()),
        ..hello()
    };
    assert_eq!(Hello::try_from(&wire).unwrap().resume, Resume::Unreadable);
}

#[test]
fn every_invalid_field_of_a_hello_is_named() {
    let wire = registry::Hello {
        router_id: "a b".to_owned(),
        instance: "X".to_owned(),
        group: "a\nb".to_owned(),
        build: "b".repeat(256),
        ..hello()
    };
    let expected = [
        ("hello.router_id".to_owned(), FieldReason::ValueMalformed),
        ("hello.instance".to_owned(), FieldReason::ValueMalformed),
        ("hello.group".to_owned(), FieldReason::ValueMalformed),
        ("hello.build".to_owned(), FieldReason::ValueOutOfRange),
    ];
    assert_eq!(bad_fields(Hello::try_from(&wire)), expected);
}

#[test]
fn a_report_is_read() {
    let wire = report();
    let read = Report::try_from(&wire).unwrap();
    assert_eq!(read.applied.unwrap().revision.get(), 3);
    assert_eq!((read.received, read.persisted), (read.applied, read.applied));
    assert_eq!(read.held_total, 1);
    assert_eq!(read.apply_duration, Duration::from_millis(20));
    let [held] = &read.held[..] else { panic!("{read:?}") };
    assert_eq!(
        (&*held.resource, &*held.field, &*held.reason),
        ("models/a", "model.family", "VALUE_UNKNOWN")
    );
    assert_eq!((held.revision.get(), held.used_revision.get()), (7, 5));
    assert_eq!(held.kind, HeldKind::Dependency);
    let [endpoint] = &read.endpoints[..] else {
        panic!("{read:?}")
    };
    assert_eq!(
        (endpoint.model.id(), &*endpoint.uri, &*endpoint.reason),
        ("a", "http://gpu1:8000", "UPSTREAM_CREDENTIAL_REJECTED")
    );
    assert_eq!(endpoint.state, Some(EndpointState::Misconfigured));
    let refusal = read.history_refusal.unwrap();
    assert_eq!(
        (refusal.why, refusal.offered),
        (HistoryRefusalWhy::StoreChanged, read.applied)
    );
    assert_eq!(Report::try_from(&registry::Report::default()), Ok(Report::default()));
}

#[test]
fn every_invalid_field_of_a_report_is_named() {
    let spoilt = |spoil: fn(&mut registry::Report)| {
        let mut wire = report();
        spoil(&mut wire);
        bad_fields(Report::try_from(&wire))
    };
    fn item(report: &mut registry::Report) -> &mut types::Refusal {
        report.held[0].item.as_mut().unwrap()
    }
    type Row = (fn(&mut registry::Report), &'static str, FieldReason);
    let rows: [Row; 20] = [
        (
            |r| r.applied = Some(types::Cursor::default()),
            "report.applied",
            FieldReason::ValueMalformed,
        ),
        (
            |r| r.received = Some(types::Cursor::default()),
            "report.received",
            FieldReason::ValueMalformed,
        ),
        (
            |r| r.persisted = Some(types::Cursor::default()),
            "report.persisted",
            FieldReason::ValueMalformed,
        ),
        (
            |r| r.endpoints[0].model = "gadgets/a".to_owned(),
            "report.endpoints[0].model",
            FieldReason::ValueMalformed,
        ),
        (
            |r| r.endpoints[0].uri = "u".repeat(2049),
            "report.endpoints[0].uri",
            FieldReason::ValueOutOfRange,
        ),
        (
            |r| r.endpoints[0].reason = "a\rb".to_owned(),
            "report.endpoints[0].reason",
            FieldReason::ValueMalformed,
        ),
        (
            |r| r.endpoints[0].state = 6,
            "report.endpoints[0].state",
            FieldReason::ValueUnknown,
        ),
        (|r| r.held_total = 0, "report.held_total", FieldReason::ValueOutOfRange),
        (|r| r.held_total = -1, "report.held_total", FieldReason::ValueOutOfRange),
        (
            |r| r.held[0].item = None,
            "report.held[0].item",
            FieldReason::FieldRequired,
        ),
        (|r| r.held[0].why = 0, "report.held[0].why", FieldReason::ValueUnknown),
        (
            |r| r.held[0].used_revision = -1,
            "report.held[0].used_revision",
            FieldReason::ValueOutOfRange,
        ),
        (
            |r| item(r).revision = -1,
            "report.held[0].item.revision",
            FieldReason::ValueOutOfRange,
        ),
        (
            |r| item(r).resource = "m".repeat(256),
            "report.held[0].item.resource",
            FieldReason::ValueOutOfRange,
        ),
        (
            |r| item(r).field = "a\nb".to_owned(),
            "report.held[0].item.field",
            FieldReason::ValueMalformed,
        ),
        (
            |r| item(r).reason = "R".repeat(64),
            "report.held[0].item.reason",
            FieldReason::ValueOutOfRange,
        ),
        (
            |r| r.history_refusal = Some(registry::HistoryRefusal::default()),
            "report.history_refusal.why",
            FieldReason::ValueUnknown,
        ),
        (
            |r| r.history_refusal.as_mut().unwrap().offered = Some(types::Cursor::default()),
            "report.history_refusal.offered",
            FieldReason::ValueMalformed,
        ),
        (
            |r| r.apply_duration = Some(prost_types::Duration { seconds: -1, nanos: 0 }),
            "report.apply_duration",
            FieldReason::ValueOutOfRange,
        ),
        (
            |r| {
                r.apply_duration = Some(prost_types::Duration {
                    seconds: i64::MIN,
                    nanos: i32::MIN,
                });
            },
            "report.apply_duration",
            FieldReason::ValueOutOfRange,
        ),
    ];
    for (spoil, field, reason) in rows {
        assert_eq!(spoilt(spoil), [(field.to_owned(), reason)]);
    }
}

#[test]
fn a_report_lists_at_most_256_held_items() {
    let listing = |count: usize| registry::Report {
        held: vec![held(); count],
        held_total: 300,
        ..report()
    };
    assert_eq!(Report::try_from(&listing(256)).unwrap().held.len(), 256);
    let expected = [("report.held".to_owned(), FieldReason::ValueOutOfRange)];
    assert_eq!(bad_fields(Report::try_from(&listing(257))), expected);
}

#[test]
fn a_report_lists_at_most_1000_endpoints() {
    let listing = |count: usize| registry::Report {
        endpoints: vec![endpoint(); count],
        ..report()
    };
    assert_eq!(Report::try_from(&listing(1_000)).unwrap().endpoints.len(), 1_000);
    let expected = [("report.endpoints".to_owned(), FieldReason::ValueOutOfRange)];
    assert_eq!(bad_fields(Report::try_from(&listing(1_001))), expected);
}

#[test]
fn a_message_of_an_unknown_kind_is_refused() {
    let message = RouterMessage::try_from(registry::SubscribeRequest { kind: None });
    assert_eq!(message, Err(RouterMessageError::UnknownKind));
}

#[test]
fn unknown_capabilities_of_a_hello_are_ignored() {
    let can_check = |words: &[&str]| {
        let capabilities = words.iter().map(|&word| word.to_owned()).collect();
        let hello = registry::Hello {
            capabilities,
            ..hello()
        };
        Hello::try_from(&hello).map(|hello| hello.can_check)
    };
    assert_eq!(can_check(&[]), Ok(false));
    assert_eq!(can_check(&["later", "checks"]), Ok(true));
    for bad in [vec!["a"; 65], vec!["a b"], vec![&*"a".repeat(64)]] {
        let violations = can_check(&bad).unwrap_err();
        assert_eq!(violations.as_slice()[0].field, "hello.capabilities");
    }
}

#[test]
fn messages_from_a_router_survive_the_conversion_and_back() {
    let wire = registry::Report {
        held: vec![registry::Held {
            item: Some(types::Refusal {
                message: String::new(),
                ..held().item.unwrap()
            }),
            ..held()
        }],
        ..report()
    };
    let report = RouterMessage::Report(Report::try_from(&wire).unwrap());
    let resumed = registry::Hello {
        resume: Some((&cursor(2)).into()),
        capabilities: vec![capability::CHECKS.to_owned()],
        ..hello()
    };
    let hello = RouterMessage::Hello(Hello::try_from(&resumed).unwrap());
    for (message, wire) in [
        (report, subscribe_request::Kind::Report(wire)),
        (hello, subscribe_request::Kind::Hello(resumed)),
    ] {
        let request = registry::SubscribeRequest::from(&message);
        assert_eq!(request.kind, Some(wire));
        assert_eq!(RouterMessage::try_from(request), Ok(message));
    }
}

#[test]
fn findings_survive_the_conversion_and_back_and_are_bounded() {
    let step = registry::CheckStep {
        step: "dns".to_owned(),
        outcome: registry::CheckOutcome::Failed.into(),
        latency: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        fault: registry::Fault::Network.into(),
        reason: "UPSTREAM_DNS_FAILED".to_owned(),
        message: "m".to_owned(),
        remedy: "r".to_owned(),
    };
    let check = registry::ModelCheck {
        router: String::new(),
        endpoint: "http://h".to_owned(),
        passed: false,
        steps: vec![step.clone()],
    };
    let result = registry::CheckResult {
        check_id: CheckId::random().to_string(),
        revision: 1,
        checks: vec![check.clone()],
    };
    let found = Findings::try_from(&result).unwrap();
    assert_eq!(registry::CheckResult::from(&found), result);
    let named = registry::ModelCheck {
        router: "r".to_owned(),
        ..check.clone()
    };
    assert_eq!(found.endpoints[0].to_wire("r".to_owned()), named);

    let bad = registry::CheckResult {
        check_id: "x".to_owned(),
        checks: vec![
            registry::ModelCheck {
                steps: vec![
                    registry::CheckStep {
                        outcome: 0,
                        message: "m".repeat(1_001),
                        remedy: "a\nb".to_owned(),
                        latency: Some(prost_types::Duration { seconds: -1, nanos: 0 }),
                        ..step
                    };
                    17
                ],
                ..check
            };
            65
        ],
        ..result
    };
    let violations = Findings::try_from(&bad).unwrap_err();
    let fields: std::collections::BTreeSet<&str> = violations.as_slice().iter().map(|bad| bad.field.as_str()).collect();
    for field in [
        "check_result.check_id",
        "check_result.checks",
        "check_result.checks[0].steps",
        "check_result.checks[0].steps[0].outcome",
        "check_result.checks[0].steps[0].message",
        "check_result.checks[0].steps[0].remedy",
        "check_result.checks[0].steps[0].latency",
    ] {
        assert!(fields.contains(field), "{field}");
    }
}
