mod deletes;
mod idle;
mod platforms;

use switchboard::{
    endpoint::Origin,
    pb::{
        registry::{self, CredentialState},
        types::Provider,
    },
    resource::model::Count,
    secret::ApiToken,
};

use super::*;
use crate::{
    catalog::{Caller, CompiledModel, Decision, ResolveError, Unusable},
    subscription::fixture::{
        Store, TOKEN_A, TOKEN_B, assigned, credential, feature, model, model_with_token, revision,
    },
};

const CHAT: &str = "features/duo_chat";
const A: &str = "models/a";
const B: &str = "models/b";

/// A store, and a router that compiles each of its revisions.
struct Case {
    store: Store,
    used: Used,
    cache: CredentialsById,
    last: Option<Compiled>,
}

impl Case {
    fn new() -> Self {
        Self {
            store: Store::new(),
            used: Used::default(),
            cache: CredentialsById::new(),
            last: None,
        }
    }

    /// A chat feature that model a serves, with token A, which is fetched.
    fn with_chat() -> Self {
        let mut case = Self::new();
        case.fetched(TOKEN_A);
        case.write(vec![(A, model_with_token(TOKEN_A)), (CHAT, assigned(A))]);
        assert_eq!(case.held(), []);
        case
    }

    fn write(&mut self, changes: Vec<(&str, prost_types::Any)>) {
        self.store.write(changes);
        self.compile();
    }

    fn compile(&mut self) {
        let mut compiled = compile(&self.store.received(), &self.used, &self.cache);
        self.used = std::mem::take(&mut compiled.used);
        self.last = Some(compiled);
    }

    fn fetched(&mut self, id: &str) {
        let id = CredentialId::parse(id).unwrap();
        let credential = Credential {
            id,
            origins: [Origin::parse("http://gpu1:8000").unwrap()].into(),
            token: ApiToken::parse("sk-1".to_owned()).unwrap(),
        };
        self.cache.insert(id, Arc::new(credential));
    }

    fn last(&self) -> &Compiled {
        self.last.as_ref().unwrap()
    }

    /// Returns the held items, each with the cause and the revision in use instead.
    fn held(&self) -> Vec<(String, &'static str, i64)> {
        let held = self.last().held.iter().map(|held| {
            let why = match held.why {
                HeldWhy::Refused(_) => "refused",
                HeldWhy::CapabilityMissing(_) => "capability",
                HeldWhy::CredentialPending => "pending",
                HeldWhy::Dependency(_) => "dependency",
            };
            (held.name.to_string(), why, held.used_revision.get())
        });
        held.collect()
    }

    fn wanted(&self) -> Vec<String> {
        let wanted = self.last().wanted.iter();
        wanted.map(|wanted| wanted.credential.id.to_string()).collect()
    }

    fn decide(&self) -> Result<Decision, ResolveError> {
        self.last().catalog.resolve("duo_chat", &Caller::default())
    }

    /// Returns the first model that would answer a chat.
    fn chat(&self) -> Result<&CompiledModel, Unusable> {
        let decision = self.decide().unwrap();
        let first = self.last().catalog.candidates(&decision).next().unwrap();
        first.model.map(|model| &**model)
    }

    /// Returns the id of the credential that a chat would send.
    fn chat_token(&self) -> Option<String> {
        let model = self.chat().unwrap();
        model.credential.as_ref().map(|credential| credential.id.to_string())
    }
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

/// A chat feature assigned to model a, after `change`.
fn chat_feature(change: impl FnOnce(&mut registry::Feature)) -> prost_types::Any {
    let mut feature = registry::Feature {
        provider: Some(Provider::SelfHosted.into()),
        model: Some(A.to_owned()),
        ..Default::default()
    };
    change(&mut feature);
    prost_types::Any {
        value: prost::Message::encode_to_vec(&feature),
        ..assigned(A)
    }
}

fn pilot(change: impl FnOnce(&mut registry::FeatureRule)) -> registry::FeatureRule {
    let mut rule = registry::FeatureRule {
        rule_id: "pilot".to_owned(),
        r#match: Some(registry::RuleMatch {
            percent: Some(10.0),
            ..Default::default()
        }),
        model: B.to_owned(),
        ..Default::default()
    };
    change(&mut rule);
    rule
}

fn settings(inference_paused: bool) -> prost_types::Any {
    let settings = registry::Settings {
        inference_paused: Some(inference_paused),
        ..Default::default()
    };
    prost_types::Any {
        type_url: "type.googleapis.com/switchboard.registry.v1.Settings".to_owned(),
        value: prost::Message::encode_to_vec(&settings),
    }
}

