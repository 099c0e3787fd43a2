//! Sets every settable field by itself and checks that it appears everywhere the contract shows it and that no
//! conversion loses it.
//!
//! The fields come from the descriptor of the contract, not from this file. [`MODEL`], [`FEATURE`] and [`SETTINGS`]
//! must have a value for each of them.

use std::{collections::BTreeMap, fmt::Debug};

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, Kind as FieldKind, ReflectMessage, Value};
use switchboard::{
    names::ModelName,
    pb::{
        FILE_DESCRIPTOR_SET,
        registry::{
            self, CreateModelRequest, Endpoint, ExportConfigRequest, Feature, FeatureRule, GetFeatureRequest,
            GetModelRequest, GetSettingsRequest, ListChangesRequest, Model, ModelEntry, ModelLimits, RuleMatch,
            Settings, UpdateFeatureRequest, UpdateModelRequest, UpdateSettingsRequest, WatchRequest, watch_response,
        },
        types::Provider,
    },
    resource::model::Platform,
    violation::Violations,
};
use switchboard_registry::merge::{Edit, Editable, differing};
use switchboard_router::{
    catalog::{self, CompiledSetting},
    subscription::resource::{Content, CredentialSpec, Resource},
};

use crate::harness::{Pair, reason_of};

const CA: &str = include_str!("../../src/resource/model/tls/ca.pem");
/// The models that features name.
const MODELS: [&str; 3] = ["models/a", "models/b", "models/c"];

/// A settable field with a value that differs from its default.
struct Row<M> {
    path: &'static str,
    /// Prepares the resource for the value.
    before: fn(&mut M),
    value: fn(&mut M),
    /// Whether a router uses the value.
    routed: fn(&Content) -> bool,
}

const fn row<M>(path: &'static str, value: fn(&mut M), routed: fn(&Content) -> bool) -> Row<M> {
    Row {
        path,
        before: |_| {},
        value,
        routed,
    }
}

/// The options that no platform of this build supports: every value is refused.
const OPTIONS_OF_NO_PLATFORM: [&str; 2] = ["platform_options.region", "platform_options.project"];

const fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

/// Returns the model as a router would call it.
fn called(content: &Content) -> catalog::CompiledModel {
    let Content::Model(name, content) = content else {
        panic!("not a model: {content:?}");
    };
    catalog::CompiledModel::new(name.clone(), content.spec.clone().unwrap(), None)
}

fn limits(model: &mut Model) -> &mut ModelLimits {
    model.limits.get_or_insert_default()
}

