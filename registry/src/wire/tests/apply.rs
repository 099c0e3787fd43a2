//! Tests of exporting and applying the whole configuration. Every rule is checked against the final state.

use super::*;
use crate::{
    domain::credential::ModelCredential,
    wire::{configuration, write::WriteAnswer as _},
};

fn apply(world: &mut World, config: registry::Config) -> Result<registry::ApplyConfigResponse, WriteError> {
    request(
        world,
        registry::ApplyConfigRequest {
            config: Some(config),
            ..Default::default()
        },
    )
}

fn request(
    world: &mut World,
    request: registry::ApplyConfigRequest,
) -> Result<registry::ApplyConfigResponse, WriteError> {
    let write = configuration::apply(request);
    world.write(&write).map(|view| configuration::applied(&view))
}

fn export(world: &World) -> registry::Config {
    configuration::export(&world.state).config.unwrap()
}

fn full(id: &str) -> registry::Model {
    registry::Model {
        name: format!("models/{id}"),
        ..model(id, "mistral", "http://gpu1:8000/v1")
    }
}

fn config(models: Vec<registry::Model>, features: Vec<registry::Feature>) -> registry::Config {
    registry::Config {
        models,
        features,
        settings: None,
    }
}

fn assigned(feature: &str, model: &str) -> registry::Feature {
    setting(feature, Some(types::Provider::SelfHosted.into()), Some(model))
}

fn resources(answer: &registry::ApplyConfigResponse) -> Vec<&str> {
    answer.changes.iter().map(|change| &*change.resource).collect()
}

#[test]
fn an_applied_configuration_replaces_the_stored_one() {
    let mut world = World::with_models(&["mistral", "llama3"]);
    world.assign("duo_chat", "models/mistral").unwrap();
    world.assign("code_generations", "models/llama3").unwrap();
    world.set_beta(true);
    let base = world.revision();
    let labelled = registry::Model {
        name: "models/mistral".to_owned(),
        labels: [("team".to_owned(), "a".to_owned())].into(),
        ..model("mistral", "mistral", "http://gpu1:8000")
    };
    let wanted = config(vec![full("new"), labelled], vec![assigned("duo_chat", "models/new")]);
    let answer = apply(&mut world, wanted.clone()).unwrap();
    assert_eq!((answer.base_revision, answer.revision), (base, base + 1));
    assert_eq!(
        resources(&answer),
        [
            "features/code_generations",
            "features/duo_chat",
            "models/llama3",
            "models/mistral",
            "models/new",
            "settings"
        ]
    );
    let change = |name: &str| answer.changes.iter().find(|change| change.resource == name).unwrap();
    assert_eq!(change("features/duo_chat").fields, ["model"]);
    assert_eq!(change("features/code_generations").fields, ["model", "provider"]);
    assert_eq!(change("models/mistral").fields, ["labels"]);
    assert_eq!(change("settings").fields, ["beta_enabled"]);
    assert!(change("models/llama3").after.is_none() && change("models/llama3").before.is_some());
    assert!(change("models/new").before.is_none() && change("models/new").fields.is_empty());

    let again = apply(&mut world, wanted).unwrap();
    assert_eq!(
        (again.revision, again.changes_total),
        (base + 1, 0),
        "an unchanged configuration makes no revision"
    );
    let nothing = apply(&mut world, registry::Config::default()).unwrap();
    assert_eq!(
        resources(&nothing),
        ["features/duo_chat", "models/mistral", "models/new"]
    );
}

