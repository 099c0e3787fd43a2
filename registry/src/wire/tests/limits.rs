//! Tests of the limits of features, and of the places of models that are reserved for them.

use prost_types::Duration;
use switchboard::{
    names::ResourceName,
    pb::{
        registry::{self, FeatureLimits, ModelLimits},
        types::Provider::{self, Disabled, SelfHosted, Unassigned, Vendored},
    },
    violation::Violations,
};

use super::{World, bad_fields, named, setting};
use crate::{
    domain::write::{RestoreRevision, WriteError},
    wire::{batch, configuration, delete, stored},
};

const CHAT: &str = "duo_chat";
const CODE: &str = "code_generations";
const MISTRAL: &str = "models/mistral";
const CLAUDE: &str = "models/claude-3";
const BOOKED: &str = "RESERVATION_TOO_LARGE";

fn limits(max: Option<i32>, reserved: Option<i32>) -> FeatureLimits {
    FeatureLimits {
        max_concurrency: max,
        reserved_concurrency: reserved,
    }
}

fn with_limits(feature: &str, max: Option<i32>, reserved: Option<i32>) -> registry::Feature {
    registry::Feature {
        limits: Some(limits(max, reserved)),
        ..setting(feature, None, None)
    }
}

/// Returns a feature that is assigned to a model and reserves places on it.
fn reserving(feature: &str, model: &str, reserved: i32) -> registry::Feature {
    registry::Feature {
        limits: Some(limits(None, Some(reserved))),
        ..setting(feature, Some(SelfHosted.into()), Some(model))
    }
}

fn with_places(model: &str, places: Option<i32>) -> registry::Model {
    registry::Model {
        limits: Some(ModelLimits {
            max_concurrency: places,
            ..Default::default()
        }),
        ..named(model)
    }
}

fn span(seconds: i64, nanos: i32) -> Option<Duration> {
    Some(Duration { seconds, nanos })
}

/// Creates `models/mistral` with 8 places, 5 of them reserved for the chat, and `models/claude-3` with 4 places.
fn world() -> World {
    let mut world = World::with_models(&["mistral", "claude_3"]);
    world.update(with_places(MISTRAL, Some(8)), &[]).unwrap();
    world.update(with_places(CLAUDE, Some(4)), &[]).unwrap();
    world.update_feature(reserving(CHAT, MISTRAL, 5), &[]).unwrap();
    world
}

#[test]
fn limits_of_a_feature_have_their_ranges() {
    for (given, bad) in [
        (limits(Some(1), Some(0)), None),
        (limits(Some(i32::MAX), None), None),
        (limits(Some(0), None), Some("max_concurrency VALUE_OUT_OF_RANGE")),
        (limits(None, Some(-1)), Some("reserved_concurrency VALUE_OUT_OF_RANGE")),
    ] {
        let feature = registry::Feature {
            limits: Some(given),
            ..setting(CHAT, None, None)
        };
        let outcome = World::new().update_feature(feature, &[]);
        match bad {
            None => assert_eq!(outcome.unwrap().limits, Some(given)),
            Some(bad) => assert_eq!(bad_fields(outcome), [format!("feature.limits.{bad}")]),
        }
    }
    for (delay, is_good) in [
        (span(0, 10_000_000), true),
        (span(60, 0), true),
        (span(0, 9_999_999), false),
        (span(60, 1), false),
        (span(-1, 0), false),
        (span(i64::MIN, 0), false),
    ] {
        let feature = registry::Feature {
            hedge_delay: delay,
            ..setting(CHAT, None, None)
        };
        let outcome = World::new().update_feature(feature, &[]);
        if is_good {
            assert_eq!(outcome.unwrap().hedge_delay, delay);
        } else {
            assert_eq!(
                bad_fields(outcome),
                ["feature.hedge_delay VALUE_OUT_OF_RANGE"],
                "{delay:?}"
            );
        }
    }
}

