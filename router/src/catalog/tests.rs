//! Tests of the resolution of a call, rule by rule of the resolution order.

use switchboard::{
    digest::{ChainDigest, StateDigest},
    history::{Incarnation, View},
    names::{IncarnationId, Revision, StoreId},
    pb::registry,
    resource::feature::{Percent, RuleId, RuleMatch},
};

use super::*;

/// A parent feature and its child.
const CHAT: &str = "duo_chat";
const EXPLAIN: &str = "duo_chat_explain_code";

fn name(model: &str) -> ModelName {
    ModelName::from_id(model).unwrap()
}

fn ready(model: &str) -> ModelState {
    let spec = registry::Model {
        display_name: Some(model.to_owned()),
        family: Some("llama3".to_owned()),
        identifier: Some(model.to_owned()),
        endpoint: Some("http://gpu1:8000".to_owned()),
        ..Default::default()
    };
    let spec = ModelSpec::whole(spec).unwrap();
    ModelState::Ready(Arc::new(CompiledModel::new(name(model), Arc::new(spec), None)))
}

/// Creates a catalog with a model in every state, each named after its state, and three models that can be called.
fn catalog(settings: &[(&str, CompiledSetting)]) -> Catalog {
    let models = [
        ("ready", ready("ready")),
        ("other", ready("other")),
        ("third", ready("third")),
        ("disabled", ModelState::Disabled),
        ("dropped", ModelState::CredentialMissing),
        ("pending", ModelState::NotReady),
    ];
    Catalog {
        cursor: Cursor {
            store: StoreId::random(),
            incarnation: Incarnation {
                number: 1,
                id: IncarnationId::random(),
            },
            revision: Revision::new(7).unwrap(),
            chain: ChainDigest::NONE,
            view: View::Router,
            state: StateDigest::EMPTY,
        },
        features: settings
            .iter()
            .map(|(feature, setting)| (FeatureName::from_id(feature).unwrap(), setting.clone()))
            .collect(),
        models: models.map(|(model, state)| (name(model), state)).into(),
        inference_paused: false,
    }
}

fn on(model: &str) -> CompiledSetting {
    name(model).into()
}

/// A setting with fallbacks, and with rules by namespace, `(id, namespace, model)`.
fn with(model: &str, rules: &[(&str, &str, &str)], fallbacks: &[&str]) -> CompiledSetting {
    let rule = |&(id, namespace, model): &(&str, &str, &str)| CompiledRule {
        id: RuleId::parse(id).unwrap(),
        condition: (&RuleMatch::new(vec![namespace.into()], vec![], vec![], None).unwrap()).into(),
        model: name(model),
    };
    CompiledSetting::SelfHosted(Arc::new(Assignment {
        model: name(model),
        fallbacks: fallbacks.iter().map(|model| name(model)).collect(),
        rules: rules.iter().map(rule).collect(),
        limits: FeatureLimits::default(),
        hedge_delay: None,
    }))
}

fn of_namespace(namespace: &str) -> Caller<'_> {
    Caller {
        scope: Scope {
            namespace_id: Some(namespace),
            ..Scope::default()
        },
        ..Caller::default()
    }
}

/// A row of [`resolved`]: the model, why it cannot be called (`None`: it can), what decides, and the rule that names
/// it.
type Row = (String, Option<Unusable>, SelectionReason, Option<String>);

/// Returns the candidates of a call, in order.
fn resolved(catalog: &Catalog, feature: &str, caller: &Caller<'_>) -> Vec<Row> {
    let decision = catalog.resolve(feature, caller).unwrap();
    let candidates = catalog.candidates(&decision);
    candidates
        .map(|candidate| {
            let rule = candidate.rule.map(ToString::to_string);
            let model = candidate.name.id().to_owned();
            (model, candidate.model.err(), candidate.reason, rule)
        })
        .collect()
}

fn row(model: &str, reason: SelectionReason) -> Row {
    (model.to_owned(), None, reason, None)
}

fn by_rule(model: &str, rule: &str) -> Row {
    (model.to_owned(), None, SelectionReason::Rule, Some(rule.to_owned()))
}

