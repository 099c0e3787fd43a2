//! Tests of the optional fields of a model: set, replaced, cleared and refused.

use std::collections::BTreeMap;

use prost_types::Duration;
use switchboard::pb::registry::{self, InfillMode, ModelLimits, Tls};

use super::{World, bad_fields, endpoints, model, named};

const NAME: &str = "models/m";
const CA: &str = include_str!("../../../../src/resource/model/tls/ca.pem");

fn world() -> World {
    let mut world = World::new();
    world.create(model("M", "mistral", "http://gpu1:8000")).unwrap();
    world
}

fn span(seconds: i64, nanos: i32) -> Option<Duration> {
    Some(Duration { seconds, nanos })
}

fn with_limits(limits: ModelLimits) -> registry::Model {
    registry::Model {
        limits: Some(limits),
        ..named(NAME)
    }
}

fn with_tls(ca_pem: Option<&str>, server_name: Option<&str>) -> registry::Model {
    registry::Model {
        tls: Some(Tls {
            ca_pem: ca_pem.map(str::to_owned),
            server_name: server_name.map(str::to_owned),
        }),
        ..named(NAME)
    }
}

fn with_labels(labels: &[(&str, &str)]) -> registry::Model {
    let labels = labels.iter().map(|&(key, value)| (key.to_owned(), value.to_owned()));
    registry::Model {
        labels: labels.collect(),
        ..named(NAME)
    }
}

#[test]
fn every_limit_has_its_range() {
    let none = ModelLimits::default();
    let nanosecond = span(0, 1);
    for (limits, leaf) in [
        (
            ModelLimits {
                max_concurrency: Some(1),
                ..none
            },
            None,
        ),
        (
            ModelLimits {
                max_concurrency: Some(0),
                ..none
            },
            Some("max_concurrency"),
        ),
        (
            ModelLimits {
                max_queue: Some(0),
                ..none
            },
            None,
        ),
        (
            ModelLimits {
                max_queue: Some(10_000),
                ..none
            },
            None,
        ),
        (
            ModelLimits {
                max_queue: Some(10_001),
                ..none
            },
            Some("max_queue"),
        ),
        (
            ModelLimits {
                max_queue: Some(-1),
                ..none
            },
            Some("max_queue"),
        ),
        (
            ModelLimits {
                queue_timeout: span(300, 0),
                ..none
            },
            None,
        ),
        (
            ModelLimits {
                queue_timeout: span(300, 1),
                ..none
            },
            Some("queue_timeout"),
        ),
        (
            ModelLimits {
                connect_timeout: span(60, 0),
                ..none
            },
            None,
        ),
        (
            ModelLimits {
                connect_timeout: span(61, 0),
                ..none
            },
            Some("connect_timeout"),
        ),
        (
            ModelLimits {
                first_token_timeout: span(900, 0),
                ..none
            },
            None,
        ),
        (
            ModelLimits {
                first_token_timeout: span(901, 0),
                ..none
            },
            Some("first_token_timeout"),
        ),
        (
            ModelLimits {
                idle_timeout: nanosecond,
                ..none
            },
            None,
        ),
        (
            ModelLimits {
                idle_timeout: span(0, 0),
                ..none
            },
            Some("idle_timeout"),
        ),
        (
            ModelLimits {
                total_timeout: span(900, 0),
                ..none
            },
            None,
        ),
        (
            ModelLimits {
                total_timeout: span(-1, 0),
                ..none
            },
            Some("total_timeout"),
        ),
        (
            ModelLimits {
                total_timeout: span(i64::MIN, 0),
                ..none
            },
            Some("total_timeout"),
        ),
        (
            ModelLimits {
                max_output_tokens: Some(i32::MAX),
                ..none
            },
            None,
        ),
        (
            ModelLimits {
                max_output_tokens: Some(0),
                ..none
            },
            Some("max_output_tokens"),
        ),
        (
            ModelLimits {
                context_tokens: Some(1),
                ..none
            },
            None,
        ),
        (
            ModelLimits {
                context_tokens: Some(-1),
                ..none
            },
            Some("context_tokens"),
        ),
    ] {
        let outcome = world().update(with_limits(limits), &[]);
        match leaf {
            None => assert_eq!(outcome.unwrap().limits, Some(limits)),
            Some(leaf) => assert_eq!(bad_fields(outcome), [format!("model.limits.{leaf} VALUE_OUT_OF_RANGE")]),
        }
    }
}