const MODEL: &[Row<Model>] = &[
    row(
        "display_name",
        |m| m.display_name = Some("Other".to_owned()),
        |c| called(c).spec.display_name.as_str() == "Other",
    ),
    row(
        "family",
        |m| m.family = Some("codestral".to_owned()),
        |c| called(c).spec.family.machine_name == "codestral",
    ),
    row(
        "platform",
        |m| m.platform = Some(3),
        |c| called(c).spec.platform == Platform::Anthropic,
    ),
    row(
        "endpoints",
        |m| {
            m.endpoints = vec![Endpoint {
                uri: "http://gpu7:8000".to_owned(),
                weight: Some(7),
                zone: "west".to_owned(),
            }];
        },
        |c| {
            let spec = called(c).spec;
            let [server] = spec.servers() else { return false };
            (server.uri.as_str(), server.weight.get(), server.zone.as_str()) == ("http://gpu7:8000", 7, "west")
        },
    ),
    row(
        "endpoint",
        |m| m.endpoint = Some("http://gpu8:8000".to_owned()),
        |c| called(c).spec.servers()[0].uri.as_str() == "http://gpu8:8000",
    ),
    row(
        "identifier",
        |m| m.identifier = Some("custom_openai/other".to_owned()),
        |c| called(c).identifier_or(None) == "other",
    ),
    row(
        "api_token",
        |m| m.api_token = Some("sk-fields".to_owned()),
        |c| {
            let Content::Model(_, content) = c else { return false };
            matches!(content.credential, Some(CredentialSpec::Set(_)))
        },
    ),
    row(
        "limits.max_concurrency",
        |m| limits(m).max_concurrency = Some(5),
        |c| {
            called(c)
                .spec
                .limits
                .max_concurrency
                .is_some_and(|most| most.count() == 5)
        },
    ),
    row(
        "limits.max_queue",
        |m| limits(m).max_queue = Some(6),
        |c| called(c).spec.limits.queue() == 6,
    ),
    row(
        "limits.queue_timeout",
        |m| limits(m).queue_timeout = seconds(11),
        |c| called(c).spec.limits.queue_timeout().as_secs() == 11,
    ),
    row(
        "limits.connect_timeout",
        |m| limits(m).connect_timeout = seconds(12),
        |c| {
            called(c)
                .spec
                .limits
                .connect_timeout
                .is_some_and(|span| span.get().as_secs() == 12)
        },
    ),
    row(
        "limits.first_token_timeout",
        |m| limits(m).first_token_timeout = seconds(13),
        |c| {
            called(c)
                .spec
                .limits
                .first_token_timeout
                .is_some_and(|span| span.get().as_secs() == 13)
        },
    ),
    row(
        "limits.idle_timeout",
        |m| limits(m).idle_timeout = seconds(14),
        |c| {
            called(c)
                .spec
                .limits
                .idle_timeout
                .is_some_and(|span| span.get().as_secs() == 14)
        },
    ),
    row(
        "limits.total_timeout",
        |m| limits(m).total_timeout = seconds(15),
        |c| {
            called(c)
                .spec
                .limits
                .total_timeout
                .is_some_and(|span| span.get().as_secs() == 15)
        },
    ),
    row(
        "limits.max_output_tokens",
        |m| limits(m).max_output_tokens = Some(16),
        |c| {
            called(c)
                .spec
                .limits
                .max_output_tokens
                .is_some_and(|most| most.get() == 16)
        },
    ),
    row(
        "limits.context_tokens",
        |m| limits(m).context_tokens = Some(17),
        |c| {
            called(c)
                .spec
                .limits
                .context_tokens
                .is_some_and(|most| most.get() == 17)
        },
    ),
    row(
        "infill_mode",
        |m| m.infill_mode = Some(4),
        |c| called(c).spec.infill_mode() == switchboard::resource::model::InfillMode::Chat,
    ),
    row(
        "tls.ca_pem",
        |m| m.tls.get_or_insert_default().ca_pem = Some(CA.to_owned()),
        |c| called(c).tls.is_some_and(|tls| tls.roots().is_some()),
    ),
    row(
        "tls.server_name",
        |m| m.tls.get_or_insert_default().server_name = Some("gpu".to_owned()),
        |c| called(c).tls.is_some_and(|tls| tls.server_name().is_some()),
    ),
    row(
        "disabled",
        |m| m.disabled = Some(true),
        |c| matches!(c, Content::Model(_, content) if content.disabled),
    ),
    row(
        "labels",
        |m| m.labels = [("team".to_owned(), "a".to_owned())].into(),
        |c| {
            let spec = called(c).spec;
            let labels = spec.labels.iter().map(|(key, value)| format!("{key}={value}"));
            labels.eq(["team=a"])
        },
    ),
    Row {
        path: "platform_options.api_version",
        before: |m| {
            m.platform = Some(2);
            m.platform_options.get_or_insert_default().api_version = Some("2024-10-21".to_owned());
        },
        value: |m| m.platform_options.get_or_insert_default().api_version = Some("2025-01-01".to_owned()),
        routed: |c| {
            let spec = called(c).spec;
            spec.platform
                .api_version()
                .is_some_and(|version| version.as_str() == "2025-01-01")
        },
    },
    row(
        "platform_options.region",
        |m| m.platform_options.get_or_insert_default().region = Some("x".to_owned()),
        |_| false,
    ),
    row(
        "platform_options.project",
        |m| m.platform_options.get_or_insert_default().project = Some("x".to_owned()),
        |_| false,
    ),
];

fn assigned(feature: &mut Feature) {
    feature.provider = Some(Provider::SelfHosted.into());
    feature.model = Some(MODELS[0].to_owned());
}

/// Returns the assignment of a feature on a router.
fn assignment(content: &Content) -> &catalog::Assignment {
    match content {
        Content::Feature(_, Ok(CompiledSetting::SelfHosted(assignment))) => assignment,
        other => panic!("not assigned: {other:?}"),
    }
}