use SelectionReason::{Assigned, Failover, ParentFeature};

#[test]
fn a_feature_is_answered_by_the_model_that_it_names() {
    let catalog = catalog(&[(CHAT, on("other")), (EXPLAIN, on("ready"))]);
    let nobody = Caller::default();
    for asked in [EXPLAIN, "features/duo_chat_explain_code"] {
        assert_eq!(resolved(&catalog, asked, &nobody), [row("ready", Assigned)]);
        let decision = catalog.resolve(asked, &nobody).unwrap();
        assert_eq!(
            (decision.feature.id(), decision.source_feature.id()),
            (EXPLAIN, EXPLAIN)
        );
    }
    assert_eq!(catalog.resolve("chat", &nobody).unwrap().feature.id(), CHAT);
}

#[test]
fn an_unassigned_feature_uses_the_whole_setting_of_its_parent() {
    let parent = with("ready", &[("pilot", "42", "third")], &["other"]);
    for settings in [
        &[(CHAT, parent.clone()), (EXPLAIN, CompiledSetting::Unassigned)][..],
        &[(CHAT, parent)][..],
    ] {
        let catalog = catalog(settings);
        let decision = catalog.resolve(EXPLAIN, &Caller::default()).unwrap();
        assert_eq!((decision.feature.id(), decision.source_feature.id()), (EXPLAIN, CHAT));
        assert_eq!(
            resolved(&catalog, EXPLAIN, &Caller::default()),
            [row("ready", ParentFeature), row("other", Failover)]
        );
        assert_eq!(
            resolved(&catalog, EXPLAIN, &of_namespace("42")),
            [by_rule("third", "pilot"), row("other", Failover)],
            "the rule decides last"
        );
    }
    let nobody = catalog(&[]).resolve(EXPLAIN, &Caller::default()).unwrap_err();
    assert!(matches!(nobody, ResolveError::FeatureUnassigned { feature } if feature.id() == EXPLAIN));
    let without_parent = catalog(&[(EXPLAIN, on("ready"))]).resolve(CHAT, &Caller::default());
    assert!(matches!(without_parent, Err(ResolveError::FeatureUnassigned { feature }) if feature.id() == CHAT));
}

#[test]
fn a_feature_with_a_setting_of_its_own_uses_nothing_of_its_parents() {
    let parent = with("other", &[("pilot", "42", "third")], &["third"]);
    let catalog = catalog(&[(CHAT, parent), (EXPLAIN, on("ready"))]);
    assert_eq!(
        resolved(&catalog, EXPLAIN, &of_namespace("42")),
        [row("ready", Assigned)]
    );
}

#[test]
fn the_first_rule_that_matches_decides_and_the_fallbacks_follow() {
    let rules = [
        ("first", "1", "other"),
        ("second", "1", "ready"),
        ("third", "3", "pending"),
    ];
    let setting = with("ready", &rules, &["third", "other"]);
    let catalog = catalog(&[(CHAT, setting)]);
    assert_eq!(
        resolved(&catalog, CHAT, &of_namespace("1")),
        [by_rule("other", "first"), row("third", Failover)],
        "a fallback that the rule names too is tried once, and the feature's own model not at all"
    );
    assert_eq!(
        resolved(&catalog, CHAT, &of_namespace("9")),
        [row("ready", Assigned), row("third", Failover), row("other", Failover)]
    );
    let unusable = resolved(&catalog, CHAT, &of_namespace("3"));
    assert_eq!(unusable[0].1, Some(Unusable::NotReady));
    assert_eq!(unusable[1..], [row("third", Failover), row("other", Failover)]);

    let decision = catalog.resolve(CHAT, &of_namespace("1")).unwrap();
    let rules: Vec<_> = catalog
        .rules(&decision)
        .map(|(rule, decides)| (rule.id.as_str(), decides))
        .collect();
    assert_eq!(rules, [("first", true), ("second", false), ("third", false)]);
}