#[test]
fn an_export_changes_nothing_here_and_creates_the_same_configuration_elsewhere() {
    let mut world = World::with_models(&["mistral", "llama3", "qwen"]);
    let given = registry::Model {
        identifier: Some("custom_openai/mistral-7b".to_owned()),
        endpoints: endpoints(&[("http://gpu2:8000", Some(0)), ("http://gpu1:8000", None)]),
        limits: Some(registry::ModelLimits {
            max_queue: Some(0),
            ..Default::default()
        }),
        disabled: Some(true),
        api_token: Some("canary-4f1c".to_owned()),
        ..named("models/mistral")
    };
    world.update(given, &[]).unwrap();
    let mut feature = assigned("duo_chat", "models/mistral");
    feature.fallback_models = vec!["models/llama3".to_owned()];
    feature.rules = vec![registry::FeatureRule {
        model: "models/llama3".to_owned(),
        r#match: Some(registry::RuleMatch {
            percent: Some(12.5),
            ..Default::default()
        }),
        ..Default::default()
    }];
    world.update_feature(feature, &[]).unwrap();
    let off = setting(
        "code_generations",
        Some(types::Provider::Disabled.into()),
        Some("models/llama3"),
    );
    world.update_feature(off, &[]).unwrap();
    world.set_beta(true);
    let exported = export(&world);
    let bytes = prost::Message::encode_to_vec(&exported);
    assert!(!String::from_utf8_lossy(&bytes).contains("canary"));
    assert_eq!(exported.features.len(), 2, "only features that were set are exported");

    let base = world.revision();
    let answer = apply(&mut world, exported.clone()).unwrap();
    assert_eq!((answer.revision, answer.changes.len()), (base, 0), "{answer:?}");
    let mut other = World::new();
    apply(&mut other, exported.clone()).unwrap();
    assert_eq!(export(&other), exported);
    let values = |world: &World| -> Vec<_> {
        let models = world.state.models.values().map(|model| model.value.clone());
        models.collect()
    };
    assert_eq!(values(&other), values(&world));
}

#[test]
fn every_violation_is_reported_with_its_path() {
    let mut world = World::with_models(&["mistral"]);
    let unknown = |family: &str, name: &str| registry::Model {
        family: Some(family.to_owned()),
        ..full(name)
    };
    let nameless = registry::Model {
        name: String::new(),
        ..full("x")
    };
    let same_name = registry::Model {
        display_name: Some(" NEW".to_owned()),
        ..full("same")
    };
    let bad = config(
        vec![
            full("new"),
            unknown("none", "doubtful"),
            full("new"),
            nameless,
            same_name,
            named("models/empty"),
        ],
        vec![
            assigned("duo_chat", "models/nowhere"),
            assigned("unheard_of", "models/new"),
            assigned("code_generations", "models/doubtful"),
            assigned("duo_chat", "models/new"),
            setting(
                "code_completions",
                Some(types::Provider::Vendored.into()),
                Some("models/new"),
            ),
            assigned("sast_vulnerability_fp_detection", "models/new"),
            assigned("code completions", "models/new"),
        ],
    );
    let found = bad_fields(apply(&mut world, bad));
    let expected = [
        "config.models[1].family FAMILY_UNKNOWN",
        "config.models[2].name VALUE_REPEATED",
        "config.models[3].name FIELD_REQUIRED",
        "config.models[4].display_name VALUE_REPEATED",
        "config.models[5].display_name FIELD_REQUIRED",
        "config.models[5].family FIELD_REQUIRED",
        "config.models[5].endpoints FIELD_REQUIRED",
        "config.features[0].model MODEL_NOT_FOUND",
        "config.features[1].name FEATURE_NOT_FOUND",
        "config.features[3].name VALUE_REPEATED",
        "config.features[4].model PROVIDER_MISMATCH",
        "config.features[5].model FAMILY_NOT_COMPATIBLE",
        "config.features[6].name VALUE_MALFORMED",
    ];
    assert_eq!(
        found, expected,
        "a reference to an invalid model is not another violation"
    );
    assert_eq!(
        world.revision(),
        World::with_models(&["mistral"]).revision(),
        "nothing was changed"
    );
}

