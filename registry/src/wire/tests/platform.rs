//! What a model's platform and family allow.

use switchboard::pb::registry::{self, InfillMode, Platform, PlatformOptions};

use super::{World, bad_fields, endpoints, model, named};

const NAME: &str = "models/m";

fn world() -> World {
    let mut world = World::new();
    world.create(model("M", "mistral", "http://gpu1:8000")).unwrap();
    world
}

#[test]
fn an_infill_mode_is_one_that_the_family_can_do() {
    use InfillMode::{Chat, Completions, FamilyDefault, Suffix, Unspecified};
    for (family, mode, bad) in [
        ("mistral", FamilyDefault, None),
        ("mistral", Completions, None),
        ("mistral", Suffix, None),
        ("mistral", Chat, None),
        ("llama3", Completions, Some("INFILL_MODE_NOT_SUPPORTED")),
        ("llama3", Suffix, None),
        ("llama3", Chat, None),
        ("starcoder", Completions, None),
        ("starcoder", Chat, Some("INFILL_MODE_NOT_SUPPORTED")),
        ("mistral", Unspecified, Some("VALUE_UNKNOWN")),
    ] {
        let mut world = World::new();
        world.set_beta(true);
        let given = registry::Model {
            infill_mode: Some(mode.into()),
            ..model("M", family, "http://gpu1")
        };
        let outcome = world.create(given);
        match bad {
            None => assert_eq!(outcome.unwrap().infill_mode(), mode),
            Some(bad) => assert_eq!(bad_fields(outcome), [format!("model.infill_mode {bad}")], "{family}"),
        }
    }
    let mut world = world();
    let mode = registry::Model {
        infill_mode: Some(Completions.into()),
        ..named(NAME)
    };
    world.update(mode, &[]).unwrap();
    let family = registry::Model {
        family: Some("llama3".to_owned()),
        ..named(NAME)
    };
    assert_eq!(
        bad_fields(world.update(family.clone(), &[])),
        ["model.family INFILL_MODE_NOT_SUPPORTED"]
    );
    let both = world.update(family, &["family", "infill_mode"]).unwrap();
    assert_eq!((both.family(), both.infill_mode()), ("llama3", FamilyDefault));
}

#[test]
fn a_platform_is_given_or_told_by_the_identifier_and_only_one_is_supported() {
    use Platform::{Anthropic, AzureOpenai, OpenaiCompatible, Unspecified};
    const MISMATCH: &str = "model.identifier IDENTIFIER_PLATFORM_MISMATCH";
    const UNSUPPORTED: &str = "model.platform PLATFORM_NOT_SUPPORTED";
    // Platform and identifier given, and what is bad on create and on update.
    for (platform, identifier, on_create, on_update) in [
        (None, Some("x"), &[][..], &[][..]),
        (None, Some("custom_openai/x"), &[], &[]),
        (None, Some("custom_openai/azure/x"), &[], &[]),
        (None, Some("azure/x"), &[UNSUPPORTED], &[MISMATCH]),
        (None, Some("anthropic/x"), &[UNSUPPORTED], &[MISMATCH]),
        (None, Some("bedrock/x"), &[UNSUPPORTED], &[MISMATCH]),
        (None, Some("vertex_ai/x"), &[UNSUPPORTED], &[MISMATCH]),
        (Some(OpenaiCompatible), Some("azure/x"), &[MISMATCH], &[MISMATCH]),
        (Some(OpenaiCompatible), None, &[], &[]),
        (Some(AzureOpenai), None, &[UNSUPPORTED], &[UNSUPPORTED]),
        (Some(AzureOpenai), Some("azure/x"), &[UNSUPPORTED], &[UNSUPPORTED]),
        (
            Some(Anthropic),
            Some("azure/x"),
            &[UNSUPPORTED, MISMATCH],
            &[UNSUPPORTED, MISMATCH],
        ),
        (
            Some(Unspecified),
            Some("azure/x"),
            &["model.platform VALUE_UNKNOWN"],
            &["model.platform VALUE_UNKNOWN"],
        ),
    ] {
        let given = registry::Model {
            platform: platform.map(Into::into),
            identifier: identifier.map(str::to_owned),
            ..named(NAME)
        };
        let new = registry::Model {
            name: String::new(),
            display_name: Some("New".to_owned()),
            family: Some("mistral".to_owned()),
            endpoints: endpoints(&[("http://gpu1", None)]),
            ..given.clone()
        };
        let mut world = world();
        for (outcome, bad) in [(world.create(new), on_create), (world.update(given, &[]), on_update)] {
            match outcome {
                Ok(answer) => assert_eq!((answer.platform(), bad), (OpenaiCompatible, &[][..]), "{identifier:?}"),
                outcome @ Err(_) => assert_eq!(bad_fields(outcome), bad, "{platform:?} {identifier:?}"),
            }
        }
    }
}

#[test]
fn options_of_other_platforms_are_refused_unless_they_are_empty() {
    let with = |options| registry::Model {
        platform_options: Some(options),
        ..named(NAME)
    };
    let region = PlatformOptions {
        region: Some("eu-west-1".to_owned()),
        project: Some("p".to_owned()),
        ..Default::default()
    };
    let bad = [
        "model.platform_options.region PLATFORM_MISMATCH",
        "model.platform_options.project PLATFORM_MISMATCH",
    ];
    for mask in [&[][..], &["platform_options"], &["*"]] {
        let whole = registry::Model {
            name: NAME.to_owned(),
            platform_options: Some(region.clone()),
            ..model("M", "mistral", "http://gpu1:8000")
        };
        assert_eq!(bad_fields(world().update(whole, mask)), bad, "{mask:?}");
    }
    assert_eq!(
        bad_fields(world().update(with(region.clone()), &["platform_options.project"])),
        ["model.platform_options.project PLATFORM_MISMATCH"]
    );
    let empty = PlatformOptions {
        api_version: Some(String::new()),
        ..Default::default()
    };
    assert_eq!(world().update(with(empty), &[]).unwrap().platform_options, None);
    let azure = registry::Model {
        platform: Some(Platform::AzureOpenai.into()),
        ..with(region)
    };
    assert_eq!(
        bad_fields(world().update(azure, &[])),
        ["model.platform PLATFORM_NOT_SUPPORTED"],
        "the platform is to blame, not what it would need"
    );
}
