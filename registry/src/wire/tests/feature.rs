//! Tests of assigning features.

use switchboard::pb::{
    registry,
    types::Provider::{self, Disabled, SelfHosted, Unassigned, Unspecified, Vendored},
};

use super::{World, bad_fields, named, setting};
use crate::domain::write::WriteError;

const CHAT: &str = "duo_chat";
const MISTRAL: &str = "models/mistral";

fn number(provider: Provider) -> Option<i32> {
    Some(provider.into())
}

#[test]
fn an_assigned_feature_is_listed_by_its_model() {
    let mut world = World::with_models(&["mistral"]);
    let feature = world.assign(CHAT, MISTRAL).unwrap();
    assert_eq!((feature.provider(), feature.model()), (SelfHosted, MISTRAL));
    assert_eq!(feature.revision, world.revision());
    assert_eq!(feature.display_name, "General Chat");
    assert!(feature.assignable && !feature.kept_without_beta && feature.update_time.is_some());
    let model = registry::Model {
        disabled: Some(true),
        ..named(MISTRAL)
    };
    assert_eq!(world.update(model, &[]).unwrap().features, ["features/duo_chat"]);
}

#[test]
fn provider_and_model_must_match() {
    let on = Some((SelfHosted, Some(MISTRAL)));
    let off = Some((Disabled, Some(MISTRAL)));
    // Setting before; provider and model in the update; its mask; setting after, or the violation.
    for (before, provider, model, mask, after) in [
        (
            None,
            Some(SelfHosted),
            Some(MISTRAL),
            &[][..],
            Ok((SelfHosted, MISTRAL)),
        ),
        (None, Some(SelfHosted), None, &[], Err("feature.model FIELD_REQUIRED")),
        (None, None, Some(MISTRAL), &[], Err("feature.model PROVIDER_MISMATCH")),
        (
            None,
            Some(Unassigned),
            Some(MISTRAL),
            &[],
            Err("feature.model PROVIDER_MISMATCH"),
        ),
        (
            None,
            Some(Vendored),
            Some(MISTRAL),
            &[],
            Err("feature.model PROVIDER_MISMATCH"),
        ),
        (None, Some(Vendored), None, &[], Ok((Vendored, ""))),
        (None, Some(Disabled), None, &[], Ok((Disabled, ""))),
        (None, Some(Disabled), Some(MISTRAL), &[], Ok((Disabled, MISTRAL))),
        (
            None,
            Some(Unspecified),
            None,
            &[],
            Err("feature.provider VALUE_UNKNOWN"),
        ),
        (
            None,
            Some(SelfHosted),
            Some("models/no"),
            &[],
            Err("feature.model MODEL_NOT_FOUND"),
        ),
        (
            None,
            Some(SelfHosted),
            Some("mistral"),
            &[],
            Err("feature.model VALUE_MALFORMED"),
        ),
        (on, Some(Disabled), None, &[], Ok((Disabled, MISTRAL))),
        (on, Some(Unassigned), None, &[], Ok((Unassigned, ""))),
        (on, Some(Vendored), None, &[], Ok((Vendored, ""))),
        (
            on,
            None,
            Some("models/mixtral"),
            &[],
            Ok((SelfHosted, "models/mixtral")),
        ),
        (on, None, None, &["provider"], Ok((Unassigned, ""))),
        (on, None, None, &["model"], Err("feature.model FIELD_REQUIRED")),
        (on, None, None, &["*"], Ok((Unassigned, ""))),
        (off, Some(SelfHosted), None, &[], Ok((SelfHosted, MISTRAL))),
        (off, None, Some("models/mixtral"), &[], Ok((Disabled, "models/mixtral"))),
        (off, None, None, &["model"], Ok((Disabled, ""))),
    ] {
        let mut world = World::with_models(&["mistral", "mixtral"]);
        if let Some((provider, model)) = before {
            world
                .update_feature(setting(CHAT, number(provider), model), &[])
                .unwrap();
        }
        let provider = provider.and_then(number);
        let outcome = world.update_feature(setting(CHAT, provider, model), mask);
        let shown = format!("{before:?} {provider:?} {model:?} {mask:?}");
        match after {
            Ok(after) => {
                let feature = outcome.unwrap();
                assert_eq!((feature.provider(), feature.model()), after, "{shown}");
            }
            Err(bad) => assert_eq!(bad_fields(outcome), [bad], "{shown}"),
        }
    }
}