fn held(name: &str, why: &'static str, used: i64) -> Vec<(String, &'static str, i64)> {
    vec![(name.to_owned(), why, used)]
}

#[test]
fn a_usable_model_is_called_with_its_stored_spec() {
    let mut case = Case::new();
    let platform = model(|entry| entry.model.as_mut().unwrap().identifier = Some("custom_openai/m:1".to_owned()));
    case.write(vec![(A, model(|_| ())), (B, platform), (CHAT, assigned(A))]);
    assert_eq!(case.held(), []);
    let model = case.chat().unwrap();
    assert_eq!(model.spec.identifier, None);
    assert_eq!(model.spec.family.machine_name, "llama3");
    assert_eq!(case.last().catalog.cursor.revision, revision(2));
    assert_eq!(model.spec.servers()[0].weight.get(), 1);
    let ModelState::Ready(b) = &case.last().catalog.models[&ModelName::parse(B).unwrap()] else {
        panic!("model b should be usable");
    };
    assert_eq!(b.spec.sent_identifier(), Some("m:1"), "the platform prefix is not sent");
}

#[test]
fn a_refused_model_keeps_its_last_version_with_that_versions_credential() {
    let mut case = Case::with_chat();
    case.fetched(TOKEN_B);
    let unknown_family = model(|entry| {
        entry.model.as_mut().unwrap().family = Some("llama99".to_owned());
        entry.credential = Some(credential(CredentialState::Set, TOKEN_B));
    });
    case.write(vec![(A, unknown_family)]);
    assert_eq!(case.held(), held(A, "refused", 2));
    assert_eq!(case.chat_token().as_deref(), Some(TOKEN_A));
    case.write(vec![(A, model_with_token(TOKEN_B))]);
    assert_eq!(case.held(), [], "a later version ends the hold");
    assert_eq!(case.chat_token().as_deref(), Some(TOKEN_B));
}

#[test]
fn an_unusable_model_is_refused_with_its_name_and_field() {
    let endpoint = |uri: &str, weight| {
        let uri = uri.to_owned();
        model(move |entry| {
            let endpoint = &mut entry.model.as_mut().unwrap().endpoints[0];
            (endpoint.uri, endpoint.weight) = (uri, weight);
        })
    };
    let garbage = prost_types::Any {
        value: vec![0xff],
        ..model(|_| ())
    };
    let other_type = prost_types::Any {
        type_url: "type.googleapis.com/switchboard.registry.v1.Feature".to_owned(),
        ..model(|_| ())
    };
    let mut elsewhere = credential(CredentialState::Set, TOKEN_A);
    elsewhere.origins = vec!["http://gpu2:8000".to_owned()];
    let platform = |platform: i32| model(move |entry| entry.model.as_mut().unwrap().platform = Some(platform));
    let tls = |ca_pem: Option<&str>, server_name: Option<&str>| {
        let tls = registry::Tls {
            ca_pem: ca_pem.map(str::to_owned),
            server_name: server_name.map(str::to_owned),
        };
        model(move |entry| entry.model.as_mut().unwrap().tls = Some(tls))
    };
    let limited = |change: fn(&mut registry::ModelLimits)| {
        model(move |entry| change(entry.model.as_mut().unwrap().limits.get_or_insert_default()))
    };
    let rows = [
        (garbage, ""),
        (other_type, ""),
        (endpoint("ftp://gpu1", None), "model.endpoints[0].uri"),
        (endpoint("http://gpu1:8000", Some(1001)), "model.endpoints[0].weight"),
        (endpoint("http://gpu1:8000", Some(0)), "model.endpoints"),
        (model(|entry| entry.model = None), "model.display_name"),
        (
            model(|entry| entry.model.as_mut().unwrap().family = None),
            "model.family",
        ),
        (model(|entry| entry.credential = Some(elsewhere)), "credential.origins"),
        (model_with_token("short"), "credential.id"),
        (platform(99), "model.platform"),
        (
            limited(|limits| limits.max_concurrency = Some(0)),
            "model.limits.max_concurrency",
        ),
        (
            limited(|limits| limits.max_queue = Some(10_001)),
            "model.limits.max_queue",
        ),
        (
            limited(|limits| limits.max_output_tokens = Some(-1)),
            "model.limits.max_output_tokens",
        ),
        (
            limited(|limits| limits.queue_timeout = seconds(301)),
            "model.limits.queue_timeout",
        ),
        (
            limited(|limits| limits.connect_timeout = seconds(61)),
            "model.limits.connect_timeout",
        ),
        (
            limited(|limits| limits.first_token_timeout = seconds(0)),
            "model.limits.first_token_timeout",
        ),
        (
            limited(|limits| limits.idle_timeout = seconds(i64::MIN)),
            "model.limits.idle_timeout",
        ),
        (
            limited(|limits| limits.total_timeout = seconds(901)),
            "model.limits.total_timeout",
        ),
        (tls(Some("no certificate"), None), "model.tls.ca_pem"),
        (tls(None, Some("no name")), "model.tls.server_name"),
        (
            model(|entry| entry.credential.as_mut().unwrap().state = 9),
            "credential.state",
        ),
    ];
    for (payload, field) in rows {
        let mut case = Case::new();
        case.write(vec![(A, payload), (CHAT, assigned(A))]);
        let held = &case.last().held[0];
        assert_eq!(held.name.to_string(), A);
        assert_eq!(held.used_revision, Revision::ZERO);
        let HeldWhy::Refused(refusal) = &held.why else {
            panic!("{field}: {:?}", held.why);
        };
        assert_eq!(refusal.field, field);
        assert!(matches!(case.chat(), Err(Unusable::NotReady)));
    }
}

