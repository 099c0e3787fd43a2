//! Tests of the parts of a setting, and of its references to models.

use super::{FeaturePartError as E, *};

fn model(id: &str) -> ModelName {
    ModelName::from_id(id).unwrap()
}

fn rule(id: Option<&str>, to: &str) -> NewRule {
    NewRule {
        id: id.map(|id| RuleId::parse(id).unwrap()),
        matches: RuleMatch::new(vec!["42".into()], vec![], vec![], None).unwrap(),
        model: model(to),
        description: Description::default(),
    }
}

fn routes(fallbacks: &[&str], rules: &[&str]) -> Routes {
    Routes {
        fallbacks: Fallbacks::new(fallbacks.iter().map(|id| model(id)).collect()).unwrap(),
        rules: Rules::new(rules.iter().map(|to| rule(None, to)).collect()).unwrap(),
    }
}

#[test]
fn a_derived_rule_id_differs_from_all_ids_that_were_given() {
    let long = "x".repeat(63);
    let list = vec![
        rule(None, "a"),
        rule(None, "a"),
        rule(Some("a"), "b"),
        rule(Some("a-3"), "b"),
        rule(None, "b"),
        rule(None, &long),
        rule(None, &long),
    ];
    let rules = Rules::new(list).unwrap();
    let ids: Vec<_> = rules.as_slice().iter().map(|rule| rule.id.as_str()).collect();
    let cut = format!("{}-2", "x".repeat(61));
    assert_eq!(ids, ["a-2", "a-4", "a", "a-3", "b", &long, &cut]);
}

#[test]
fn lists_are_checked_as_a_whole() {
    let names = |count: usize| (0..count).map(|number| model(&format!("m{number}"))).collect();
    assert!(Fallbacks::new(names(8)).is_ok());
    assert_eq!(Fallbacks::new(names(9)), Err(vec![E::FallbackCount]));
    assert_eq!(
        Fallbacks::new(vec![model("a"), model("b"), model("a"), model("a")]),
        Err(vec![E::FallbackRepeated { index: 2 }, E::FallbackRepeated { index: 3 }])
    );
    assert!(Rules::new(vec![rule(None, "a"); 64]).is_ok());
    assert_eq!(Rules::new(vec![rule(None, "a"); 65]), Err(vec![E::RuleCount]));
    assert_eq!(
        Rules::new(vec![rule(Some("r"), "a"), rule(None, "b"), rule(Some("r"), "c")]),
        Err(vec![E::RuleIdRepeated { index: 2 }])
    );
}

#[test]
fn a_match_has_a_condition_and_not_too_many_entries() {
    let list = |count| vec!["1".into(); count];
    let percent = Some(Percent::parse(1.0).unwrap());
    for (lists, percent, error) in [
        ([0, 0, 0], None, Some(E::MatchEmpty)),
        ([0, 0, 0], percent, None),
        ([1, 0, 0], None, None),
        ([0, 1, 0], None, None),
        ([0, 0, 1], None, None),
        ([500, 499, 1], percent, None),
        ([500, 500, 1], None, Some(E::MatchCount)),
    ] {
        let [namespaces, projects, users] = lists.map(list);
        let matches = RuleMatch::new(namespaces, projects, users, percent);
        assert_eq!(matches.err(), error, "{lists:?}");
    }
    assert!(RuleMatch::entry(&"ä".repeat(255)).is_ok());
    for bad in ["", &"x".repeat(256)] {
        assert_eq!(RuleMatch::entry(bad), Err(E::EntryLength));
    }
}

#[test]
fn a_percentage_is_a_whole_number_of_hundredths_of_a_percent() {
    for hundredths in 1..=10_000_u16 {
        let percent = f64::from(hundredths) / 100.0;
        assert_eq!(Percent::parse(percent).unwrap().get().to_bits(), percent.to_bits());
    }
    for written in ["0.01", "0.07", "0.29", "33.33", "57.51", "99.99"] {
        assert!(Percent::parse(written.parse().unwrap()).is_ok(), "{written}");
    }
    for bad in [
        0.0,
        -0.0,
        -1.0,
        0.001,
        0.009,
        10.001,
        100.01,
        65_537.0,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
    ] {
        assert_eq!(Percent::parse(bad), Err(E::PercentOutOfRange), "{bad}");
    }
}

#[test]
fn references_returns_every_model_that_a_setting_names() {
    let routes = routes(&["b", "c"], &["d", "a"]);
    let ids = |setting: &Setting| -> Vec<String> { setting.references().map(|name| name.id().to_owned()).collect() };
    let on = Setting::SelfHosted {
        model: model("a"),
        routes: routes.clone(),
    };
    assert_eq!(ids(&on), ["a", "b", "c", "d", "a"]);
    let off = Setting::Disabled { model: None, routes };
    assert_eq!(ids(&off), ["b", "c", "d", "a"]);
    assert!(ids(&Setting::Unassigned).is_empty() && ids(&Setting::Vendored).is_empty());
}

#[test]
fn reassigned_replaces_all_references_and_leaves_no_fallback_twice() {
    // Each row: model and fallbacks before, the replaced and the new model, model and fallbacks after.
    for (before, (from, to), after) in [
        (("a", &["b", "c"][..]), ("a", "z"), ("z", &["b", "c"][..])),
        (("a", &["b", "c"]), ("b", "z"), ("a", &["z", "c"])),
        (("a", &["b", "c"]), ("b", "c"), ("a", &["c"])),
        (("a", &["b", "c"]), ("c", "b"), ("a", &["b"])),
        (("a", &["b", "c"]), ("b", "a"), ("a", &["c"])),
        (("a", &["b", "c"]), ("a", "b"), ("b", &["c"])),
        (("a", &["b"]), ("x", "y"), ("a", &["b"])),
    ] {
        let feature = Feature {
            name: FeatureName::from_id("duo_chat").unwrap(),
            spec: FeatureSpec {
                setting: Setting::SelfHosted {
                    model: model(before.0),
                    routes: routes(before.1, &[before.0, from]),
                },
                ..FeatureSpec::default()
            },
        };
        let moved = feature.reassigned(&model(from), &model(to));
        let fallbacks: Vec<_> = moved.spec.setting.fallbacks().iter().map(ModelName::id).collect();
        assert_eq!(moved.spec.setting.model().map(ModelName::id), Some(after.0));
        assert_eq!(fallbacks, after.1, "{from} to {to}");
        assert!(moved.references().all(|name| name.id() != from || from == to));
        let ids = |feature: &Feature| -> Vec<_> {
            feature
                .spec
                .setting
                .rules()
                .iter()
                .map(|rule| rule.id.clone())
                .collect()
        };
        assert_eq!(
            ids(&moved),
            ids(&feature),
            "a rule's id must not change, because it seeds the share of users"
        );
    }
}
