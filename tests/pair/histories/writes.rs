//! Random writes, valid and invalid.

use fastrand::Rng;
use switchboard::pb::{
    registry::{
        BatchUpdateFeaturesRequest, CreateModelRequest, DeleteModelRequest, Endpoint, Feature, FeatureLimits,
        FeatureRule, Model, ModelLimits, RuleMatch, Settings, UpdateFeatureRequest, UpdateModelRequest,
        UpdateSettingsRequest,
    },
    types::Provider,
};
use tonic::Status;

use super::plain::Plain;
use crate::harness::Pair;

/// The features of the histories: with and without a parent, one in beta, and one that no family of [`FAMILIES`] may
/// serve.
pub(super) const FEATURES: [&str; 6] = [
    "code_generations",
    "code_completions",
    "duo_chat",
    "duo_chat_explain_code",
    "generate_commit_message",
    "sast_vulnerability_fp_detection",
];
/// The families of the histories; the last one is in beta.
const FAMILIES: [&str; 4] = ["mistral", "llama3", "gpt", "qwen"];
const MODELS: [&str; 6] = ["one", "two", "three", "four", "five", "six"];

/// One write.
#[derive(Debug, Clone)]
pub(super) enum Write {
    CreateModel(Model),
    UpdateModel(Model),
    DeleteModel {
        name: String,
        /// The model that takes over the features. Empty: none.
        reassign_to: String,
    },
    UpdateFeature(Feature),
    BatchUpdateFeatures(Vec<Feature>),
    UpdateSettings(Settings),
}

type MakeUp = fn(&World, &Plain, &mut Rng) -> Write;

/// The relative frequency of each kind of write, and the function that generates one.
const KINDS: [(u32, MakeUp); 6] = [
    (2, |world, _, rng| Write::CreateModel(world.new_model(rng))),
    (5, |world, _, rng| Write::UpdateModel(world.changed_model(rng))),
    (2, |_, plain, rng| deletion(plain, rng)),
    (6, |_, plain, rng| Write::UpdateFeature(feature(plain, rng))),
    (2, |_, plain, rng| Write::BatchUpdateFeatures(batch(plain, rng))),
    (1, |_, _, rng| Write::UpdateSettings(settings(rng))),
];

impl Write {
    /// Returns the name of the RPC.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::CreateModel(_) => "CreateModel",
            Self::UpdateModel(_) => "UpdateModel",
            Self::DeleteModel { .. } => "DeleteModel",
            Self::UpdateFeature(_) => "UpdateFeature",
            Self::BatchUpdateFeatures(_) => "BatchUpdateFeatures",
            Self::UpdateSettings(_) => "UpdateSettings",
        }
    }

    /// Makes the write and returns the revision in its answer.
    pub(super) async fn send(&self, pair: &Pair) -> Result<i64, Status> {
        match self.clone() {
            Self::CreateModel(model) => {
                let request = CreateModelRequest {
                    model: Some(model),
                    ..Default::default()
                };
                Ok(pair.models().create_model(request).await?.into_inner().revision)
            }
            Self::UpdateModel(model) => {
                let request = UpdateModelRequest {
                    model: Some(model),
                    ..Default::default()
                };
                Ok(pair.models().update_model(request).await?.into_inner().revision)
            }
            Self::DeleteModel { name, reassign_to } => {
                let request = DeleteModelRequest {
                    name,
                    reassign_to,
                    ..Default::default()
                };
                Ok(pair.models().delete_model(request).await?.into_inner().revision)
            }
            Self::BatchUpdateFeatures(features) => {
                let request = BatchUpdateFeaturesRequest {
                    requests: features.into_iter().map(update).collect(),
                    ..Default::default()
                };
                Ok(pair
                    .features()
                    .batch_update_features(request)
                    .await?
                    .into_inner()
                    .revision)
            }
            Self::UpdateFeature(feature) => {
                let request = update(feature);
                Ok(pair.features().update_feature(request).await?.into_inner().revision)
            }
            Self::UpdateSettings(settings) => {
                let request = UpdateSettingsRequest {
                    settings: Some(settings),
                    ..Default::default()
                };
                Ok(pair.settings().update_settings(request).await?.into_inner().revision)
            }
        }
    }
}