#[test]
fn all_violations_of_an_assignment_are_reported_at_once() {
    let mut world = World::with_models(&["codestral"]);
    let feature = setting("duo_chat_troubleshoot_job", Some(99), Some("models/codestral"));
    assert_eq!(
        bad_fields(world.update_feature(feature, &["provider", "model", "x", "etag"])),
        [
            "update_mask FIELD_UNKNOWN",
            "update_mask FIELD_OUTPUT_ONLY",
            "feature.provider VALUE_UNKNOWN",
            "feature.model FAMILY_NOT_COMPATIBLE"
        ]
    );
}

#[test]
fn the_family_must_fit_whether_the_feature_or_the_model_changes() {
    let mut world = World::with_models(&["mistral", "starcoder"]);
    world.set_beta(true);
    let outcome = world.assign(CHAT, "models/starcoder");
    assert_eq!(bad_fields(outcome), ["feature.model FAMILY_NOT_COMPATIBLE"]);
    world.assign("code_completions", "models/starcoder").unwrap();

    world.assign(CHAT, MISTRAL).unwrap();
    world
        .update_feature(setting(CHAT, number(Disabled), None), &[])
        .unwrap();
    let change = registry::Model {
        family: Some("starcoder".to_owned()),
        ..named(MISTRAL)
    };
    let outcome = world.update(change.clone(), &[]);
    assert_eq!(bad_fields(outcome), ["model.family FAMILY_NOT_COMPATIBLE"]);
    world
        .update_feature(setting(CHAT, number(Unassigned), None), &[])
        .unwrap();
    world.update(change, &[]).unwrap();
}

#[test]
fn beta_is_required_for_new_assignments_and_existing_ones_are_kept() {
    let mut world = World::with_models(&["mistral", "qwen"]);
    for (feature, model, subjects) in [
        (CHAT, "models/qwen", &["family `qwen`"][..]),
        ("summarize_review", MISTRAL, &["feature `summarize_review`"]),
        (
            "summarize_review",
            "models/qwen",
            &["feature `summarize_review`", "family `qwen`"],
        ),
    ] {
        let subjects = subjects.iter().map(|&subject| subject.to_owned()).collect();
        assert_eq!(world.assign(feature, model), Err(WriteError::BetaNotEnabled(subjects)));
    }
    world.set_beta(true);
    let assigned = world.assign("summarize_review", "models/qwen").unwrap();
    assert!(assigned.assignable && !assigned.kept_without_beta);
    world.set_beta(false);
    for provider in [Disabled, SelfHosted] {
        let kept = setting("summarize_review", number(provider), None);
        let kept = world.update_feature(kept, &[]).unwrap();
        assert!(!kept.assignable && kept.kept_without_beta);
    }
}

#[test]
fn a_feature_that_was_read_can_be_sent_back() {
    let mut world = World::with_models(&["mistral"]);
    let seeded = world
        .update_feature(setting(CHAT, number(Unassigned), None), &[])
        .unwrap();
    assert_eq!((seeded.revision, seeded.update_time), (0, None));
    let read = world.assign(CHAT, MISTRAL).unwrap();
    let before = world.revision();
    assert_eq!(world.update_feature(read.clone(), &[]).unwrap(), read);
    assert_eq!(world.update_feature(read, &["*"]).unwrap().revision, before);
    assert_eq!(world.revision(), before);
    assert!(matches!(
        world.update_feature(
            registry::Feature {
                provider: number(Disabled),
                ..seeded
            },
            &[]
        ),
        Err(WriteError::Conflict { .. })
    ));
}
