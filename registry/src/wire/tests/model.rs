//! Tests of creating and changing models.

use switchboard::pb::registry;

use super::{World, bad_fields, endpoints, model, named};
use crate::domain::write::WriteError;

const GPU1: &str = "http://gpu1:8000/v1";

#[test]
fn a_created_model_is_returned_as_it_was_given() {
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
fn an_id_is_given_or_derived() {
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
}

#[test]
fn an_update_sets_present_fields_or_the_fields_in_the_mask() {
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
    // The mask; then the display name, identifier and `disabled` after the update.
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
        "a full replacement without a token keeps the stored one"
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
fn the_short_form_is_refused_if_it_would_lose_endpoints() {
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
fn a_model_that_was_read_can_be_sent_back_and_changes_nothing() {
    let mut world = World::new();
    let read = world.create(model("Mistral", "mistral", GPU1)).unwrap();
    let before = world.revision();
    for mask in [&[][..], &["*"], &["display_name", "endpoints"]] {
        assert_eq!(world.update(read.clone(), mask).unwrap(), read);
    }
    assert_eq!(world.revision(), before, "a write without changes makes no revision");

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
fn a_family_in_beta_can_be_newly_chosen_only_while_beta_is_on() {
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