/// The model servers that the writes refer to.
#[derive(Debug)]
pub(super) struct World {
    /// Base URLs of the model servers.
    servers: Vec<String>,
}

impl World {
    pub(super) fn new(servers: Vec<String>) -> Self {
        Self { servers }
    }

    pub(super) fn any_write(&self, plain: &Plain, rng: &mut Rng) -> Write {
        let all: u32 = KINDS.iter().map(|(weight, _)| weight).sum();
        let mut place = rng.u32(..all);
        for (weight, make) in KINDS {
            if place < weight {
                return make(self, plain, rng);
            }
            place -= weight;
        }
        unreachable!("the weights cover every place")
    }

    fn new_model(&self, rng: &mut Rng) -> Model {
        let name = model(rng);
        Model {
            display_name: Some(display_name(rng)),
            family: Some(family(rng)),
            endpoints: self.endpoints(rng),
            api_token: rng.bool().then(|| token(&name, rng)),
            disabled: rng.bool().then(|| rng.u8(..4) == 0),
            limits: rng.bool().then(|| ModelLimits {
                max_concurrency: Some(places(rng)),
                ..Default::default()
            }),
            name,
            ..Default::default()
        }
    }

    /// Sets one or two fields of a model, with missing and empty values among them.
    fn changed_model(&self, rng: &mut Rng) -> Model {
        let mut changed = Model {
            name: model(rng),
            ..Default::default()
        };
        let given = rng.usize(1..=2);
        for _ in 0..given {
            match rng.u8(..6) {
                0 => changed.display_name = Some(display_name(rng)),
                1 => changed.family = Some(family(rng)),
                2 => changed.endpoints = self.endpoints(rng),
                3 => changed.disabled = Some(rng.u8(..3) == 0),
                4 => {
                    changed.limits = Some(ModelLimits {
                        max_queue: rng.bool().then(|| rng.i32(0..100)),
                        // Never empty: an update without fields is refused, which other tests cover.
                        max_concurrency: Some(places(rng)),
                        ..Default::default()
                    });
                }
                _ if rng.bool() => changed.api_token = Some(token(&changed.name, rng)),
                _ => changed.api_token = Some(String::new()),
            }
        }
        changed
    }

    /// Some of the servers in random order. The first one always has a weight above 0.
    fn endpoints(&self, rng: &mut Rng) -> Vec<Endpoint> {
        let mut uris = self.servers.clone();
        rng.shuffle(&mut uris);
        uris.truncate(rng.usize(1..=self.servers.len()));
        let endpoints = uris.into_iter().enumerate().map(|(place, uri)| Endpoint {
            uri,
            weight: match rng.u8(..3) {
                0 => None,
                1 if place > 0 => Some(0),
                _ => Some(rng.i32(1..=1000)),
            },
            zone: pick(&["", "east", "west"], rng).to_owned(),
        });
        endpoints.collect()
    }
}

fn settings(rng: &mut Rng) -> Settings {
    let is_about_beta = rng.u8(..3) > 0;
    Settings {
        beta_enabled: is_about_beta.then(|| rng.u8(..3) > 0),
        // Mostly false, because a pause hides which model would answer.
        inference_paused: (!is_about_beta || rng.bool()).then(|| rng.u8(..5) == 0),
        ..Default::default()
    }
}

/// Deletes any model, often with a reassignment to another model.
fn deletion(plain: &Plain, rng: &mut Rng) -> Write {
    let name = model(rng);
    let others: Vec<&String> = plain.models.keys().filter(|other| **other != name).collect();
    let reassign_to = match rng.choice(others) {
        Some(other) if rng.bool() => other.clone(),
        _ => String::new(),
    };
    Write::DeleteModel { name, reassign_to }
}