fn named(id: &str) -> ModelName {
    ModelName::parse(id).unwrap()
}

const fn assigned_row(path: &'static str, value: fn(&mut Feature), routed: fn(&Content) -> bool) -> Row<Feature> {
    Row {
        path,
        before: assigned,
        value,
        routed,
    }
}

const FEATURE: &[Row<Feature>] = &[
    row(
        "provider",
        |f| f.provider = Some(Provider::Vendored.into()),
        |c| matches!(c, Content::Feature(_, Ok(CompiledSetting::Vendored))),
    ),
    assigned_row(
        "model",
        |f| f.model = Some(MODELS[1].to_owned()),
        |c| assignment(c).model == named(MODELS[1]),
    ),
    assigned_row(
        "fallback_models",
        |f| f.fallback_models = vec![MODELS[2].to_owned(), MODELS[1].to_owned()],
        |c| assignment(c).fallbacks == [named(MODELS[2]), named(MODELS[1])],
    ),
    assigned_row(
        "rules",
        |f| {
            f.rules = vec![FeatureRule {
                rule_id: "pilot".to_owned(),
                r#match: Some(RuleMatch {
                    namespace_ids: vec!["42".to_owned()],
                    project_ids: vec!["7".to_owned()],
                    user_ids: vec!["u".to_owned()],
                    percent: Some(100.0),
                }),
                model: MODELS[2].to_owned(),
                description: "for people".to_owned(),
            }];
        },
        |c| {
            let [rule] = &assignment(c).rules[..] else { return false };
            let feature = "features/duo_chat".parse().unwrap();
            // The rule holds only if all of its conditions hold.
            let holds = |namespace_id, project_id, user_id, global_user_id| {
                let scope = catalog::Scope {
                    namespace_id,
                    project_id,
                    user_id,
                    global_user_id,
                    root_namespace_id: None,
                };
                let caller = catalog::Caller {
                    scope,
                    ..Default::default()
                };
                rule.condition.holds(&caller, &feature, &rule.id)
            };
            let drawn = Some("anybody");
            rule.id.as_str() == "pilot"
                && rule.model == named(MODELS[2])
                && holds(Some("42"), Some("7"), Some("u"), drawn)
                && !holds(None, Some("7"), Some("u"), drawn)
                && !holds(Some("42"), None, Some("u"), drawn)
                && !holds(Some("42"), Some("7"), None, drawn)
                && !holds(Some("42"), Some("7"), Some("u"), None)
        },
    ),
    assigned_row(
        "limits.max_concurrency",
        |f| f.limits.get_or_insert_default().max_concurrency = Some(9),
        |c| {
            assignment(c)
                .limits
                .max_concurrency
                .is_some_and(|most| most.count() == 9)
        },
    ),
    assigned_row(
        "limits.reserved_concurrency",
        |f| f.limits.get_or_insert_default().reserved_concurrency = Some(2),
        |c| {
            assignment(c)
                .limits
                .reserved_concurrency
                .is_some_and(|kept| kept.count() == 2)
        },
    ),
    assigned_row(
        "hedge_delay",
        |f| f.hedge_delay = seconds(3),
        |c| {
            assignment(c)
                .hedge_delay
                .is_some_and(|delay| delay.get().as_secs() == 3)
        },
    ),
];

const SETTINGS: &[Row<Settings>] = &[
    // Routers do not use this field.
    row(
        "beta_enabled",
        |s| s.beta_enabled = Some(true),
        |c| matches!(c, Content::Settings(Ok(false))),
    ),
    row(
        "inference_paused",
        |s| s.inference_paused = Some(true),
        |c| matches!(c, Content::Settings(Ok(true))),
    ),
];

/// A kind of resource, in the forms in which the registry shows it.
trait Kind: Editable + Clone + PartialEq + Debug + Default {
    /// The resource name that the registry returns.
    fn name(&self) -> &str;

    /// Reads one resource from the registry.
    async fn get(pair: &Pair, name: &str) -> Self;

    /// Updates exactly the field at `path`.
    async fn update(self, pair: &Pair, name: &str, path: &str) -> Result<Self, tonic::Status>;

