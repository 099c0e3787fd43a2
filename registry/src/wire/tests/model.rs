//! Creating and changing models.

use switchboard::pb::registry;

use super::{World, bad_fields, endpoints, model, named, paths};
use crate::{domain::write::WriteError, wire::model as model_wire};

const GPU1: &str = "http://gpu1:8000/v1";

#[test]
fn a_new_model_is_answered_as_it_was_given() {
    let mut world = World::new();
    let created = world
        .create(registry::Model {
            identifier: Some("custom_openai/Mistral-7B".to_owned()),
            ..model(" Mistral ", "mistral", GPU1)
        })
        .unwrap();
    assert_eq!(created.name, "models/mistral");
    assert_eq!(created.display_name(), " Mistral ");
    assert_eq!(created.identifier(), "custom_openai/Mistral-7B");
    assert_eq!(created.endpoints, endpoints(&[(GPU1, Some(1))]));
    assert_eq!((created.endpoint, created.api_token), (None, None));
    assert_eq!(created.disabled, Some(false));
    assert_eq!(created.revision, 2);
    assert!(!created.etag.is_empty() && !created.api_token_set && !created.api_token_dropped);
    assert!(created.create_time.is_some() && created.api_token_update_time.is_none());
}

#[test]
fn an_id_is_given_or_derived_and_only_a_given_one_can_be_taken() {
    let mut world = World::new();
    let long = "x".repeat(70);
    for (id, display_name, name) in [
        ("", "Mistral", "models/mistral".to_owned()),
        ("", "mistral!", "models/mistral-2".to_owned()),
        ("", "(Mistral)", "models/mistral-3".to_owned()),
        ("mine", "Mine", "models/mine".to_owned()),
        ("", "模型", "models/model".to_owned()),
        ("", "模型 2", "models/2".to_owned()),
        ("", long.as_str(), format!("models/{}", "x".repeat(63))),
        ("", &format!("{long}x"), format!("models/{}-2", "x".repeat(61))),
    ] {
        let created = world.create_as(id, model(display_name, "mistral", GPU1)).unwrap();
        assert_eq!(created.name, name);
    }

    let in_name = registry::Model {
        name: "models/mine".to_owned(),
        ..model("Other", "mistral", GPU1)
    };
    for (outcome, field) in [
        (world.create_as("mine", model("Other", "mistral", GPU1)), "model_id"),
        (world.create(in_name.clone()), "model.name"),
        (world.create(model(" MISTRAL", "mistral", GPU1)), "model.display_name"),
    ] {
        let Err(WriteError::NameTaken { field: taken, .. }) = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(taken, field);
    }
    assert_eq!(
        bad_fields(world.create_as("yours", in_name)),
        ["model.name VALUE_MALFORMED"]
    );
    let before = world.revision();
    for (id, bad) in [("Mine", "model_id VALUE_MALFORMED"), (&long, "model_id NAME_TOO_LONG")] {
        assert_eq!(bad_fields(world.create_as(id, model("New", "mistral", GPU1))), [bad]);
    }
    assert_eq!(world.revision(), before, "what is refused takes no revision");
}

#[test]
fn everything_that_is_wrong_with_a_new_model_is_told_at_once() {
    let mut world = World::new();
    assert_eq!(
        bad_fields(world.create(registry::Model::default())),
        [
            "model.display_name FIELD_REQUIRED",
            "model.family FIELD_REQUIRED",
            "model.endpoints FIELD_REQUIRED"
        ]
    );
    let bad = registry::Model {
        display_name: Some(" ".to_owned()),
        family: Some("mistrel".to_owned()),
        endpoints: endpoints(&[("http://a?x", Some(1)), ("", None), ("http://b", Some(1001))]),
        identifier: Some("bedrock/gpt".to_owned()),
        api_token: Some("a b".to_owned()),
        ..Default::default()
    };
    assert_eq!(
        bad_fields(world.create_as("A", bad)),
        [
            "model_id VALUE_MALFORMED",
            "model.display_name FIELD_REQUIRED",
            "model.family FAMILY_UNKNOWN",
            "model.endpoints[0].uri ENDPOINT_HAS_QUERY",
            "model.endpoints[1].uri FIELD_REQUIRED",
            "model.endpoints[2].weight VALUE_OUT_OF_RANGE",
            "model.api_token CREDENTIAL_NOT_ASCII",
            "model.platform PLATFORM_NOT_SUPPORTED",
        ]
    );
    let nothing = registry::CreateModelRequest::default();
    assert_eq!(
        bad_fields(world.write(&model_wire::create(nothing))),
        ["model FIELD_REQUIRED"]
    );
}