#[test]
fn an_item_that_requires_a_capability_is_held() {
    let mut case = Case::with_chat();
    case.store.write(vec![(A, model_with_token(TOKEN_A))]);
    case.store
        .spoil(A, |resource| resource.requires = vec!["rules".to_owned()]);
    case.compile();
    assert_eq!(case.held(), held(A, "capability", 2));
    assert!(case.chat().is_ok());
}

#[test]
fn the_last_version_stays_in_use_while_the_credential_is_fetched() {
    let mut case = Case::with_chat();
    case.write(vec![(A, model_with_token(TOKEN_B))]);
    assert_eq!(case.held(), held(A, "pending", 2));
    assert_eq!(case.wanted(), [TOKEN_B]);
    assert_eq!(case.chat_token().as_deref(), Some(TOKEN_A));
    case.fetched(TOKEN_B);
    case.compile();
    assert_eq!(case.held(), []);
    assert_eq!(case.chat_token().as_deref(), Some(TOKEN_B));
}

#[test]
fn no_credential_is_fetched_for_a_model_that_no_call_can_reach() {
    let mut case = Case::new();
    let disabled = model(|entry| {
        entry.credential = Some(credential(CredentialState::Set, TOKEN_A));
        entry.model.as_mut().unwrap().disabled = Some(true);
    });
    case.write(vec![
        (A, disabled),
        (B, model_with_token(TOKEN_B)),
        (CHAT, assigned(A)),
        ("features/duo_chat_explain_code", feature(Provider::Disabled, Some(B))),
    ]);
    assert!(case.wanted().is_empty());
    assert_eq!(case.held(), []);
    assert!(matches!(case.chat(), Err(Unusable::Disabled)));
}

#[test]
fn a_recreated_model_and_a_new_incarnation_inherit_nothing() {
    let mut case = Case::with_chat();
    case.store.write(vec![(A, model_with_token(TOKEN_B))]);
    case.store.spoil(A, |resource| resource.create_revision = 3);
    case.compile();
    assert_eq!(case.held(), held(A, "pending", 0));
    assert!(matches!(case.chat(), Err(Unusable::NotReady)));

    let mut case = Case::with_chat();
    case.store.write(vec![(A, model_with_token(TOKEN_B))]);
    case.store.restore();
    case.compile();
    assert_eq!(case.held(), held(A, "pending", 0));
    assert_eq!(case.used.life(), Some(case.store.cursor.incarnation));
}

#[test]
fn disabling_and_dropping_the_credential_take_effect_even_in_a_refused_model() {
    let refused = |change: fn(&mut registry::ModelEntry)| {
        model(move |entry| {
            entry.model.as_mut().unwrap().family = None;
            entry.credential = Some(credential(CredentialState::Set, TOKEN_A));
            change(entry);
        })
    };
    let mut case = Case::with_chat();
    case.write(vec![(
        A,
        refused(|entry| entry.model.as_mut().unwrap().disabled = Some(true)),
    )]);
    assert!(matches!(case.chat(), Err(Unusable::Disabled)));

    let mut case = Case::with_chat();
    case.write(vec![(
        A,
        refused(|entry| entry.credential.as_mut().unwrap().state = CredentialState::Dropped.into()),
    )]);
    assert!(matches!(case.chat(), Err(Unusable::CredentialMissing)));
    case.write(vec![(A, refused(|_| ()))]);
    assert!(
        matches!(case.chat(), Err(Unusable::CredentialMissing)),
        "a dropped credential does not come back with a refused version"
    );

    let mut case = Case::with_chat();
    case.write(vec![(A, refused(|entry| entry.credential = None))]);
    assert_eq!(case.held(), held(A, "refused", 2));
    assert_eq!(case.chat_token(), None);
}