#[test]
fn limits_of_a_feature_are_set_leaf_by_leaf_and_replaced_as_a_whole_by_a_mask() {
    let stored = registry::Feature {
        hedge_delay: span(1, 0),
        ..with_limits(CHAT, Some(8), Some(2))
    };
    for (given, mask, after, delay) in [
        (
            limits(None, Some(4)),
            &[][..],
            Some(limits(Some(8), Some(4))),
            span(1, 0),
        ),
        (
            limits(None, Some(4)),
            &["limits"],
            Some(limits(None, Some(4))),
            span(1, 0),
        ),
        (limits(None, None), &["limits"], None, span(1, 0)),
        (
            limits(None, None),
            &["limits.max_concurrency"],
            Some(limits(None, Some(2))),
            span(1, 0),
        ),
        (
            limits(Some(3), None),
            &["limits.max_concurrency", "hedge_delay"],
            Some(limits(Some(3), Some(2))),
            None,
        ),
        (limits(None, None), &["*"], None, None),
    ] {
        let mut world = World::new();
        world.update_feature(stored.clone(), &[]).unwrap();
        let given = with_limits(CHAT, given.max_concurrency, given.reserved_concurrency);
        let answer = world.update_feature(given, mask).unwrap();
        assert_eq!((answer.limits, answer.hedge_delay), (after, delay), "{mask:?}");
    }
    let mut world = World::new();
    assert_eq!(
        bad_fields(world.update_feature(with_limits(CHAT, None, None), &[])),
        ["update_mask UPDATE_EMPTY"]
    );
    let read = world.update_feature(stored, &[]).unwrap();
    let before = world.revision();
    for mask in [&[][..], &["*"], &["limits", "hedge_delay"]] {
        assert_eq!(world.update_feature(read.clone(), mask).unwrap(), read);
    }
    assert_eq!(world.revision(), before);
}

#[test]
fn limits_are_kept_for_every_provider() {
    let mut world = world();
    for provider in [Vendored, Disabled, Unassigned] {
        let after = world
            .update_feature(setting(CHAT, Some(provider.into()), None), &[])
            .unwrap();
        assert_eq!(after.limits, Some(limits(None, Some(5))), "{provider:?}");
    }
    // The places are reserved again as soon as the feature has a model.
    world.update_feature(reserving(CODE, MISTRAL, 4), &[]).unwrap();
    assert_eq!(
        bad_fields(world.assign(CHAT, MISTRAL)),
        [format!("feature.model {BOOKED}")]
    );
}

#[test]
fn a_feature_reserves_no_more_than_its_own_limit() {
    let mut world = world();
    for (given, bad) in [
        (with_limits(CHAT, Some(4), None), "max_concurrency"),
        (with_limits(CHAT, Some(2), Some(3)), "reserved_concurrency"),
    ] {
        let outcome = world.update_feature(given, &[]);
        assert_eq!(bad_fields(outcome), [format!("feature.limits.{bad} {BOOKED}")]);
    }
    world.update_feature(with_limits(CHAT, Some(5), None), &[]).unwrap();
    let outcome = world.update_feature(with_limits(CHAT, None, Some(6)), &[]);
    assert_eq!(
        bad_fields(outcome),
        [format!("feature.limits.reserved_concurrency {BOOKED}")]
    );
}

#[test]
fn reservations_must_fit_the_model_of_their_feature() {
    const RESERVED: &str = "feature.limits.reserved_concurrency";
    for (given, bad) in [
        (reserving(CODE, MISTRAL, 3), None),
        (reserving(CODE, MISTRAL, 4), Some(RESERVED)),
        (reserving(CODE, CLAUDE, 4), None),
        (reserving(CODE, CLAUDE, 5), Some(RESERVED)),
        (with_limits(CHAT, None, Some(8)), None),
        (with_limits(CHAT, None, Some(9)), Some(RESERVED)),
        // The reservation moves with the feature to another model.
        (setting(CHAT, None, Some(CLAUDE)), Some("feature.model")),
        // Without a model, nothing is reserved yet.
        (with_limits(CODE, None, Some(100)), None),
        // Fallbacks and rules do not reserve places.
        (
            registry::Feature {
                fallback_models: vec![CLAUDE.to_owned()],
                ..setting(CHAT, None, None)
            },
            None,
        ),
    ] {
        let outcome = world().update_feature(given.clone(), &[]);
        match bad {
            None => drop(outcome.unwrap()),
            Some(field) => assert_eq!(bad_fields(outcome), [format!("{field} {BOOKED}")], "{given:?}"),
        }
    }
}