    /// Returns the resource from an export.
    fn exported(config: &registry::Config, name: &str) -> Self;

    /// Decodes the resource from a payload of the change stream or of the history.
    fn payload(payload: &prost_types::Any) -> Self;
}

fn mask(path: &str) -> prost_types::FieldMask {
    prost_types::FieldMask {
        paths: vec![path.to_owned()],
    }
}

impl Kind for Model {
    fn name(&self) -> &str {
        &self.name
    }

    async fn get(pair: &Pair, name: &str) -> Self {
        let request = GetModelRequest { name: name.to_owned() };
        pair.models().get_model(request).await.unwrap().into_inner()
    }

    async fn update(mut self, pair: &Pair, name: &str, path: &str) -> Result<Self, tonic::Status> {
        name.clone_into(&mut self.name);
        let request = UpdateModelRequest {
            model: Some(self),
            update_mask: Some(mask(path)),
            ..Default::default()
        };
        pair.models()
            .update_model(request)
            .await
            .map(tonic::Response::into_inner)
    }

    fn exported(config: &registry::Config, name: &str) -> Self {
        config.models.iter().find(|model| model.name == name).unwrap().clone()
    }

    fn payload(payload: &prost_types::Any) -> Self {
        ModelEntry::decode(&*payload.value).unwrap().model.unwrap()
    }
}

impl Kind for Feature {
    fn name(&self) -> &str {
        &self.name
    }

    async fn get(pair: &Pair, name: &str) -> Self {
        let request = GetFeatureRequest { name: name.to_owned() };
        pair.features().get_feature(request).await.unwrap().into_inner()
    }

    async fn update(mut self, pair: &Pair, name: &str, path: &str) -> Result<Self, tonic::Status> {
        name.clone_into(&mut self.name);
        let request = UpdateFeatureRequest {
            feature: Some(self),
            update_mask: Some(mask(path)),
            ..Default::default()
        };
        pair.features()
            .update_feature(request)
            .await
            .map(tonic::Response::into_inner)
    }

    fn exported(config: &registry::Config, name: &str) -> Self {
        config
            .features
            .iter()
            .find(|feature| feature.name == name)
            .unwrap()
            .clone()
    }

    fn payload(payload: &prost_types::Any) -> Self {
        Self::decode(&*payload.value).unwrap()
    }
}

impl Kind for Settings {
    fn name(&self) -> &str {
        &self.name
    }

    async fn get(pair: &Pair, _name: &str) -> Self {
        pair.settings()
            .get_settings(GetSettingsRequest {})
            .await
            .unwrap()
            .into_inner()
    }

    async fn update(self, pair: &Pair, _name: &str, path: &str) -> Result<Self, tonic::Status> {
        let request = UpdateSettingsRequest {
            settings: Some(self),
            update_mask: Some(mask(path)),
            ..Default::default()
        };
        pair.settings()
            .update_settings(request)
            .await
            .map(tonic::Response::into_inner)
    }

    fn exported(config: &registry::Config, _name: &str) -> Self {
        config.settings.clone().unwrap()
    }

    fn payload(payload: &prost_types::Any) -> Self {
        Self::decode(&*payload.value).unwrap()
    }
}

/// Returns a resource that has only the value of a row.
fn value<M: Kind>(row: &Row<M>) -> M {
    let mut value = M::default();
    (row.value)(&mut value);
    value
}

/// Whether a resource has the value of a row: merging the value into it changes nothing.
fn shows<M: Kind>(shown: &M, row: &Row<M>) -> bool {
    let (path, given) = (row.path, value(row));
    let mut violations = Violations::new();
    let edit = Edit::new(given, Some(&mask(path)), &mut violations);
    violations.is_empty() && edit.over(shown).0 == *shown
}