/// Updates of several different features.
fn batch(plain: &Plain, rng: &mut Rng) -> Vec<Feature> {
    let mut names = FEATURES;
    rng.shuffle(&mut names);
    let count = rng.usize(1..=4);
    let features = names[..count].iter().map(|name| Feature {
        name: format!("features/{name}"),
        ..feature(plain, rng)
    });
    features.collect()
}

fn feature(plain: &Plain, rng: &mut Rng) -> Feature {
    let provider = match rng.u8(..10) {
        0 => Some(Provider::Unassigned),
        1 => Some(Provider::Vendored),
        2 => Some(Provider::Disabled),
        3 => None,
        _ => Some(Provider::SelfHosted),
    };
    // Mostly a model that exists, because a refused write tests little.
    let names: Vec<&String> = plain.models.keys().collect();
    let model = match rng.choice(names) {
        _ if rng.u8(..4) == 0 => None,
        Some(name) if rng.u8(..8) > 0 => Some(name.clone()),
        _ => Some(model(rng)),
    };
    let clears = matches!(provider, Some(Provider::Unassigned | Provider::Vendored));
    Feature {
        name: format!("features/{}", pick(&FEATURES, rng)),
        // Never empty: an update without fields is refused, which other tests cover.
        provider: provider
            .or_else(|| model.is_none().then_some(Provider::Disabled))
            .map(i32::from),
        model: model.filter(|_| !clears || rng.u8(..8) == 0),
        fallback_models: if clears { Vec::new() } else { fallbacks(plain, rng) },
        rules: if clears { Vec::new() } else { rules(plain, rng) },
        limits: (rng.u8(..3) == 0).then(|| FeatureLimits {
            max_concurrency: rng.bool().then(|| places(rng)),
            reserved_concurrency: rng.bool().then(|| rng.i32(0..=12)),
        }),
        // Longer than any call of the histories takes.
        hedge_delay: (rng.u8(..6) == 0).then(|| prost_types::Duration {
            seconds: rng.i64(30..=60),
            nanos: 0,
        }),
        ..Default::default()
    }
}

/// More places than the histories have concurrent calls, and few enough that reservations do not always fit.
fn places(rng: &mut Rng) -> i32 {
    rng.i32(10..=40)
}

/// Some of the existing models, each at most once.
fn fallbacks(plain: &Plain, rng: &mut Rng) -> Vec<String> {
    let mut names: Vec<String> = plain.models.keys().cloned().collect();
    rng.shuffle(&mut names);
    names.truncate([0, 0, 1, 2][rng.usize(..4)]);
    names
}

/// Exceptions for namespaces that no call of the histories has.
fn rules(plain: &Plain, rng: &mut Rng) -> Vec<FeatureRule> {
    // Numbered by position, because an id that is derived from a model stays when the rule moves to another model.
    let rules = (1..).zip(fallbacks(plain, rng)).map(|(place, model)| FeatureRule {
        rule_id: format!("rule-{place}"),
        model,
        r#match: Some(RuleMatch {
            namespace_ids: vec!["42".to_owned()],
            ..Default::default()
        }),
        ..Default::default()
    });
    rules.collect()
}

fn update(feature: Feature) -> UpdateFeatureRequest {
    UpdateFeatureRequest {
        feature: Some(feature),
        ..Default::default()
    }
}

fn model(rng: &mut Rng) -> String {
    format!("models/{}", pick(&MODELS, rng))
}

fn display_name(rng: &mut Rng) -> String {
    format!("Model {}", rng.u8(..12))
}

fn family(rng: &mut Rng) -> String {
    pick(&FAMILIES, rng).to_owned()
}

fn token(model: &str, rng: &mut Rng) -> String {
    format!("sk-{model}-{:x}", rng.u64(..))
}

fn pick<'a>(from: &[&'a str], rng: &mut Rng) -> &'a str {
    from[rng.usize(..from.len())]
}