#[test]
fn a_user_is_on_one_side_of_a_rule_for_every_feature_that_uses_it() {
    let half = CompiledRule {
        id: RuleId::parse("pilot").unwrap(),
        condition: (&RuleMatch::new(vec![], vec![], vec![], Some(Percent::parse(50.0).unwrap())).unwrap()).into(),
        model: name("other"),
    };
    let setting = CompiledSetting::SelfHosted(Arc::new(Assignment {
        model: name("ready"),
        fallbacks: Vec::new(),
        rules: vec![half],
        limits: FeatureLimits::default(),
        hedge_delay: None,
    }));
    let catalog = catalog(&[(CHAT, setting)]);
    let mut sides = [0, 0];
    for user in 0..64 {
        let user = user.to_string();
        let caller = Caller {
            scope: Scope {
                global_user_id: Some(&user),
                ..Scope::default()
            },
            ..Caller::default()
        };
        let is_in = |feature| catalog.rule(&catalog.resolve(feature, &caller).unwrap()).is_some();
        assert_eq!(is_in(CHAT), is_in(EXPLAIN));
        sides[usize::from(is_in(CHAT))] += 1;
    }
    assert!(sides.iter().all(|&side| side > 10), "{sides:?}");
}

#[test]
fn a_feature_that_is_switched_off_or_vendored_does_not_use_its_parent() {
    let off = catalog(&[(CHAT, on("ready")), (EXPLAIN, CompiledSetting::Disabled)]);
    assert!(matches!(
        off.resolve(EXPLAIN, &Caller::default()),
        Err(ResolveError::FeatureDisabled { feature }) if feature.id() == EXPLAIN
    ));
    let vendored = catalog(&[(CHAT, on("ready")), (EXPLAIN, CompiledSetting::Vendored)]);
    assert!(matches!(
        vendored.resolve(EXPLAIN, &Caller::default()),
        Err(ResolveError::FeatureVendored { feature }) if feature.id() == EXPLAIN
    ));
}

#[test]
fn an_error_that_the_parents_setting_causes_names_the_parent() {
    let off = catalog(&[(CHAT, CompiledSetting::Disabled)]);
    assert!(matches!(
        off.resolve(EXPLAIN, &Caller::default()),
        Err(ResolveError::FeatureDisabled { feature }) if feature.id() == CHAT
    ));
    let vendored = catalog(&[(CHAT, CompiledSetting::Vendored)]);
    assert!(matches!(
        vendored.resolve(EXPLAIN, &Caller::default()),
        Err(ResolveError::FeatureVendored { feature }) if feature.id() == CHAT
    ));
}

#[test]
fn a_pause_stops_only_self_hosted_features() {
    let settings = [(CHAT, on("ready")), ("code_generations", CompiledSetting::Vendored)];
    let mut catalog = catalog(&settings);
    catalog.inference_paused = true;
    let resolve = |feature| catalog.resolve(feature, &Caller::default()).unwrap_err();
    assert!(matches!(resolve(CHAT), ResolveError::InferencePaused { feature } if feature.id() == CHAT));
    assert!(matches!(resolve(EXPLAIN), ResolveError::InferencePaused { .. }));
    assert!(matches!(
        resolve("code_generations"),
        ResolveError::FeatureVendored { .. }
    ));
    assert!(matches!(
        resolve("code_completions"),
        ResolveError::FeatureUnassigned { .. }
    ));
}

#[test]
fn a_model_that_cannot_be_called_is_a_candidate_with_the_reason() {
    for (model, why) in [
        ("disabled", Unusable::Disabled),
        ("dropped", Unusable::CredentialMissing),
        ("pending", Unusable::NotReady),
        ("unheard-of", Unusable::NotReady),
    ] {
        let rows = resolved(&catalog(&[(CHAT, on(model))]), EXPLAIN, &Caller::default());
        assert_eq!(rows, [(model.to_owned(), Some(why), ParentFeature, None)]);
    }
}

#[test]
fn an_unknown_feature_name_is_cut_in_the_error() {
    let error = catalog(&[]).resolve(&"ä".repeat(1000), &Caller::default()).unwrap_err();
    assert_eq!(error, ResolveError::UnknownFeature { name: "ä".repeat(128) });
}
