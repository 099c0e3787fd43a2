//! Tests of the fallbacks and rules of features.

use switchboard::pb::{
    registry::{self, FeatureRule, RuleMatch},
    types::Provider,
};

use super::{World, bad_fields, named, setting};
use crate::domain::write::WriteError;

const CHAT: &str = "duo_chat";
const A: &str = "models/mistral";
const B: &str = "models/mixtral";
const C: &str = "models/llama3";

fn number(provider: Provider) -> Option<i32> {
    Some(provider.into())
}

/// Creates a world with three models that fit, of which the first is assigned.
fn world() -> World {
    let mut world = World::with_models(&["mistral", "mixtral", "llama3", "starcoder", "qwen"]);
    world.assign(CHAT, A).unwrap();
    world
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|&text| text.to_owned()).collect()
}

fn with_fallbacks(list: &[&str]) -> registry::Feature {
    registry::Feature {
        fallback_models: texts(list),
        ..setting(CHAT, None, None)
    }
}

fn with_rules(rules: Vec<FeatureRule>) -> registry::Feature {
    registry::Feature {
        rules,
        ..setting(CHAT, None, None)
    }
}

fn rule(id: &str, model: &str) -> FeatureRule {
    FeatureRule {
        rule_id: id.to_owned(),
        model: model.to_owned(),
        r#match: Some(RuleMatch {
            percent: Some(10.0),
            ..Default::default()
        }),
        description: String::new(),
    }
}

fn matching(matches: RuleMatch) -> FeatureRule {
    FeatureRule {
        r#match: Some(matches),
        ..rule("r", B)
    }
}

#[test]
fn fallbacks_must_be_different_models_that_fit_the_feature() {
    let nine: Vec<_> = (0..9).map(|number| format!("models/m{number}")).collect();
    let nine: Vec<_> = nine.iter().map(String::as_str).collect();
    for (list, bad) in [
        (&[B][..], &[][..]),
        (&[B, C], &[]),
        (&[B, A], &["feature.fallback_models[1] VALUE_REPEATED"]),
        (&[B, C, B], &["feature.fallback_models[2] VALUE_REPEATED"]),
        (&["models/no", B, ""], &["feature.fallback_models[2] FIELD_REQUIRED"]),
        (&["models/no", B], &["feature.fallback_models[0] MODEL_NOT_FOUND"]),
        (
            &[B, "models/starcoder"],
            &["feature.fallback_models[1] FAMILY_NOT_COMPATIBLE"],
        ),
        (&["mixtral"], &["feature.fallback_models[0] VALUE_MALFORMED"]),
        (&nine, &["feature.fallback_models VALUE_OUT_OF_RANGE"]),
    ] {
        let outcome = world().update_feature(with_fallbacks(list), &[]);
        match outcome {
            Ok(feature) => assert_eq!((feature.fallback_models, bad), (texts(list), &[][..])),
            outcome @ Err(_) => assert_eq!(bad_fields(outcome), bad, "{list:?}"),
        }
    }
}

#[test]
fn a_model_cannot_be_its_own_fallback_whichever_field_changes() {
    let mut world = world();
    world.update_feature(with_fallbacks(&[B]), &[]).unwrap();
    assert_eq!(
        bad_fields(world.update_feature(setting(CHAT, None, Some(B)), &[])),
        ["feature.model VALUE_REPEATED"]
    );
    let swapped = registry::Feature {
        fallback_models: texts(&[A]),
        ..setting(CHAT, None, Some(B))
    };
    let swapped = world.update_feature(swapped, &[]).unwrap();
    assert_eq!((swapped.model(), &*swapped.fallback_models), (B, &texts(&[A])[..]));
}

