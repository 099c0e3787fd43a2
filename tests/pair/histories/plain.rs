//! The configuration as somebody would explain it: what each write does to it, and what follows for a call.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use switchboard::{
    catalogue::{self, Catalogue},
    pb::{
        registry::{self, CredentialState, ModelEntry, Resource},
        router::Route,
        types::Provider,
    },
};

use super::writes::Write;

/// What is configured.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Plain {
    /// By resource name.
    pub(super) models: BTreeMap<String, Model>,
    /// By resource name; one that is missing is unassigned.
    pub(super) features: BTreeMap<String, Setting>,
    pub(super) beta_enabled: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Model {
    pub(super) display_name: String,
    pub(super) family: String,
    /// Weights by URL.
    pub(super) endpoints: BTreeMap<String, i32>,
    pub(super) disabled: bool,
    pub(super) token: Token,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    NotWanted,
    Set { text: String, origins: BTreeSet<String> },
    Dropped,
}

/// Provider and model of a feature.
pub(super) type Setting = (Provider, Option<String>);

/// The rules that a write breaks, by the reasons that tell of them.
#[derive(Debug, PartialEq)]
pub(super) struct Broken(Vec<&'static str>);

impl Broken {
    /// Whether a failure of this reason tells of these rules, or of one of them.
    pub(super) fn is_told_by(&self, reason: &str) -> bool {
        self.0.contains(&reason) || (self.0.len() > 1 && reason == "VALIDATION_FAILED")
    }
}

/// What becomes of a call.
#[derive(Debug)]
pub(super) enum Outcome {
    Answered {
        model: String,
        source_feature: String,
        endpoint: String,
        authorization: Option<String>,
    },
    Refused(String),
}

impl Plain {
    /// The configuration that a stream shows.
    pub(super) fn read(items: &BTreeMap<String, Resource>) -> Self {
        let mut plain = Self::default();
        for (name, item) in items {
            let bytes = item.payload.as_ref().unwrap().value.as_slice();
            match name.split('/').next() {
                Some("models") => {
                    let entry = ModelEntry::decode(bytes).unwrap();
                    plain.models.insert(name.clone(), Model::read(entry));
                }
                Some("features") => {
                    let feature = registry::Feature::decode(bytes).unwrap();
                    let setting = (feature.provider(), feature.model.clone());
                    if setting.0 != Provider::Unassigned {
                        plain.features.insert(name.clone(), setting);
                    }
                }
                _ => {
                    let settings = registry::Settings::decode(bytes).unwrap();
                    plain.beta_enabled = settings.beta_enabled.unwrap_or(false);
                }
            }
        }
        plain
    }

    /// As a stream shows it, which has no tokens.
    pub(super) fn without_tokens(&self) -> Self {
        let mut plain = self.clone();
        for model in plain.models.values_mut() {
            if let Token::Set { text, .. } = &mut model.token {
                text.clear();
            }
        }
        plain
    }

    /// The configuration after a write.
    pub(super) fn after(&self, write: &Write) -> Result<Self, Broken> {
        let mut after = self.clone();
        let mut broken = Vec::new();
        match write {
            Write::CreateModel(model) => after.create(model, &mut broken),
            Write::UpdateModel(model) => after.update(model, &mut broken),
            Write::DeleteModel { name, reassign_to } => after.delete(name, reassign_to, &mut broken),
            Write::UpdateFeature(feature) => after.assign(feature, &mut broken),
            Write::BatchUpdateFeatures(features) => {
                for feature in features {
                    after.assign(feature, &mut broken);
                }
            }
            Write::UpdateSettings(settings) => {
                after.beta_enabled = settings.beta_enabled.unwrap_or(self.beta_enabled);
            }
        }
        if broken.is_empty() {
            Ok(after)
        } else {
            Err(Broken(broken))
        }
    }

    fn create(&mut self, given: &registry::Model, broken: &mut Vec<&'static str>) {
        let mut model = Model {
            display_name: String::new(),
            family: String::new(),
            endpoints: BTreeMap::new(),
            disabled: false,
            token: Token::NotWanted,
        };
        model.set(given);
        if self.models.contains_key(&given.name) || self.is_taken(&given.name, &model.display_name) {
            broken.push("MODEL_NAME_TAKEN");
        }
        if !self.beta_enabled && needs_beta(&model.family) {
            broken.push("BETA_NOT_ENABLED");
        }
        self.models.insert(given.name.clone(), model);
    }

    fn update(&mut self, given: &registry::Model, broken: &mut Vec<&'static str>) {
        let Some(stored) = self.models.get(&given.name) else {
            return broken.push("MODEL_NOT_FOUND");
        };
        let mut model = stored.clone();
        model.set(given);
        if self.is_taken(&given.name, &model.display_name) {
            broken.push("MODEL_NAME_TAKEN");
        }
        if model.family != stored.family {
            if !self.beta_enabled && needs_beta(&model.family) {
                broken.push("BETA_NOT_ENABLED");
            }
            if self.users(&given.name).any(|feature| !fits(feature, &model.family)) {
                broken.push("FAMILY_NOT_COMPATIBLE");
            }
        }
        self.models.insert(given.name.clone(), model);
    }

    fn delete(&mut self, name: &str, reassign_to: &str, broken: &mut Vec<&'static str>) {
        if self.models.remove(name).is_none() {
            broken.push("MODEL_NOT_FOUND");
        }
        let features: Vec<String> = self.users(name).map(str::to_owned).collect();
        if reassign_to.is_empty() {
            if !features.is_empty() {
                broken.push("MODEL_IN_USE");
            }
            return;
        }
        let Some(other) = self.models.get(reassign_to) else {
            return broken.push("MODEL_NOT_FOUND");
        };
        for feature in &features {
            if !fits(feature, &other.family) {
                broken.push("FAMILY_NOT_COMPATIBLE");
            }
            let (before, after) = (Some(name.to_owned()), Some(reassign_to.to_owned()));
            self.check_beta(feature, &before, &after, broken);
        }
        for feature in features {
            self.features
                .entry(feature)
                .and_modify(|(_, model)| *model = Some(reassign_to.to_owned()));
        }
    }

    fn assign(&mut self, given: &registry::Feature, broken: &mut Vec<&'static str>) {
        let (stored_provider, stored_model) = self.setting(&given.name);
        let provider = given.provider.map_or(stored_provider, |_| given.provider());
        let model = given.model.clone().or_else(|| stored_model.clone());
        let setting = match provider {
            Provider::Unassigned | Provider::Vendored => {
                if given.model.is_some() {
                    broken.push("VALIDATION_FAILED");
                }
                (provider, None)
            }
            Provider::SelfHosted if model.is_none() => {
                broken.push("VALIDATION_FAILED");
                (provider, None)
            }
            _ => (provider, model),
        };
        if let Some(named) = &given.model {
            match self.models.get(named) {
                None => broken.push("MODEL_NOT_FOUND"),
                Some(model) if !fits(&given.name, &model.family) => broken.push("FAMILY_NOT_COMPATIBLE"),
                Some(_) => {}
            }
        }
        self.check_beta(&given.name, &stored_model, &setting.1, broken);
        if setting.0 == Provider::Unassigned {
            self.features.remove(&given.name);
        } else {
            self.features.insert(given.name.clone(), setting);
        }
    }

    /// Naming a model anew asks whether beta is on.
    fn check_beta(
        &self,
        feature: &str,
        before: &Option<String>,
        after: &Option<String>,
        broken: &mut Vec<&'static str>,
    ) {
        let named = after.as_ref().filter(|_| before != after);
        if let Some(model) = named.and_then(|name| self.models.get(name))
            && !self.beta_enabled
            && (facts(feature).stage.needs_beta() || needs_beta(&model.family))
        {
            broken.push("BETA_NOT_ENABLED");
        }
    }

    fn setting(&self, feature: &str) -> Setting {
        self.features
            .get(feature)
            .cloned()
            .unwrap_or((Provider::Unassigned, None))
    }

    /// The features that name a model.
    pub(super) fn users<'a>(&'a self, model: &'a str) -> impl Iterator<Item = &'a str> {
        self.features
            .iter()
            .filter(move |(_, (_, named))| named.as_deref() == Some(model))
            .map(|(feature, _)| feature.as_str())
    }

    fn is_taken(&self, name: &str, display_name: &str) -> bool {
        self.models
            .iter()
            .any(|(other, model)| other != name && model.display_name == display_name)
    }

    /// Whether this may become of a call of a feature.
    pub(super) fn allows(&self, feature: &str, outcome: &Outcome) -> bool {
        let (source, selected) = self.selected(&format!("features/{feature}"));
        match (selected, outcome) {
            (Ok((name, model)), _) => model.answers(name, &source, outcome),
            (Err(refusal), Outcome::Refused(reason)) => reason == refusal,
            (Err(_), Outcome::Answered { .. }) => false,
        }
    }

    /// Whether a router says of each feature what follows for its calls.
    pub(super) fn allows_routes(&self, routes: &[Route]) -> bool {
        routes.len() == Catalogue::get().features().len()
            && routes.iter().all(|route| match self.selected(&route.feature) {
                (source, Ok((name, _))) => route.available && route.model == *name && route.source_feature == source,
                (_, Err(refusal)) => !route.available && route.reason == refusal,
            })
    }

    /// The feature whose setting decides a call of a feature, and the model, or the reason of the failure.
    fn selected(&self, feature: &str) -> (String, Result<(&String, &Model), &'static str>) {
        let mut source = feature.to_owned();
        let mut setting = self.setting(&source);
        if setting.0 == Provider::Unassigned
            && let Some(parent) = &facts(&source).parent
        {
            source = parent.to_string();
            setting = self.setting(&source);
        }
        let model = setting.1.and_then(|name| self.models.get_key_value(&name));
        let selected = match (setting.0, model) {
            (Provider::Disabled, _) => Err("FEATURE_DISABLED"),
            (Provider::Vendored, _) => Err("FEATURE_VENDORED"),
            (Provider::SelfHosted, Some((_, model))) if model.disabled => Err("MODEL_DISABLED"),
            (Provider::SelfHosted, Some((_, model))) if model.token == Token::Dropped => {
                Err("MODEL_CREDENTIAL_MISSING")
            }
            (Provider::SelfHosted, Some(selected)) => Ok(selected),
            _ => Err("FEATURE_UNASSIGNED"),
        };
        (source, selected)
    }
}

impl Model {
    fn read(entry: ModelEntry) -> Self {
        let model = entry.model.unwrap();
        let credential = entry.credential.unwrap();
        Self {
            token: match credential.state() {
                CredentialState::Set => Token::Set {
                    text: String::new(),
                    origins: credential.origins.into_iter().collect(),
                },
                CredentialState::Dropped => Token::Dropped,
                CredentialState::None | CredentialState::Unspecified => Token::NotWanted,
            },
            display_name: model.display_name.unwrap(),
            family: model.family.unwrap(),
            endpoints: weights(&model.endpoints),
            disabled: model.disabled.unwrap_or(false),
        }
    }

    /// Sets what is given.
    fn set(&mut self, given: &registry::Model) {
        if let Some(name) = &given.display_name {
            self.display_name.clone_from(name);
        }
        if let Some(family) = &given.family {
            self.family.clone_from(family);
        }
        if !given.endpoints.is_empty() {
            self.endpoints = weights(&given.endpoints);
        }
        self.disabled = given.disabled.unwrap_or(self.disabled);
        let origins: BTreeSet<String> = self.endpoints.keys().map(|uri| uri.replace("/v1", "")).collect();
        match (given.api_token.as_deref(), &self.token) {
            (Some(""), _) => self.token = Token::NotWanted,
            (Some(text), _) => {
                let text = text.to_owned();
                self.token = Token::Set { text, origins };
            }
            (None, Token::Set { origins: bound, .. }) if !origins.is_subset(bound) => self.token = Token::Dropped,
            (None, _) => {}
        }
    }

    fn answers(&self, name: &str, source: &str, outcome: &Outcome) -> bool {
        let wanted = match &self.token {
            Token::Set { text, .. } => Some(format!("Bearer {text}")),
            Token::NotWanted | Token::Dropped => None,
        };
        match outcome {
            Outcome::Refused(_) => false,
            Outcome::Answered {
                model,
                source_feature,
                endpoint,
                authorization,
            } => {
                let is_used = |(uri, &weight): (&String, &i32)| weight > 0 && uri.contains(endpoint);
                model == name
                    && source_feature == source
                    && *authorization == wanted
                    && self.endpoints.iter().any(is_used)
            }
        }
    }
}

fn weights(endpoints: &[registry::Endpoint]) -> BTreeMap<String, i32> {
    endpoints
        .iter()
        .map(|endpoint| (endpoint.uri.clone(), endpoint.weight.unwrap_or(1)))
        .collect()
}

fn facts(feature: &str) -> &'static catalogue::Feature {
    Catalogue::get().feature(&feature.parse().unwrap()).unwrap()
}

fn needs_beta(family: &str) -> bool {
    Catalogue::get().family(family).unwrap().stage.needs_beta()
}

fn fits(feature: &str, family: &str) -> bool {
    facts(feature).fits(Catalogue::get().family(family).unwrap())
}