/// Checks that each place that shows a resource has the value of a row.
async fn check<M: Kind>(pair: &Pair, name: &str, row: &Row<M>, when: &str) {
    let path = row.path;
    let config = pair.config().export_config(ExportConfigRequest {}).await.unwrap();
    let exported = M::exported(&config.into_inner().config.unwrap(), name);
    let streamed = watched(pair).await.remove(name).unwrap();
    let request = ListChangesRequest {
        resource: name.to_owned(),
        ..Default::default()
    };
    let changes = pair.config().list_changes(request).await.unwrap().into_inner().changes;
    let listed = M::payload(changes[0].after.as_ref().unwrap());
    let before = M::payload(changes[0].before.as_ref().unwrap());

    let payload = M::payload(streamed.payload.as_ref().unwrap());
    let places = [
        ("read", M::get(pair, name).await),
        ("exported", exported),
        ("streamed", payload),
        ("listed", listed),
    ];
    for (place, shown) in &places {
        assert_eq!(shown.name(), name, "{path} is {place} {when}");
        // An input-only field is visible only through its effect.
        let is_shown = match path {
            "api_token" => true,
            "endpoint" => differing(&before, shown).contains(&"endpoints".to_owned()),
            _ => shows(shown, row),
        };
        assert!(is_shown, "{path} is not {place} {when}: {shown:?}");
    }
    assert_eq!(
        changes[0].fields,
        [if path == "endpoint" { "endpoints" } else { path }],
        "only {path} is listed as changed {when}"
    );
    let resource = Resource::try_from(streamed).unwrap();
    assert!(
        (row.routed)(&resource.content),
        "a router does not use {path} {when}: {:?}",
        resource.content
    );
}

/// Returns the snapshot with which `Watch` begins, by resource name.
async fn watched(pair: &Pair) -> BTreeMap<String, registry::Resource> {
    let mut stream = pair.config().watch(WatchRequest::default()).await.unwrap().into_inner();
    let mut resources = BTreeMap::new();
    loop {
        match stream.message().await.unwrap().unwrap().kind.unwrap() {
            watch_response::Kind::SnapshotPart(part) => {
                resources.extend(
                    part.resources
                        .into_iter()
                        .map(|resource| (resource.name.clone(), resource)),
                );
            }
            watch_response::Kind::SnapshotEnd(_) => return resources,
            _ => {}
        }
    }
}

async fn restart(pair: &mut Pair) {
    let addr = pair.kill_registry();
    pair.restart_registry(addr).await;
}

async fn create(pair: &Pair, name: &str, prepare: fn(&mut Model)) {
    let mut model = Model {
        name: name.to_owned(),
        display_name: Some(name.to_owned()),
        family: Some("mistral".to_owned()),
        endpoint: Some("http://gpu1:8000".to_owned()),
        ..Default::default()
    };
    prepare(&mut model);
    let request = CreateModelRequest {
        model: Some(model),
        ..Default::default()
    };
    pair.models().create_model(request).await.unwrap();
}

/// Sets only the field of a row, and checks that the answer has the value and no other change.
async fn set<M: Kind>(pair: &Pair, name: &str, row: &Row<M>) {
    let before = M::get(pair, name).await;
    assert!(
        !shows(&before, row) || row.path == "api_token",
        "{} has a different value before the update",
        row.path
    );
    let answer = value(row).update(pair, name, row.path).await.unwrap();
    let changed = match row.path {
        // An answer never contains the token.
        "api_token" => vec![],
        "endpoint" => vec!["endpoints"],
        path => vec![path],
    };
    assert_eq!(
        differing(&before, &answer),
        changed,
        "the answer changes only {}",
        row.path
    );
    assert_eq!(answer, M::get(pair, name).await);
}

async fn every_field_of_a_model_that_can_be_set_is_shown_stored_listed_and_routed() {
    let mut pair = Pair::start().await;
    let is_of_no_platform = |row: &&Row<Model>| OPTIONS_OF_NO_PLATFORM.contains(&row.path);
    for (number, row) in (0..).zip(MODEL) {
        let name = format!("models/m{number}");
        create(&pair, &name, row.before).await;
        if is_of_no_platform(&row) {
            let refused = value(row).update(&pair, &name, row.path).await;
            assert_eq!(
                reason_of(&refused).as_deref(),
                Some("VALIDATION_FAILED"),
                "{}",
                row.path
            );
        } else {
            set(&pair, &name, row).await;
            check(&pair, &name, row, "at once").await;
        }
    }
    restart(&mut pair).await;
    for (number, row) in (0..).zip(MODEL).filter(|(_, row)| !is_of_no_platform(row)) {
        check(&pair, &format!("models/m{number}"), row, "after a restart").await;
    }
    pair.finish().await;
}