#[test]
fn every_part_of_a_rule_is_checked_and_reported_with_its_path() {
    let entries = |count: usize| vec!["1".to_owned(); count];
    let base = RuleMatch::default();
    let percent = |percent| {
        matching(RuleMatch {
            percent: Some(percent),
            ..Default::default()
        })
    };
    for (rule, bad) in [
        (rule("r", B), None),
        (rule("", B), None),
        (rule("R", B), Some("rule_id VALUE_MALFORMED")),
        (rule(&"r".repeat(64), B), Some("rule_id VALUE_MALFORMED")),
        (rule("r", ""), Some("model FIELD_REQUIRED")),
        (rule("r", "mixtral"), Some("model VALUE_MALFORMED")),
        (rule("r", "models/no"), Some("model MODEL_NOT_FOUND")),
        (rule("r", "models/starcoder"), Some("model FAMILY_NOT_COMPATIBLE")),
        (
            FeatureRule {
                r#match: None,
                ..rule("r", B)
            },
            Some("match FIELD_REQUIRED"),
        ),
        (matching(base.clone()), Some("match FIELD_REQUIRED")),
        (
            matching(RuleMatch {
                namespace_ids: entries(1000),
                ..base.clone()
            }),
            None,
        ),
        (
            matching(RuleMatch {
                namespace_ids: entries(1000),
                user_ids: entries(1),
                ..base.clone()
            }),
            Some("match VALUE_OUT_OF_RANGE"),
        ),
        (
            matching(RuleMatch {
                project_ids: texts(&["1", ""]),
                ..base.clone()
            }),
            Some("match.project_ids[1] VALUE_OUT_OF_RANGE"),
        ),
        (
            matching(RuleMatch {
                user_ids: vec!["u".repeat(256)],
                ..base
            }),
            Some("match.user_ids[0] VALUE_OUT_OF_RANGE"),
        ),
        (percent(0.01), None),
        (percent(100.0), None),
        (percent(0.0), Some("match.percent VALUE_OUT_OF_RANGE")),
        (percent(100.01), Some("match.percent VALUE_OUT_OF_RANGE")),
        (percent(0.015), Some("match.percent VALUE_OUT_OF_RANGE")),
        (percent(f64::NAN), Some("match.percent VALUE_OUT_OF_RANGE")),
        (
            FeatureRule {
                description: "ä".repeat(255),
                ..rule("r", B)
            },
            None,
        ),
        (
            FeatureRule {
                description: "d".repeat(256),
                ..rule("r", B)
            },
            Some("description VALUE_OUT_OF_RANGE"),
        ),
    ] {
        let outcome = world().update_feature(with_rules(vec![rule.clone()]), &[]);
        match bad {
            None => {
                let expected = FeatureRule {
                    rule_id: if rule.rule_id.is_empty() {
                        "mixtral".to_owned()
                    } else {
                        rule.rule_id.clone()
                    },
                    ..rule
                };
                assert_eq!(outcome.unwrap().rules, [expected]);
            }
            Some(bad) => assert_eq!(bad_fields(outcome), [format!("feature.rules[0].{bad}")]),
        }
    }
}

#[test]
fn rules_have_unique_ids_and_a_limited_size() {
    let mut world = world();
    let derived = with_rules(vec![rule("", B), rule("", B), rule("mixtral", C)]);
    let rules = world.update_feature(derived, &[]).unwrap().rules;
    let ids: Vec<_> = rules.into_iter().map(|rule| rule.rule_id).collect();
    assert_eq!(ids, ["mixtral-2", "mixtral-3", "mixtral"]);
    let twice = with_rules(vec![rule("r", B), rule("s", B), rule("r", C)]);
    assert_eq!(
        bad_fields(world.update_feature(twice, &[])),
        ["feature.rules[2].rule_id VALUE_REPEATED"]
    );
    world.update_feature(with_rules(vec![rule("", B); 64]), &[]).unwrap();
    assert_eq!(
        bad_fields(world.update_feature(with_rules(vec![rule("", B); 65]), &[])),
        ["feature.rules VALUE_OUT_OF_RANGE"]
    );
    let users = RuleMatch {
        user_ids: vec!["u".repeat(255); 1000],
        ..Default::default()
    };
    let large = FeatureRule {
        rule_id: String::new(),
        ..matching(users)
    };
    assert_eq!(
        bad_fields(world.update_feature(with_rules(vec![large; 2]), &[])),
        ["feature.rules VALUE_OUT_OF_RANGE"],
        "too large to be stored"
    );
}