#[test]
fn bad_endpoints_are_told_where_they_stand() {
    let mut world = World::new();
    let many: Vec<_> = (0..1000)
        .flat_map(|port| endpoints(&[(&format!("http://h:{}", port + 1), None)]))
        .collect();
    for (list, short, bad) in [
        (vec![], Some("gpu1"), "model.endpoint ENDPOINT_SCHEME_UNSUPPORTED"),
        (vec![], Some("http://u@h"), "model.endpoint ENDPOINT_HAS_USERINFO"),
        (
            endpoints(&[(GPU1, None)]),
            Some("http://b"),
            "model.endpoint ENDPOINT_AMBIGUOUS",
        ),
        (
            endpoints(&[(GPU1, None), ("http://gpu1:8000", None)]),
            None,
            "model.endpoints[1].uri VALUE_REPEATED",
        ),
        (
            endpoints(&[(GPU1, Some(0))]),
            None,
            "model.endpoints VALUE_OUT_OF_RANGE",
        ),
        (many, None, "model.endpoints VALUE_OUT_OF_RANGE"),
    ] {
        let model = registry::Model {
            endpoints: list,
            endpoint: short.map(str::to_owned),
            ..model("M", "mistral", GPU1)
        };
        assert_eq!(bad_fields(world.create(model)), [bad]);
    }
}

#[test]
fn an_update_sets_what_is_present_and_a_mask_what_it_names() {
    let mut world = World::new();
    let start = registry::Model {
        identifier: Some("mistral-7b".to_owned()),
        disabled: Some(true),
        api_token: Some("t".to_owned()),
        ..model("Mistral", "mistral", GPU1)
    };
    world.create(start).unwrap();
    let renamed = registry::Model {
        display_name: Some("Mistral Small".to_owned()),
        ..named("models/mistral")
    };
    // Mask, then display name, identifier and `disabled` after it.
    for (mask, display_name, identifier, disabled) in [
        (&[][..], "Mistral Small", Some("mistral-7b"), true),
        (&["display_name"], "Mistral Small", Some("mistral-7b"), true),
        (&["identifier"], "Mistral Small", None, true),
        (&["disabled", "display_name"], "Mistral Small", None, false),
    ] {
        let updated = world.update(renamed.clone(), mask).unwrap();
        assert_eq!(updated.display_name(), display_name, "{mask:?}");
        assert_eq!(updated.identifier.as_deref(), identifier, "{mask:?}");
        assert_eq!(updated.disabled, Some(disabled), "{mask:?}");
        assert!(updated.api_token_set, "{mask:?}");
        assert_eq!(updated.name, "models/mistral");
    }
    let whole = world.update(
        registry::Model {
            disabled: Some(true),
            name: "models/mistral".to_owned(),
            ..model("New", "mixtral", "http://gpu1:8000")
        },
        &["*"],
    );
    let whole = whole.unwrap();
    assert_eq!((whole.family(), whole.identifier.clone()), ("mixtral", None));
    assert!(
        whole.api_token_set,
        "a full replacement that is silent about the token keeps it"
    );

    let emptied = world
        .update(
            registry::Model {
                identifier: Some(String::new()),
                ..named("models/mistral")
            },
            &[],
        )
        .unwrap();
    assert_eq!(emptied.identifier, None);
}