#[test]
fn a_provider_without_models_takes_effect_even_in_a_refused_feature() {
    for (provider, error) in [
        (Provider::Disabled, "switched off"),
        (Provider::Vendored, "own cloud"),
        (Provider::Unassigned, "not assigned"),
    ] {
        let mut case = Case::with_chat();
        case.store.write(vec![(CHAT, feature(provider, Some(A)))]);
        case.store
            .spoil(CHAT, |resource| resource.requires = vec!["rules".to_owned()]);
        case.compile();
        assert_eq!(case.held(), held(CHAT, "capability", 2));
        let text = case.decide().unwrap_err().to_string();
        assert!(text.contains(error), "{text}");
    }
}

#[test]
fn a_refused_feature_keeps_its_last_setting() {
    let mut case = Case::with_chat();
    let unknown_provider = prost_types::Any {
        value: vec![0x10, 9],
        ..assigned(A)
    };
    case.write(vec![(CHAT, unknown_provider)]);
    assert_eq!(case.held(), held(CHAT, "refused", 2));
    assert!(case.chat().is_ok());
}

#[test]
fn a_feature_uses_its_new_model_once_that_is_usable() {
    let mut case = Case::with_chat();
    case.write(vec![(B, model_with_token(TOKEN_B)), (CHAT, assigned(B))]);
    assert_eq!(
        case.held(),
        [held(CHAT, "dependency", 2), held(B, "pending", 0)].concat()
    );
    assert_eq!(case.chat().unwrap().name.id(), "a");
    case.fetched(TOKEN_B);
    case.compile();
    assert_eq!(case.held(), []);
    assert_eq!(case.chat().unwrap().name.id(), "b");
}

#[test]
fn a_feature_whose_old_model_is_disabled_does_not_wait() {
    let mut case = Case::with_chat();
    let disabled = model(|entry| entry.model.as_mut().unwrap().disabled = Some(true));
    case.write(vec![(A, disabled), (B, model_with_token(TOKEN_B)), (CHAT, assigned(B))]);
    assert_eq!(case.held(), held(B, "pending", 0));
    assert!(matches!(case.chat(), Err(Unusable::NotReady)));
}

#[test]
fn an_unknown_kind_or_feature_is_ignored() {
    let mut case = Case::with_chat();
    let unknown = || prost_types::Any {
        type_url: "t".to_owned(),
        value: vec![1],
    };
    case.write(vec![("gadgets/x", unknown()), ("features/of_next_year", unknown())]);
    assert_eq!(case.held(), []);
    assert!(case.chat().is_ok());
}

#[test]
fn the_stored_limits_of_a_model_are_used() {
    let mut case = Case::new();
    let limited = model(|entry| {
        entry.model.as_mut().unwrap().limits = Some(registry::ModelLimits {
            max_concurrency: Some(3),
            queue_timeout: seconds(2),
            total_timeout: seconds(900),
            ..Default::default()
        });
    });
    case.write(vec![(A, limited), (CHAT, assigned(A))]);
    let limits = &case.chat().unwrap().spec.limits;
    assert_eq!((limits.max_concurrency.map(Count::get), limits.queue()), (Some(3), 6));
    assert_eq!(limits.queue_timeout().as_secs(), 2);
    assert_eq!(limits.total_timeout.map(|total| total.get().as_secs()), Some(900));
    assert_eq!(limits.idle_timeout, None);
}