#[test]
fn limits_are_set_leaf_by_leaf_and_replaced_as_a_whole_by_a_mask() {
    let stored = ModelLimits {
        max_concurrency: Some(8),
        max_queue: Some(0),
        queue_timeout: span(2, 500_000_000),
        ..Default::default()
    };
    let given = ModelLimits {
        max_queue: Some(4),
        ..Default::default()
    };
    for (mask, max_concurrency, max_queue, queue_timeout) in [
        (&[][..], Some(8), Some(4), stored.queue_timeout),
        (&["limits"], None, Some(4), None),
        (&["limits.max_queue"], Some(8), Some(4), stored.queue_timeout),
        (&["limits.max_concurrency"], None, Some(0), stored.queue_timeout),
        (&["limits.max_queue", "limits.queue_timeout"], Some(8), Some(4), None),
    ] {
        let mut world = world();
        assert_eq!(world.update(with_limits(stored), &[]).unwrap().limits, Some(stored));
        let limits = world.update(with_limits(given), mask).unwrap().limits.unwrap();
        assert_eq!(limits.max_concurrency, max_concurrency, "{mask:?}");
        assert_eq!(limits.max_queue, max_queue, "{mask:?}");
        assert_eq!(limits.queue_timeout, queue_timeout, "{mask:?}");
    }
    let mut world = world();
    world.update(with_limits(stored), &[]).unwrap();
    assert_eq!(world.update(named(NAME), &["limits"]).unwrap().limits, None);
    assert_eq!(
        bad_fields(world.update(with_limits(ModelLimits::default()), &[])),
        ["update_mask UPDATE_EMPTY"]
    );
}

#[test]
fn zones_are_replaced_with_their_list() {
    let at = |zone: &str| registry::Model {
        endpoints: vec![registry::Endpoint {
            uri: "http://gpu1:8000".to_owned(),
            zone: zone.to_owned(),
            ..Default::default()
        }],
        ..named(NAME)
    };
    let mut world = world();
    let longest = "ä".repeat(63);
    for zone in ["eu-west-1a", &longest, "", "Keller links"] {
        let answer = world.update(at(zone), &[]).unwrap();
        assert_eq!(answer.endpoints[0].zone, zone);
        let before = world.revision();
        assert_eq!(world.update(answer.clone(), &["*"]).unwrap(), answer);
        assert_eq!(world.revision(), before);
    }
    let short = registry::Model {
        endpoint: Some("http://gpu1:8000".to_owned()),
        ..named(NAME)
    };
    assert_eq!(world.update(short, &[]).unwrap().endpoints[0].zone, "");
    for (zone, reason) in [
        ("a".repeat(64), "VALUE_OUT_OF_RANGE"),
        ("a\tb".to_owned(), "VALUE_MALFORMED"),
    ] {
        let outcome = world.update(at(&zone), &[]);
        assert_eq!(bad_fields(outcome), [format!("model.endpoints[0].zone {reason}")]);
    }
}