#[test]
fn lists_are_replaced_as_a_whole_and_emptied_by_a_mask() {
    let mut world = world();
    let both = registry::Feature {
        fallback_models: texts(&[B, C]),
        ..with_rules(vec![rule("r", B), rule("s", C)])
    };
    world.update_feature(both, &[]).unwrap();
    let fewer = world.update_feature(with_fallbacks(&[C]), &[]).unwrap();
    assert_eq!((fewer.fallback_models, fewer.rules.len()), (texts(&[C]), 2));
    let fewer = world.update_feature(with_rules(vec![rule("t", B)]), &[]).unwrap();
    assert_eq!(
        (fewer.fallback_models, fewer.rules[0].rule_id.as_str()),
        (texts(&[C]), "t")
    );
    let emptied = world
        .update_feature(setting(CHAT, None, None), &["fallback_models"])
        .unwrap();
    assert_eq!((emptied.fallback_models.len(), emptied.rules.len()), (0, 1));
    let emptied = world.update_feature(setting(CHAT, None, None), &["rules"]).unwrap();
    assert_eq!((emptied.rules.len(), emptied.model()), (0, A));
}

#[test]
fn only_providers_with_models_keep_fallbacks_and_rules() {
    let full = |provider| registry::Feature {
        provider,
        fallback_models: texts(&[B]),
        rules: vec![rule("r", C)],
        ..setting(CHAT, None, Some(A))
    };
    let bad = [
        "feature.model PROVIDER_MISMATCH",
        "feature.fallback_models PROVIDER_MISMATCH",
        "feature.rules PROVIDER_MISMATCH",
    ];
    for provider in [Provider::Unassigned, Provider::Vendored] {
        let mut world = world();
        let before = world.update_feature(full(None), &[]).unwrap();
        assert_eq!(bad_fields(world.update_feature(full(number(provider)), &[])), bad);
        let off = world
            .update_feature(setting(CHAT, number(Provider::Disabled), None), &[])
            .unwrap();
        assert_eq!(
            (&off.fallback_models, &off.rules),
            (&before.fallback_models, &before.rules)
        );
        let on = world
            .update_feature(setting(CHAT, number(Provider::SelfHosted), None), &[])
            .unwrap();
        assert_eq!(
            (&on.fallback_models, &on.rules),
            (&before.fallback_models, &before.rules)
        );
        let cleared = world
            .update_feature(setting(CHAT, number(provider), None), &[])
            .unwrap();
        assert_eq!(
            (cleared.model, cleared.fallback_models.len(), cleared.rules.len()),
            (None, 0, 0)
        );
        assert_eq!(bad_fields(world.update_feature(full(None), &[])), bad);
    }
    let mut world = World::with_models(&["mistral", "mixtral"]);
    let without_model = registry::Feature {
        provider: number(Provider::SelfHosted),
        ..with_fallbacks(&[B])
    };
    assert_eq!(
        bad_fields(world.update_feature(without_model, &[])),
        ["feature.model FIELD_REQUIRED"]
    );
}

#[test]
fn a_model_lists_all_features_that_name_it_and_its_family_must_fit_them() {
    let mut world = world();
    let rules = with_rules(vec![rule("r", C), rule("s", C)]);
    world.update_feature(rules, &[]).unwrap();
    world.assign("code_generations", B).unwrap();
    let fallback = registry::Feature {
        fallback_models: texts(&[C]),
        ..setting("code_generations", None, None)
    };
    world.update_feature(fallback, &[]).unwrap();
    let family = |family: &str| registry::Model {
        family: Some(family.to_owned()),
        ..named(C)
    };
    world.set_beta(true);
    assert_eq!(
        world.update(family("mistral"), &[]).unwrap().features,
        ["features/code_generations", "features/duo_chat"]
    );
    assert_eq!(
        bad_fields(world.update(family("codegemma"), &[])),
        ["model.family FAMILY_NOT_COMPATIBLE"]
    );
    world.update_feature(setting(CHAT, None, None), &["rules"]).unwrap();
    world.update(family("codegemma"), &[]).unwrap();
}

#[test]
fn beta_is_required_for_newly_named_models_and_others_are_kept() {
    const QWEN: &str = "models/qwen";
    let mut world = world();
    let refusal = Err(WriteError::BetaNotEnabled(texts(&["family `qwen`"])));
    assert_eq!(world.update_feature(with_fallbacks(&[B, QWEN]), &[]), refusal);
    assert_eq!(world.update_feature(with_rules(vec![rule("", QWEN)]), &[]), refusal);
    world.set_beta(true);
    world.update_feature(with_fallbacks(&[B, QWEN]), &[]).unwrap();
    world.set_beta(false);
    let moved = registry::Feature {
        rules: vec![rule("", QWEN)],
        ..with_fallbacks(&[QWEN, B])
    };
    let moved = world.update_feature(moved, &[]).unwrap();
    assert!(moved.kept_without_beta && moved.assignable);
}
