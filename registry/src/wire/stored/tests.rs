use std::{collections::BTreeSet, time::Duration};

use proptest::{
    collection::{btree_map, btree_set, vec},
    option,
    prelude::*,
};
use switchboard::{
    endpoint::EndpointUri,
    names::CredentialId,
    resource::{
        feature::{
            Description, Fallbacks, FeatureLimits, HedgeDelay, NewRule, Percent, Routes, RuleId, RuleMatch, Rules,
            Setting,
        },
        model::{
            ApiVersion, CaCertificates, Count, Endpoint, Endpoints, InfillMode, Labels, Limits, Platform, ServerName,
            Timeout, Tls, Weight, Zone,
        },
    },
    secret::ApiToken,
};

use super::*;
use crate::domain::credential::SetCredential;

fn model() -> Change {
    let uri = |text| EndpointUri::parse(text).unwrap();
    let endpoints = vec![
        Endpoint {
            uri: uri("http://gpu1:8000/v1/"),
            weight: Weight::default(),
            zone: Zone::default(),
        },
        Endpoint {
            uri: uri("https://gpu2"),
            weight: Weight::parse(0).unwrap(),
            zone: Zone::parse("west").unwrap(),
        },
    ];
    let plain = registry::Model {
        display_name: Some(" Mistral ".to_owned()),
        family: Some("mistral".to_owned()),
        endpoint: Some("http://gpu1".to_owned()),
        identifier: Some("custom_openai/mistral-7b".to_owned()),
        disabled: Some(true),
        ..Default::default()
    };
    Change::Model {
        model: Model {
            name: ModelName::parse("models/mistral").unwrap(),
            spec: ModelSpec {
                endpoints: Endpoints::new(endpoints).unwrap(),
                ..ModelSpec::whole(plain).unwrap()
            },
        },
        credential: ModelCredential::Set(SetCredential {
            id: CredentialId::random(),
            origins: BTreeSet::from([uri("https://gpu2").origin(), uri("http://gpu1:8000").origin()]),
            token: ApiToken::parse("canary-4f1c".to_owned()).unwrap(),
        }),
        is_token_touched: true,
    }
}

fn read_back(change: &Change, credential: &ModelCredential) {
    let value = encode(change);
    let read = decode(&change.name(), &value, credential).unwrap();
    assert_eq!(format!("{read:?}"), format!("{change:?}"));
    assert_eq!(encode(&read), value);
}

#[test]
fn settings_are_read_back() {
    for (beta_enabled, inference_paused) in [(false, false), (true, false), (false, true), (true, true)] {
        let settings = Settings {
            beta_enabled,
            inference_paused,
        };
        read_back(&Change::Settings(settings), &ModelCredential::None);
    }
}

fn name() -> impl Strategy<Value = ModelName> {
    "[a-z0-9-]{1,63}".prop_map(|id| ModelName::from_id(&id).unwrap())
}

fn count<const MIN: i32, const MAX: i32>() -> impl Strategy<Value = Option<Count<MIN, MAX>>> {
    option::of((MIN..=MAX).prop_map(|number| Count::parse(number).unwrap()))
}

fn timeout<const MAX: u64>() -> impl Strategy<Value = Option<Timeout<MAX>>> {
    let nanos = 1..=MAX * 1_000_000_000;
    option::of(nanos.prop_map(|nanos| Timeout::parse(Duration::from_nanos(nanos)).unwrap()))
}

prop_compose! {
    fn any_limits()(
        max_concurrency in count(),
        max_queue in count(),
        queue_timeout in timeout(),
        connect_timeout in timeout(),
        first_token_timeout in timeout(),
        idle_timeout in timeout(),
        total_timeout in timeout(),
        max_output_tokens in count(),
        context_tokens in count(),
    ) -> Limits {
        Limits {
            max_concurrency, max_queue, queue_timeout, connect_timeout, first_token_timeout, idle_timeout, total_timeout,
            max_output_tokens, context_tokens,
        }
    }
}