#[test]
fn a_feature_that_is_switched_off_reserves_no_places_until_it_is_switched_on_again() {
    let mut world = world();
    let switched = |provider: Provider| setting(CHAT, Some(provider.into()), None);
    let reserved = |world: &World| world.state.places_reserved_on(&MISTRAL.parse().unwrap());
    world.update_feature(switched(Disabled), &[]).unwrap();
    assert_eq!(reserved(&world), 0);
    world.update_feature(reserving(CODE, MISTRAL, 4), &[]).unwrap();
    assert_eq!(
        bad_fields(world.update_feature(switched(SelfHosted), &[])),
        [format!("feature.provider {BOOKED}")],
        "another feature has reserved the places in the meantime"
    );
    // While the feature is off, neither its own limits nor the model's are checked against its places.
    world.update_feature(with_limits(CHAT, None, Some(8)), &[]).unwrap();
    world.update(with_places(MISTRAL, Some(7)), &[]).unwrap();
    let less = registry::Feature {
        limits: Some(limits(None, Some(3))),
        ..switched(SelfHosted)
    };
    world.update_feature(less, &[]).unwrap();
    assert_eq!(reserved(&world), 7);
}

#[test]
fn a_model_without_a_limit_has_no_places_to_reserve() {
    let mut world = World::with_models(&["mistral"]);
    let Err(WriteError::Invalid(violations)) = world.update_feature(reserving(CHAT, MISTRAL, 1), &[]) else {
        panic!("a place was reserved");
    };
    let said = &violations.as_slice()[0].description;
    assert!(said.contains("has no `limits.max_concurrency`"), "{said}");
    world.update_feature(reserving(CHAT, MISTRAL, 0), &[]).unwrap();
}

#[test]
fn a_models_limit_cannot_be_lower_than_the_reserved_places() {
    let mut world = world();
    let bad = [format!("model.limits.max_concurrency {BOOKED}")];
    assert_eq!(bad_fields(world.update(with_places(MISTRAL, Some(4)), &[])), bad);
    for mask in [&["limits"][..], &["limits.max_concurrency"]] {
        assert_eq!(bad_fields(world.update(named(MISTRAL), mask)), bad);
    }
    world.update(with_places(MISTRAL, Some(5)), &[]).unwrap();
    world
        .update_feature(setting(CHAT, Some(Vendored.into()), None), &[])
        .unwrap();
    world.update(named(MISTRAL), &["limits"]).unwrap();
}

#[test]
fn each_update_of_a_batch_is_checked_after_the_earlier_ones() {
    let request = |feature| registry::UpdateFeatureRequest {
        feature: Some(feature),
        ..Default::default()
    };
    let mut world = world();
    let mut write = |features: &[registry::Feature]| {
        let batch = registry::BatchUpdateFeaturesRequest {
            requests: features.iter().cloned().map(request).collect(),
            ..Default::default()
        };
        world.write(&batch::update(batch)).map(|view| batch::answer(&view))
    };
    let [taken, left] = [reserving(CODE, MISTRAL, 8), with_limits(CHAT, None, Some(0))];
    let outcome = write(&[
        reserving("duo_chat_write_tests", MISTRAL, 2),
        reserving("duo_chat_refactor_code", MISTRAL, 1),
        reserving(CODE, MISTRAL, 1),
    ]);
    assert_eq!(
        bad_fields(outcome),
        [format!("requests[2].feature.limits.reserved_concurrency {BOOKED}")]
    );
    let outcome = write(&[taken.clone(), left.clone()]);
    assert_eq!(
        bad_fields(outcome),
        [format!("requests[0].feature.limits.reserved_concurrency {BOOKED}")]
    );
    write(&[left, taken]).unwrap();
}