#[test]
fn the_stored_limits_hedge_delay_and_zones_are_used() {
    let mut case = Case::new();
    let limited = chat_feature(|feature| {
        feature.limits = Some(registry::FeatureLimits {
            max_concurrency: Some(8),
            reserved_concurrency: Some(2),
        });
        feature.hedge_delay = Some(prost_types::Duration {
            seconds: 0,
            nanos: 10_000_000,
        });
    });
    let zoned = model(|entry| entry.model.as_mut().unwrap().endpoints[0].zone = "west".to_owned());
    case.write(vec![(A, zoned), (CHAT, limited)]);
    assert_eq!(case.chat().unwrap().spec.servers()[0].zone.as_str(), "west");
    let chat = CHAT.parse().unwrap();
    let Some(CompiledSetting::SelfHosted(assignment)) = case.last().catalog.features.get(&chat) else {
        panic!("the chat is not assigned");
    };
    let limits = assignment.limits;
    assert_eq!(limits.max_concurrency.map(Count::get), Some(8));
    assert_eq!(limits.reserved_concurrency.map(Count::get), Some(2));
    assert_eq!(assignment.hedge_delay.map(|delay| delay.get().as_millis()), Some(10));
}

#[test]
fn an_invalid_setting_is_refused_with_its_field() {
    let with_rule = |rule: registry::FeatureRule| chat_feature(|feature| feature.rules = vec![rule]);
    let share = |percent| {
        pilot(|rule| {
            rule.r#match = Some(registry::RuleMatch {
                percent: Some(percent),
                ..Default::default()
            });
        })
    };
    let limited = |max_concurrency, reserved_concurrency| {
        chat_feature(move |feature| {
            feature.limits = Some(registry::FeatureLimits {
                max_concurrency,
                reserved_concurrency,
            });
        })
    };
    let delayed =
        |nanos| chat_feature(move |feature| feature.hedge_delay = Some(prost_types::Duration { seconds: 0, nanos }));
    for (payload, field) in [
        (chat_feature(|feature| feature.model = None), "model"),
        (
            chat_feature(|feature| feature.fallback_models = vec![B.to_owned(), "b".to_owned()]),
            "fallback_models[1]",
        ),
        (
            with_rule(pilot(|rule| rule.rule_id = "A".to_owned())),
            "rules[0].rule_id",
        ),
        (with_rule(pilot(|rule| rule.model.clear())), "rules[0].model"),
        (with_rule(pilot(|rule| rule.r#match = None)), "rules[0].match"),
        (with_rule(share(0.0)), "rules[0].match.percent"),
        (with_rule(share(0.001)), "rules[0].match.percent"),
        (limited(Some(0), None), "limits.max_concurrency"),
        (limited(None, Some(-1)), "limits.reserved_concurrency"),
        (delayed(9_999_999), "hedge_delay"),
        (delayed(-1), "hedge_delay"),
        (chat_feature(|feature| feature.hedge_delay = seconds(61)), "hedge_delay"),
    ] {
        let mut case = Case::with_chat();
        case.write(vec![(CHAT, payload)]);
        assert_eq!(case.held(), held(CHAT, "refused", 2), "{field}");
        let HeldWhy::Refused(refusal) = &case.last().held[0].why else {
            panic!("{field}");
        };
        assert_eq!(refusal.field, field);
        assert!(case.chat().is_ok(), "{field}: the last setting stays in use");
    }
}

#[test]
fn the_credential_of_a_model_named_only_as_fallback_or_in_a_rule_is_fetched() {
    for payload in [
        chat_feature(|feature| feature.fallback_models = vec![B.to_owned()]),
        chat_feature(|feature| feature.rules = vec![pilot(|_| ())]),
    ] {
        let mut case = Case::with_chat();
        case.write(vec![(B, model_with_token(TOKEN_B)), (CHAT, payload)]);
        assert_eq!(case.wanted(), [TOKEN_B]);
        assert_eq!(case.held(), held(B, "pending", 0), "the feature does not wait for it");
        case.fetched(TOKEN_B);
        case.compile();
        assert_eq!(case.held(), []);
    }
}

#[test]
fn a_pause_takes_effect_at_once_but_its_end_is_held_if_it_cannot_be_used() {
    let mut case = Case::with_chat();
    assert!(case.decide().is_ok());
    case.store.write(vec![("settings", settings(true))]);
    case.store
        .spoil("settings", |resource| resource.requires = vec!["more".to_owned()]);
    case.compile();
    assert_eq!(case.held(), held("settings", "capability", 0));
    assert!(matches!(case.decide(), Err(ResolveError::InferencePaused { .. })));

    case.store.write(vec![("settings", settings(false))]);
    case.store
        .spoil("settings", |resource| resource.requires = vec!["more".to_owned()]);
    case.compile();
    assert!(matches!(case.decide(), Err(ResolveError::InferencePaused { .. })));
    case.write(vec![("settings", settings(false))]);
    assert_eq!(case.held(), []);
    assert!(case.decide().is_ok());
}