fn any_platform() -> impl Strategy<Value = Platform> {
    prop_oneof![
        Just(Platform::OpenAiCompatible),
        Just(Platform::Anthropic),
        "[a-zA-Z0-9.-]{1,63}".prop_map(|version| Platform::AzureOpenAi {
            api_version: ApiVersion::parse(&version).unwrap().unwrap(),
        }),
    ]
}

prop_compose! {
    fn any_feature()(
        setting in any_setting(),
        max_concurrency in count(),
        reserved_concurrency in count(),
        hedge_millis in option::of(10..=60_000_u64),
    ) -> Feature {
        let limits = FeatureLimits { max_concurrency, reserved_concurrency };
        Feature {
            name: FeatureName::parse("features/duo_chat").unwrap(),
            spec: FeatureSpec {
                setting,
                limits: if limits.reserves_too_much() { FeatureLimits::default() } else { limits },
                hedge_delay: hedge_millis.map(|millis| HedgeDelay::parse(Duration::from_millis(millis)).unwrap()),
            },
        }
    }
}

prop_compose! {
    fn any_model()(
        name in name(),
        limits in any_limits(),
        infill_mode in prop::sample::select(vec![
            InfillMode::FamilyDefault, InfillMode::Completions, InfillMode::Suffix, InfillMode::Chat,
        ]),
        is_ca_given in any::<bool>(),
        server_name in option::of("[a-z]{1,20}"),
        labels in btree_map(".{1,63}", ".{0,255}", 0..=64),
        is_disabled in any::<bool>(),
        platform in any_platform(),
        zone in "\\PC{0,63}",
        is_named in any::<bool>(),
    ) -> Model {
        let Change::Model { model, .. } = model() else { panic!() };
        let endpoint = Endpoint {
            uri: EndpointUri::parse("http://gpu1").unwrap(),
            weight: Weight::default(),
            zone: Zone::parse(&zone).unwrap(),
        };
        let is_named = is_named || platform.own_endpoint().is_none();
        let is_plain = platform == Platform::OpenAiCompatible;
        let ca = is_ca_given.then_some(include_str!("../../../../src/resource/model/tls/ca.pem"));
        Model {
            name,
            spec: ModelSpec {
                endpoints: Endpoints::new(is_named.then_some(endpoint).into_iter().collect()).unwrap(),
                identifier: model.spec.identifier.filter(|_| is_plain),
                limits: Box::new(limits),
                infill_mode: if platform.is_chat_only() { InfillMode::Chat } else { infill_mode },
                tls: Tls {
                    ca: CaCertificates::parse(ca.unwrap_or_default()).unwrap(),
                    server_name: ServerName::parse(&server_name.unwrap_or_default()).unwrap(),
                },
                disabled: is_disabled,
                labels: Labels::new(labels).unwrap(),
                platform,
                ..model.spec
            },
        }
    }
}

prop_compose! {
    fn any_rule()(
        id in option::of("[a-z0-9-]{1,63}"),
        lists in prop::array::uniform3(vec(".{1,255}", 0..=5)),
        percent in 1..=10_000_u16,
        model in name(),
        description in ".{0,255}",
    ) -> NewRule {
        let [namespaces, projects, users] = lists.map(|list| list.into_iter().map(Into::into).collect());
        let percent = Percent::parse(f64::from(percent) / 100.0).unwrap();
        NewRule {
            id: id.map(|id| RuleId::parse(&id).unwrap()),
            matches: RuleMatch::new(namespaces, projects, users, Some(percent)).unwrap(),
            model,
            description: Description::parse(&description).unwrap(),
        }
    }
}