#[test]
fn bad_updates_are_told_at_once() {
    let mut world = World::new();
    world.create(model("Mistral", "mistral", GPU1)).unwrap();
    let name = named("models/mistral");
    assert_eq!(
        bad_fields(world.update(name.clone(), &[])),
        ["update_mask UPDATE_EMPTY"]
    );
    let only_output = registry::Model {
        revision: 9,
        etag: String::new(),
        ..name.clone()
    };
    assert_eq!(bad_fields(world.update(only_output, &[])), ["update_mask UPDATE_EMPTY"]);
    assert_eq!(
        bad_fields(world.update(
            name.clone(),
            &["display_name", "features", "x", "endpoints.uri", "family"]
        )),
        [
            "update_mask FIELD_OUTPUT_ONLY",
            "update_mask FIELD_UNKNOWN",
            "update_mask FIELD_UNKNOWN",
            "model.display_name FIELD_REQUIRED",
            "model.family FIELD_REQUIRED"
        ]
    );
    assert_eq!(
        bad_fields(world.update(name, &["endpoint"])),
        ["model.endpoints FIELD_REQUIRED"]
    );
    let unnamed = registry::Model {
        disabled: Some(true),
        ..Default::default()
    };
    assert_eq!(bad_fields(world.update(unnamed, &[])), ["model.name FIELD_REQUIRED"]);
    let nothing = registry::UpdateModelRequest {
        model: None,
        update_mask: paths(&["x"]),
        ..Default::default()
    };
    assert_eq!(
        bad_fields(world.write(&model_wire::update(nothing))),
        ["update_mask FIELD_UNKNOWN", "model FIELD_REQUIRED"]
    );
    let unknown = registry::Model {
        disabled: Some(true),
        ..named("models/nothing")
    };
    assert!(matches!(world.update(unknown, &[]), Err(WriteError::NotFound(_))));
}

#[test]
fn the_short_form_is_refused_where_it_would_lose_endpoints() {
    let mut world = World::new();
    let several = registry::Model {
        endpoints: endpoints(&[(GPU1, None), ("http://gpu2", Some(0))]),
        endpoint: None,
        ..model("Mistral", "mistral", "")
    };
    world.create(several).unwrap();
    let short = registry::Model {
        endpoint: Some("http://gpu3".to_owned()),
        identifier: Some("bedrock/x".to_owned()),
        ..named("models/mistral")
    };
    assert_eq!(
        bad_fields(world.update(short.clone(), &[])),
        [
            "model.identifier IDENTIFIER_PLATFORM_MISMATCH",
            "model.endpoint ENDPOINT_AMBIGUOUS"
        ]
    );
    let one = registry::Model {
        endpoints: endpoints(&[("http://gpu2", None)]),
        ..named("models/mistral")
    };
    world.update(one, &[]).unwrap();
    let moved = world.update(short, &["endpoint"]).unwrap();
    assert_eq!(moved.endpoints, endpoints(&[("http://gpu3", Some(1))]));
}

#[test]
fn what_was_read_can_be_sent_back_and_changes_nothing() {
    let mut world = World::new();
    let read = world.create(model("Mistral", "mistral", GPU1)).unwrap();
    let before = world.revision();
    for mask in [&[][..], &["*"], &["display_name", "endpoints"]] {
        assert_eq!(world.update(read.clone(), mask).unwrap(), read);
    }
    assert_eq!(world.revision(), before, "what changes nothing makes no revision");

    let renamed = registry::Model {
        display_name: Some("Other".to_owned()),
        ..read.clone()
    };
    let updated = world.update(renamed, &[]).unwrap();
    assert_eq!(updated.revision, before + 1);
    assert_ne!(updated.etag, read.etag);
    let Err(WriteError::Conflict { revision, .. }) = world.update(read, &[]) else {
        panic!("an etag from before the change is stale");
    };
    assert_eq!(revision.get(), before + 1);
}

#[test]
fn a_family_in_beta_is_newly_accepted_only_while_beta_is_on() {
    let mut world = World::new();
    let outcome = world.create(model("Q", "qwen", GPU1));
    assert_eq!(
        outcome,
        Err(WriteError::BetaNotEnabled(vec!["family `qwen`".to_owned()]))
    );
    world.create(model("M", "mistral", GPU1)).unwrap();
    let change = registry::Model {
        family: Some("qwen".to_owned()),
        ..named("models/m")
    };
    assert!(matches!(
        world.update(change.clone(), &[]),
        Err(WriteError::BetaNotEnabled(_))
    ));

    world.set_beta(true);
    assert!(!world.update(change, &[]).unwrap().kept_without_beta);
    world.set_beta(false);
    let renamed = registry::Model {
        display_name: Some("Kept".to_owned()),
        family: Some("qwen".to_owned()),
        ..named("models/m")
    };
    assert!(world.update(renamed, &[]).unwrap().kept_without_beta);
}