#[test]
fn requests_without_a_valid_configuration_are_refused() {
    let mut world = World::new();
    let nothing = registry::ApplyConfigRequest {
        expected_revision: -1,
        ..Default::default()
    };
    let expected = ["expected_revision VALUE_OUT_OF_RANGE", "config FIELD_REQUIRED"];
    assert_eq!(bad_fields(request(&mut world, nothing)), expected);
    let misnamed = registry::Config {
        settings: Some(registry::Settings {
            name: "setting".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    assert_eq!(
        bad_fields(apply(&mut world, misnamed)),
        ["config.settings.name VALUE_MALFORMED"]
    );
    let many = config(vec![registry::Model::default(); 20_000], Vec::new());
    assert_eq!(bad_fields(apply(&mut world, many)), ["config VALUE_OUT_OF_RANGE"]);
    let long = registry::Model {
        identifier: Some("x".repeat(16 * 1024 * 1024)),
        ..Default::default()
    };
    assert_eq!(
        bad_fields(apply(&mut world, config(vec![long], Vec::new()))),
        ["config VALUE_OUT_OF_RANGE"]
    );
}

#[test]
fn beta_is_only_checked_for_new_assignments() {
    let mut world = World::with_models(&["mistral", "qwen"]);
    let kept = export(&world);
    assert_eq!(
        apply(&mut world, kept.clone()).unwrap().changes_total,
        0,
        "the existing model may stay"
    );
    let mut more = kept;
    more.features.push(assigned("duo_chat", "models/qwen"));
    more.models.push(registry::Model {
        family: Some("qwen".to_owned()),
        ..full("another")
    });
    assert!(matches!(
        apply(&mut world, more.clone()),
        Err(WriteError::BetaNotEnabled(subjects)) if subjects == ["family `qwen`"]
    ));
    more.settings = Some(registry::Settings {
        beta_enabled: Some(true),
        ..Default::default()
    });
    assert_eq!(
        apply(&mut world, more).unwrap().changes_total,
        3,
        "the new settings decide"
    );
}

#[test]
fn a_token_is_kept_set_and_dropped_as_in_single_writes() {
    let mut world = World::new();
    let with_token = |id: &str, host: &str, token: Option<&str>| registry::Model {
        endpoint: Some(format!("http://{host}:8000")),
        api_token: token.map(str::to_owned),
        ..full(id)
    };
    let first = ["kept", "moved", "cleared"].map(|id| with_token(id, "gpu1", Some("canary-4f1c")));
    let answer = apply(&mut world, config(first.into(), Vec::new())).unwrap();
    assert!(!String::from_utf8_lossy(&prost::Message::encode_to_vec(&answer)).contains("canary"));
    let credentials = |world: &World| -> Vec<_> {
        let all = world.state.credentials.values().map(|credential| match credential {
            ModelCredential::None => "none".to_owned(),
            ModelCredential::Dropped => "dropped".to_owned(),
            ModelCredential::Set(set) => set.id.to_string(),
        });
        all.collect()
    };
    let before = credentials(&world);
    assert_ne!(before[0], before[1], "each token has its own id");
    let second = vec![
        with_token("kept", "gpu1", None),
        with_token("moved", "gpu2", None),
        with_token("cleared", "gpu1", Some("")),
    ];
    let answer = apply(&mut world, config(second, Vec::new())).unwrap();
    assert_eq!(answer.api_tokens_dropped, ["models/moved"]);
    assert_eq!(resources(&answer), ["models/cleared", "models/moved"]);
    assert_eq!(answer.changes[1].fields, ["api_token", "endpoints"]);
    assert_eq!(credentials(&world), ["none", &before[1], "dropped"].map(str::to_owned));
}

#[test]
fn an_expected_revision_is_accepted_until_something_changes() {
    let mut world = World::with_models(&["mistral", "llama3"]);
    let base = world.revision();
    let expecting = |expected_revision, config| registry::ApplyConfigRequest {
        config: Some(config),
        expected_revision,
        ..Default::default()
    };
    let empty = registry::Config::default;
    let config = export(&world);
    assert_eq!(
        request(&mut world, expecting(base, config.clone())).unwrap().revision,
        base
    );
    assert!(matches!(
        request(&mut world, expecting(base + 1, empty())),
        Err(WriteError::InFuture { .. })
    ));
    world.assign("duo_chat", "models/mistral").unwrap();
    assert!(matches!(
        request(&mut world, expecting(base, empty())),
        Err(WriteError::Conflict { name, revision }) if name.to_string() == "features/duo_chat" && revision.get() == base + 1
    ));
    apply(&mut world, empty()).unwrap();
    assert!(matches!(
        request(&mut world, expecting(base + 1, empty())),
        Err(WriteError::Conflict { revision, .. }) if revision.get() == base + 2
    ));
    assert_eq!(
        request(&mut world, expecting(base + 2, empty())).unwrap().changes_total,
        0
    );

    let mut stale = config;
    stale.settings = Some(registry::Settings {
        etag: "stale".to_owned(),
        ..Default::default()
    });
    assert!(matches!(apply(&mut world, stale), Err(WriteError::Conflict { .. })));
}

#[test]
fn the_answer_to_a_check_contains_no_revision_except_the_base() {
    let mut world = World::new();
    let answer = apply(&mut world, config(vec![full("new")], Vec::new())).unwrap();
    let tried = answer.clone().into_checked();
    assert_eq!((tried.revision, tried.base_revision, tried.changes_total), (0, 1, 1));
    assert_eq!((tried.changes[0].revision, tried.changes[0].commit_time), (0, None));
    assert_eq!(tried.changes[0].after, answer.changes[0].after);
}