prop_compose! {
    fn any_setting()(
        model in name(),
        others in btree_set(name(), 0..=8),
        rules in vec(any_rule(), 0..=6),
        provider in 0..5,
    ) -> Setting {
        let fallbacks = others.into_iter().filter(|other| *other != model).collect();
        let routes = Routes {
            fallbacks: Fallbacks::new(fallbacks).unwrap(),
            // If an id was drawn twice, the empty list is used instead, which is just as good.
            rules: Rules::new(rules).unwrap_or_default(),
        };
        match provider {
            0 => Setting::Unassigned,
            1 => Setting::Vendored,
            2 => Setting::Disabled { model: None, routes },
            3 => Setting::Disabled { model: Some(model), routes },
            _ => Setting::SelfHosted { model, routes },
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_model_is_read_back_and_is_not_larger_than_its_size_bound(model in any_model()) {
        let Change::Model { credential, .. } = self::model() else { panic!() };
        // The writer counts the reference to the credential separately.
        let counted = model.stored_bytes_max() + 2 * 64;
        let change = Change::Model { model, credential: credential.clone(), is_token_touched: false };
        read_back(&change, &credential);
        prop_assert!(encode(&change).len() <= counted);
    }

    #[test]
    fn every_feature_is_read_back_and_is_not_larger_than_its_size_bound(feature in any_feature()) {
        let counted = feature.spec.setting.stored_bytes_max();
        let change = Change::Feature(feature);
        read_back(&change, &ModelCredential::None);
        prop_assert!(encode(&change).len() <= counted);
    }
}

#[test]
fn the_size_bound_includes_the_overhead_of_many_short_texts() {
    let rule = NewRule {
        id: None,
        matches: RuleMatch::new(vec![], vec![], vec!["1".into(); 1000], None).unwrap(),
        model: ModelName::parse("models/a").unwrap(),
        description: Description::default(),
    };
    let setting = Setting::Disabled {
        model: None,
        routes: Routes {
            fallbacks: Fallbacks::default(),
            rules: Rules::new(vec![rule; 20]).unwrap(),
        },
    };
    let counted = setting.stored_bytes_max();
    let name = FeatureName::parse("features/duo_chat").unwrap();
    let feature = Feature {
        name,
        spec: FeatureSpec {
            setting,
            ..FeatureSpec::default()
        },
    };
    let stored = encode(&Change::Feature(feature)).len();
    assert!(stored <= counted, "{stored} {counted}");
}

#[test]
fn the_stored_bytes_contain_no_token_and_no_output_only_field() {
    let change = model();
    let value = encode(&change);
    assert!(!String::from_utf8_lossy(&value).contains("canary-4f1c"));
    let entry = registry::ModelEntry::decode(&*value).unwrap();
    let stored = entry.model.unwrap();
    assert_eq!(stored.etag, "");
    assert_eq!((stored.revision, stored.release_stage), (0, 0));
    assert_eq!((stored.platform, stored.infill_mode), (None, None));
    assert_eq!((stored.limits, stored.tls), (None, None));
    assert_eq!(stored.endpoints[0].weight, None, "a default is not stored");
    assert_eq!(stored.endpoints[1].weight, Some(0));
    let origins = entry.credential.unwrap().origins;
    assert_eq!(origins, ["http://gpu1:8000", "https://gpu2:443"]);
}

#[test]
fn a_model_whose_credential_does_not_match_is_not_read() {
    let change = model();
    let read = decode(&change.name(), &encode(&change), &ModelCredential::None);
    assert!(matches!(read, Err(StoredError::Credential)));
}

#[test]
fn bytes_that_break_a_rule_are_not_read() {
    let name = ResourceName::parse("features/duo_chat").unwrap();
    let bad = registry::Feature {
        provider: Some(4),
        ..Default::default()
    };
    let read = decode(&name, &bad.encode_to_vec(), &ModelCredential::None);
    assert!(matches!(read, Err(StoredError::Invalid { .. })));
    let read = decode(&name, b"\xff", &ModelCredential::None);
    assert!(matches!(read, Err(StoredError::Unreadable(_))));
}