#[test]
fn tls_is_parsed_and_cleared_leaf_by_leaf() {
    let mut world = world();
    let both = with_tls(Some(CA), Some("gpu.example.com"));
    assert_eq!(world.update(both.clone(), &[]).unwrap().tls, both.tls);
    let renamed = world.update(with_tls(None, Some("10.0.0.1")), &[]).unwrap();
    assert_eq!(renamed.tls, with_tls(Some(CA), Some("10.0.0.1")).tls);
    let emptied = world.update(with_tls(Some(""), None), &[]).unwrap();
    assert_eq!(emptied.tls, with_tls(None, Some("10.0.0.1")).tls);
    let replaced = world.update(with_tls(Some(CA), None), &["tls"]).unwrap();
    assert_eq!(replaced.tls, with_tls(Some(CA), None).tls);
    assert_eq!(world.update(named(NAME), &["tls.ca_pem"]).unwrap().tls, None);
    let large = CA.repeat(120);
    for (ca, server_name, bad) in [
        (Some("no certificate"), None, "model.tls.ca_pem CERTIFICATE_MALFORMED"),
        (Some(&*large), None, "model.tls.ca_pem VALUE_OUT_OF_RANGE"),
        (None, Some("https://gpu1"), "model.tls.server_name VALUE_MALFORMED"),
    ] {
        assert_eq!(bad_fields(world.update(with_tls(ca, server_name), &[])), [bad]);
    }
}

#[test]
fn labels_are_replaced_as_a_whole() {
    let mut world = world();
    let first = with_labels(&[("team", "a"), ("note", "")]);
    assert_eq!(world.update(first.clone(), &[]).unwrap().labels, first.labels);
    let second = with_labels(&[("team", "b")]);
    assert_eq!(world.update(second.clone(), &[]).unwrap().labels, second.labels);
    let silent = registry::Model {
        disabled: Some(true),
        ..named(NAME)
    };
    assert_eq!(world.update(silent, &[]).unwrap().labels, second.labels);
    assert_eq!(world.update(named(NAME), &["labels"]).unwrap().labels, BTreeMap::new());

    let many: Vec<_> = (0..65).map(|number| format!("k{number}")).collect();
    let many: Vec<_> = many.iter().map(|key| (key.as_str(), "")).collect();
    let (longest_key, longest_value) = ("ä".repeat(63), "ä".repeat(255));
    let (long_key, long_value) = ("k".repeat(64), "v".repeat(256));
    for good in [&many[..64], &[(&*longest_key, &*longest_value)]] {
        world.update(with_labels(good), &[]).unwrap();
    }
    for bad in [&many[..], &[("", "v")], &[(&*long_key, "v")], &[("k", &*long_value)]] {
        let outcome = world.update(with_labels(bad), &[]);
        assert_eq!(bad_fields(outcome), ["model.labels VALUE_OUT_OF_RANGE"]);
    }
}

#[test]
fn a_model_that_is_too_large_to_be_stored_is_refused() {
    let long = |number| (format!("http://h{number}/{}", "p".repeat(2000)), Some(1));
    let list: Vec<_> = (0..64).map(long).collect();
    let list: Vec<_> = list.iter().map(|(uri, weight)| (uri.as_str(), *weight)).collect();
    let labels = |letter: &str| {
        let entry = |number| (format!("k{number}"), letter.repeat(255));
        (0..64).map(entry).collect()
    };
    let large = |labels| registry::Model {
        endpoints: endpoints(&list),
        labels,
        tls: with_tls(Some(&CA.repeat(95)), None).tls,
        ..named(NAME)
    };
    let mut world = world();
    world.update(large(labels("v")), &[]).unwrap();
    assert_eq!(
        bad_fields(world.update(large(labels("𝄞")), &[])),
        ["model VALUE_OUT_OF_RANGE"]
    );
}

#[test]
fn a_model_with_all_fields_that_was_read_can_be_sent_back() {
    let mut world = world();
    let full = registry::Model {
        limits: Some(ModelLimits {
            max_queue: Some(0),
            idle_timeout: span(1, 1),
            ..Default::default()
        }),
        infill_mode: Some(InfillMode::Suffix.into()),
        tls: with_tls(Some(CA), Some("gpu1")).tls,
        labels: with_labels(&[("a", "b")]).labels,
        ..named(NAME)
    };
    let read = world.update(full, &[]).unwrap();
    let before = world.revision();
    for mask in [&[][..], &["*"], &["limits", "tls", "labels"]] {
        assert_eq!(world.update(read.clone(), mask).unwrap(), read);
    }
    assert_eq!(world.revision(), before);
}