#[test]
fn a_deleted_models_reservations_only_move_to_a_model_with_enough_places() {
    let mut world = world();
    let request = |reassign_to: &str| {
        delete::delete(registry::DeleteModelRequest {
            name: MISTRAL.to_owned(),
            reassign_to: reassign_to.to_owned(),
            ..Default::default()
        })
    };
    let outcome = world.write(&request(CLAUDE)).map(|_| ());
    assert_eq!(bad_fields(outcome), [format!("reassign_to {BOOKED}")]);
    world.update(with_places(CLAUDE, Some(7)), &[]).unwrap();
    world.update_feature(reserving(CODE, CLAUDE, 3), &[]).unwrap();
    let outcome = world.write(&request(CLAUDE)).map(|_| ());
    assert_eq!(
        bad_fields(outcome),
        [format!("reassign_to {BOOKED}")],
        "in addition to the places that are reserved there"
    );
    world.update(with_places(CLAUDE, Some(8)), &[]).unwrap();
    world.write(&request(CLAUDE)).unwrap();
    let bad = bad_fields(world.update(with_places(CLAUDE, Some(7)), &[]));
    assert_eq!(bad, [format!("model.limits.max_concurrency {BOOKED}")]);
}

#[test]
fn an_applied_configuration_is_checked_in_its_final_state() {
    let mut world = world();
    let mut config = configuration::export(&world.state).config.unwrap();
    let mut apply = |config: &registry::Config| {
        let request = registry::ApplyConfigRequest {
            config: Some(config.clone()),
            ..Default::default()
        };
        world.write(&configuration::apply(request)).map(|_| ())
    };
    apply(&config).unwrap();
    config.features.push(reserving(CODE, MISTRAL, 4));
    let index = config.features.len() - 1;
    let chat = config.features.iter().position(|feature| feature.name.ends_with(CHAT));
    let mut bad = bad_fields(apply(&config));
    bad.sort_unstable();
    let mut expected =
        [chat.unwrap(), index].map(|index| format!("config.features[{index}].limits.reserved_concurrency {BOOKED}"));
    expected.sort_unstable();
    assert_eq!(bad, expected, "all features that together reserve too much");

    let places = |config: &mut registry::Config, places| {
        let mut models = config.models.iter_mut();
        let mistral = models.find(|model| model.name == MISTRAL).unwrap();
        mistral.limits = with_places(MISTRAL, places).limits;
    };
    places(&mut config, Some(9));
    apply(&config).unwrap();
    places(&mut config, None);
    assert_eq!(bad_fields(apply(&config)).len(), 2);
    config.features.clear();
    apply(&config).unwrap();
    assert!(world.state.features.values().all(|feature| feature.value.is_unset()));
}

#[test]
fn an_export_contains_features_of_which_only_limits_are_set() {
    let mut world = World::new();
    let limited = with_limits(CODE, Some(3), None);
    world.update_feature(limited.clone(), &[]).unwrap();
    let delayed = registry::Feature {
        hedge_delay: span(0, 250_000_000),
        ..setting(CHAT, None, None)
    };
    world.update_feature(delayed.clone(), &[]).unwrap();
    let features = configuration::export(&world.state).config.unwrap().features;
    let told: Vec<_> = features
        .iter()
        .map(|feature| (&*feature.name, feature.limits, feature.hedge_delay))
        .collect();
    assert_eq!(
        told,
        [
            ("features/code_generations", limited.limits, None),
            ("features/duo_chat", None, delayed.hedge_delay)
        ]
    );
    world.update_feature(setting(CODE, None, None), &["limits"]).unwrap();
    assert_eq!(configuration::export(&world.state).config.unwrap().features.len(), 1);
}

#[test]
fn a_restore_brings_back_reservations_together_with_the_limits() {
    let mut world = world();
    let (before, names) = (world.state.items.revision(), [MISTRAL, "features/duo_chat"]);
    let values = names.map(|name| world.state.items.get(name).unwrap().value.clone());
    world.update_feature(setting(CHAT, None, None), &["limits"]).unwrap();
    world.update(named(MISTRAL), &["limits"]).unwrap();
    let since = names.iter().zip(values.iter());
    let restore = RestoreRevision {
        revision: Some(before),
        since: since
            .map(|(name, value)| stored::decode_old(&ResourceName::parse(name).unwrap(), Some(value)))
            .collect(),
        violations: Violations::new(),
    };
    assert_eq!(world.write(&restore).unwrap().diff.changes.len(), 2);
    let after = names.map(|name| world.state.items.get(name).unwrap().value.clone());
    assert_eq!(after, values);
}