async fn every_field_of_a_feature_that_can_be_set_is_shown_stored_listed_and_routed() {
    let mut pair = Pair::start().await;
    for name in MODELS {
        create(&pair, name, |model| limits(model).max_concurrency = Some(100)).await;
    }
    let features = [
        "code_generations",
        "code_completions",
        "duo_chat",
        "duo_chat_explain_code",
        "duo_chat_write_tests",
        "duo_chat_refactor_code",
        "duo_chat_fix_code",
        "review_merge_request",
    ];
    let names = features.map(|id| format!("features/{id}"));
    assert!(FEATURE.len() <= names.len(), "each field has a feature of its own");
    for (name, row) in names.iter().zip(FEATURE) {
        let mut before = Feature {
            name: name.clone(),
            // A feature without any setting would not be exported.
            hedge_delay: seconds(1),
            ..Default::default()
        };
        (row.before)(&mut before);
        let request = UpdateFeatureRequest {
            feature: Some(before),
            ..Default::default()
        };
        pair.features().update_feature(request).await.unwrap();
        set(&pair, name, row).await;
        check(&pair, name, row, "at once").await;
    }
    restart(&mut pair).await;
    for (name, row) in names.iter().zip(FEATURE) {
        check(&pair, name, row, "after a restart").await;
    }
    pair.finish().await;
}

async fn every_setting_that_can_be_set_is_shown_stored_listed_and_routed() {
    let mut pair = Pair::start().await;
    for row in SETTINGS {
        set(&pair, "settings", row).await;
        check(&pair, "settings", row, "at once").await;
        restart(&mut pair).await;
        check(&pair, "settings", row, "after a restart").await;
        Settings::default().update(&pair, "settings", row.path).await.unwrap();
    }
    pair.finish().await;
}

/// Checks that the rows match the descriptor, and that the value of a list sets every field of its entries.
async fn each_field_of_the_contract_that_can_be_set_has_a_row() {
    fn paths<M: Kind>(rows: &[Row<M>]) -> Vec<&str> {
        rows.iter().map(|row| row.path).collect()
    }
    fn settable<M: Kind>() -> Vec<&'static str> {
        M::layout().leaves().collect()
    }
    fn check_filled(message: &DynamicMessage) {
        for field in ReflectMessage::descriptor(message).fields() {
            assert!(
                message.has_field(&field),
                "the row has no value for {}",
                field.full_name()
            );
            let FieldKind::Message(inner) = field.kind() else {
                continue;
            };
            let value = message.get_field(&field);
            let messages = match &*value {
                Value::List(list) => list.iter().filter_map(Value::as_message).collect(),
                Value::Message(message) => vec![message],
                _ => vec![],
            };
            if inner.package_name().starts_with("switchboard.") {
                messages.into_iter().for_each(check_filled);
            }
        }
    }
    assert_eq!(paths(MODEL), settable::<Model>());
    assert_eq!(paths(FEATURE), settable::<Feature>());
    assert_eq!(paths(SETTINGS), settable::<Settings>());

    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap();
    let filled = |name: &str, message: Vec<u8>| {
        let descriptor = pool.get_message_by_name(name).unwrap();
        check_filled(&DynamicMessage::decode(descriptor, &*message).unwrap());
    };
    let of_model = MODEL.iter().find(|row| row.path == "endpoints").map(value).unwrap();
    filled(
        "switchboard.registry.v1.Endpoint",
        of_model.endpoints[0].encode_to_vec(),
    );
    let of_feature = FEATURE.iter().find(|row| row.path == "rules").map(value).unwrap();
    filled(
        "switchboard.registry.v1.FeatureRule",
        of_feature.rules[0].encode_to_vec(),
    );
}

tests! {
    every_field_of_a_model_that_can_be_set_is_shown_stored_listed_and_routed,
    every_field_of_a_feature_that_can_be_set_is_shown_stored_listed_and_routed,
    every_setting_that_can_be_set_is_shown_stored_listed_and_routed,
    each_field_of_the_contract_that_can_be_set_has_a_row,
}
