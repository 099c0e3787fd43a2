//! Tests of the fields that a model's platform and family allow.

use switchboard::pb::registry::{
    self, InfillMode,
    Platform::{self, Anthropic, AzureOpenai, Bedrock, OpenaiCompatible, Unspecified, VertexAi},
    PlatformOptions,
};

use super::{World, bad_fields, endpoints, model, named};

const NAME: &str = "models/m";

fn world() -> World {
    let mut world = World::new();
    world.create(model("M", "mistral", "http://gpu1:8000")).unwrap();
    world
}

#[test]
fn the_family_must_support_the_infill_mode() {
    use InfillMode::{Chat, Completions, FamilyDefault, Suffix};
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
        ("mistral", InfillMode::Unspecified, Some("VALUE_UNKNOWN")),
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

/// Returns a model that every platform accepts, with an API version for the platform that needs one.
fn on(platform: Option<Platform>, identifier: Option<&str>) -> registry::Model {
    registry::Model {
        display_name: Some("New".to_owned()),
        family: Some("mistral".to_owned()),
        platform: platform.map(Into::into),
        endpoints: endpoints(&[("http://gpu1", None)]),
        identifier: identifier.map(str::to_owned),
        platform_options: (platform == Some(AzureOpenai)).then(|| version("2024-10-21")),
        ..Default::default()
    }
}

fn version(text: &str) -> PlatformOptions {
    PlatformOptions {
        api_version: Some(text.to_owned()),
        ..Default::default()
    }
}

#[test]
fn a_new_models_platform_is_given_or_derived_from_the_identifier() {
    const MISMATCH: &str = "model.identifier IDENTIFIER_PLATFORM_MISMATCH";
    const UNSUPPORTED: &str = "model.platform PLATFORM_NOT_SUPPORTED";
    let version_wanted = "model.platform_options.api_version FIELD_REQUIRED";
    for (platform, identifier, outcome) in [
        (None, None, Ok(OpenaiCompatible)),
        (None, Some("x"), Ok(OpenaiCompatible)),
        (None, Some("custom_openai/x"), Ok(OpenaiCompatible)),
        (None, Some("custom_openai/azure/x"), Ok(OpenaiCompatible)),
        (None, Some("azure/x"), Err(&[version_wanted][..])),
        (None, Some("anthropic/x"), Ok(Anthropic)),
        (None, Some("bedrock/x"), Err(&[UNSUPPORTED])),
        (None, Some("vertex_ai/x"), Err(&[UNSUPPORTED])),
        (Some(OpenaiCompatible), Some("azure/x"), Err(&[MISMATCH])),
        (Some(OpenaiCompatible), Some("anthropic/x"), Err(&[MISMATCH])),
        (Some(AzureOpenai), None, Ok(AzureOpenai)),
        (Some(AzureOpenai), Some("x"), Ok(AzureOpenai)),
        (Some(AzureOpenai), Some("azure/x"), Ok(AzureOpenai)),
        (Some(AzureOpenai), Some("custom_openai/x"), Err(&[MISMATCH])),
        (Some(Anthropic), Some("anthropic/x"), Ok(Anthropic)),
        (Some(Anthropic), Some("azure/x"), Err(&[MISMATCH])),
        (Some(Bedrock), None, Err(&[UNSUPPORTED])),
        (Some(VertexAi), Some("azure/x"), Err(&[UNSUPPORTED, MISMATCH])),
        (
            Some(Unspecified),
            Some("azure/x"),
            Err(&["model.platform VALUE_UNKNOWN"]),
        ),
    ] {
        let answer = world().create(on(platform, identifier));
        let shown = format!("{platform:?} {identifier:?}");
        match outcome {
            Ok(after) => assert_eq!(answer.unwrap().platform(), after, "{shown}"),
            Err(bad) => assert_eq!(bad_fields(answer), bad, "{shown}"),
        }
    }
}

#[test]
fn platform_and_identifier_must_match_whichever_changes() {
    let mut world = world();
    let changed = |platform: Option<Platform>, identifier: Option<&str>| registry::Model {
        platform: platform.map(Into::into),
        identifier: identifier.map(str::to_owned),
        ..named(NAME)
    };
    let bad = bad_fields(world.update(changed(None, Some("anthropic/x")), &[]));
    assert_eq!(bad, ["model.identifier IDENTIFIER_PLATFORM_MISMATCH"]);
    let both = changed(Some(Anthropic), Some("anthropic/x"));
    assert_eq!(world.update(both, &[]).unwrap().platform(), Anthropic);
    let bad = bad_fields(world.update(changed(Some(OpenaiCompatible), None), &[]));
    assert_eq!(bad, ["model.platform IDENTIFIER_PLATFORM_MISMATCH"]);
    let cleared = world.update(named(NAME), &["platform"]).unwrap();
    assert_eq!(
        cleared.platform(),
        Anthropic,
        "the default is derived from the identifier"
    );
    let plain = world.update(named(NAME), &["platform", "identifier"]).unwrap();
    assert_eq!(plain.platform(), OpenaiCompatible);
}

#[test]
fn an_endpoint_is_required_unless_the_platform_has_its_own() {
    let nowhere = |platform| registry::Model {
        endpoints: Vec::new(),
        ..on(platform, None)
    };
    for platform in [None, Some(OpenaiCompatible), Some(AzureOpenai)] {
        let bad = bad_fields(world().create(nowhere(platform)));
        assert_eq!(bad, ["model.endpoints FIELD_REQUIRED"], "{platform:?}");
    }
    let bad = bad_fields(world().create(nowhere(Some(Bedrock))));
    assert_eq!(bad, ["model.platform PLATFORM_NOT_SUPPORTED"]);

    let mut world = world();
    let created = world.create(nowhere(Some(Anthropic))).unwrap();
    assert_eq!(created.endpoints, []);
    let before = world.revision();
    assert_eq!(world.update(created.clone(), &["*"]).unwrap(), created);
    assert_eq!(world.revision(), before);
    let moved = registry::Model {
        platform: Some(OpenaiCompatible.into()),
        ..named(&created.name)
    };
    let bad = bad_fields(world.update(moved.clone(), &[]));
    assert_eq!(
        bad,
        ["model.endpoints FIELD_REQUIRED"],
        "the platform's own endpoint is lost with the platform"
    );
    let moved = registry::Model {
        endpoint: Some("http://gpu1".to_owned()),
        ..moved
    };
    let moved = world.update(moved, &[]).unwrap();
    assert_eq!(moved.endpoints, endpoints(&[("http://gpu1", Some(1))]));
}

#[test]
fn a_chat_only_platform_refuses_other_infill_modes_and_families_without_chat() {
    use InfillMode::{Chat, Completions, FamilyDefault, Suffix};
    for (mode, is_good) in [
        (FamilyDefault, true),
        (Chat, true),
        (Completions, false),
        (Suffix, false),
    ] {
        let with_mode = |platform| registry::Model {
            infill_mode: Some(mode.into()),
            ..on(platform, None)
        };
        let outcome = world().create(with_mode(Some(Anthropic)));
        if is_good {
            assert_eq!(outcome.unwrap().infill_mode(), mode);
        } else {
            assert_eq!(bad_fields(outcome), ["model.infill_mode INFILL_MODE_NOT_SUPPORTED"]);
            let mut world = world();
            let name = world.create(with_mode(None)).unwrap().name;
            let moved = registry::Model {
                platform: Some(Anthropic.into()),
                ..named(&name)
            };
            let bad = bad_fields(world.update(moved, &[]));
            assert_eq!(bad, ["model.platform INFILL_MODE_NOT_SUPPORTED"]);
        }
        world().create(with_mode(Some(AzureOpenai))).unwrap();
    }
    let mut world = world();
    world.set_beta(true);
    let starcoder = registry::Model {
        family: Some("starcoder".to_owned()),
        ..on(Some(Anthropic), None)
    };
    assert_eq!(
        bad_fields(world.create(starcoder.clone())),
        ["model.family PLATFORM_MISMATCH"]
    );
    let elsewhere = registry::Model {
        platform: None,
        ..starcoder
    };
    let name = world.create(elsewhere).unwrap().name;
    let moved = registry::Model {
        platform: Some(Anthropic.into()),
        ..named(&name)
    };
    assert_eq!(
        bad_fields(world.update(moved, &[])),
        ["model.platform PLATFORM_MISMATCH"]
    );
}

#[test]
fn an_api_version_belongs_to_azure_and_is_removed_with_it() {
    const FIELD: &str = "model.platform_options.api_version";
    let with = |options| registry::Model {
        platform_options: Some(options),
        ..on(Some(AzureOpenai), None)
    };
    let mut world = world();
    for (text, reason) in [
        ("", "FIELD_REQUIRED"),
        ("2024&x", "VALUE_MALFORMED"),
        (&*"1".repeat(64), "VALUE_OUT_OF_RANGE"),
    ] {
        let bad = bad_fields(world.create(with(version(text))));
        assert_eq!(bad, [format!("{FIELD} {reason}")]);
    }
    let created = world.create(with(version("2024-10-21"))).unwrap();
    assert_eq!(created.platform_options, Some(version("2024-10-21")));
    let newer = registry::Model {
        platform_options: Some(version("2025-01-01-preview")),
        ..named(&created.name)
    };
    let newer = world.update(newer, &[]).unwrap();
    assert_eq!(newer.platform_options, Some(version("2025-01-01-preview")));
    for mask in ["platform_options", "platform_options.api_version"] {
        let bad = bad_fields(world.update(named(&created.name), &[mask]));
        assert_eq!(bad, [format!("{FIELD} FIELD_REQUIRED")]);
    }
    let moved = registry::Model {
        platform: Some(OpenaiCompatible.into()),
        ..named(&created.name)
    };
    assert_eq!(world.update(moved, &[]).unwrap().platform_options, None);
}

#[test]
fn options_of_other_platforms_are_refused_unless_they_are_empty() {
    let with = |options| registry::Model {
        platform_options: Some(options),
        ..named(NAME)
    };
    let options = PlatformOptions {
        api_version: Some("2024-10-21".to_owned()),
        region: Some("eu-west-1".to_owned()),
        project: Some("p".to_owned()),
    };
    let bad =
        ["api_version", "region", "project"].map(|leaf| format!("model.platform_options.{leaf} PLATFORM_MISMATCH"));
    for mask in [&[][..], &["platform_options"], &["*"]] {
        let whole = registry::Model {
            name: NAME.to_owned(),
            platform_options: Some(options.clone()),
            ..model("M", "mistral", "http://gpu1:8000")
        };
        assert_eq!(bad_fields(world().update(whole, mask)), bad, "{mask:?}");
    }
    assert_eq!(
        bad_fields(world().update(with(options.clone()), &["platform_options.project"])),
        bad[2..]
    );
    assert_eq!(world().update(with(version("")), &[]).unwrap().platform_options, None);
    for (platform, bad) in [(Anthropic, &bad[..]), (AzureOpenai, &bad[1..])] {
        let given = registry::Model {
            platform: Some(platform.into()),
            ..with(options.clone())
        };
        assert_eq!(bad_fields(world().update(given, &[])), bad);
    }
    let bedrock = registry::Model {
        platform: Some(Bedrock.into()),
        ..with(options)
    };
    assert_eq!(
        bad_fields(world().update(bedrock, &[])),
        ["model.platform PLATFORM_NOT_SUPPORTED"],
        "only the platform is refused, not its missing options"
    );
}
