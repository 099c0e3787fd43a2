//! The configuration in a simple description: the effect of each write, and the outcome of a call that follows from it.

use std::collections::BTreeMap;

use prost::Message as _;
use switchboard::{
    catalogue::{self, Catalogue},
    pb::{
        registry::{self, ModelEntry, Resource},
        router::Route,
        types::Provider,
    },
};

use super::{
    model::{Model, Token},
    setting::Setting,
    writes::Write,
};

/// A configuration.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Plain {
    /// By resource name.
    pub(super) models: BTreeMap<String, Model>,
    /// By resource name. A feature without any setting is missing.
    pub(super) features: BTreeMap<String, Setting>,
    pub(super) beta_enabled: bool,
    pub(super) inference_paused: bool,
}

/// The rules that a write violates, as the reasons that the registry may report.
#[derive(Debug, PartialEq)]
pub(super) struct Broken(Vec<&'static str>);

impl Broken {
    /// Whether a failure with this reason reports these violations, or one of them.
    pub(super) fn is_told_by(&self, reason: &str) -> bool {
        self.0.contains(&reason) || (self.0.len() > 1 && reason == "VALIDATION_FAILED")
    }
}

/// The outcome of a call.
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
    /// Reads the configuration from the items of a stream.
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
                    plain.set(name, Setting::read(&feature));
                }
                _ => {
                    let settings = registry::Settings::decode(bytes).unwrap();
                    plain.beta_enabled = settings.beta_enabled.unwrap_or(false);
                    plain.inference_paused = settings.inference_paused.unwrap_or(false);
                }
            }
        }
        plain
    }

    /// Returns the configuration as a stream shows it, without the texts of tokens.
    pub(super) fn without_tokens(&self) -> Self {
        let mut plain = self.clone();
        for model in plain.models.values_mut() {
            if let Token::Set { text, .. } = &mut model.token {
                text.clear();
            }
        }
        plain
    }

    /// Returns the configuration after a write, or the rules that the write violates.
    pub(super) fn after(&self, write: &Write) -> Result<Self, Broken> {
        let mut after = self.clone();
        let mut broken = Vec::new();
        match write {
            Write::CreateModel(model) => after.create(model, &mut broken),
            Write::UpdateModel(model) => after.update(model, &mut broken),
            Write::DeleteModel { name, reassign_to } => after.delete(name, reassign_to, &mut broken),
            Write::UpdateFeature(feature) => after.assign(feature, &mut broken),
            Write::BatchUpdateFeatures(features) => {
                // A refused request does not count for later requests of the batch, which are checked against the
                // places without it.
                let mut kept = after.clone();
                for feature in features {
                    after.assign(feature, &mut broken);
                    after.check_places(&mut broken);
                    let (mut tried, mut found) = (kept.clone(), Vec::new());
                    tried.assign(feature, &mut found);
                    tried.check_places(&mut found);
                    if found.is_empty() {
                        kept = tried;
                    }
                    found.retain(|reason| !broken.contains(reason));
                    broken.extend(found);
                }
            }
            Write::UpdateSettings(settings) => {
                after.beta_enabled = settings.beta_enabled.unwrap_or(self.beta_enabled);
                after.inference_paused = settings.inference_paused.unwrap_or(self.inference_paused);
            }
        }
        after.check_places(&mut broken);
        if broken.is_empty() {
            Ok(after)
        } else {
            Err(Broken(broken))
        }
    }

    /// Returns the configuration after restoring `then`: with the current tokens, if the restored origins may have
    /// them.
    pub(super) fn gone_back(&self, then: &Self) -> Self {
        let mut after = then.clone();
        for (name, model) in &mut after.models {
            let wanted_token = model.token != Token::NotWanted;
            model.token = match self.models.get(name).map(|now| &now.token) {
                Some(Token::Set { origins, .. }) if !model.origins().is_subset(origins) => Token::Dropped,
                Some(now) => now.clone(),
                None if wanted_token => Token::Dropped,
                None => Token::NotWanted,
            };
        }
        after
    }

    fn create(&mut self, given: &registry::Model, broken: &mut Vec<&'static str>) {
        let mut model = Model {
            display_name: String::new(),
            family: String::new(),
            endpoints: BTreeMap::new(),
            disabled: false,
            max_queue: None,
            max_concurrency: None,
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
            self.check_beta(feature, &Setting::default(), &Setting::of(reassign_to), broken);
        }
        for feature in features {
            self.features
                .entry(feature)
                .and_modify(|setting| setting.reassign(name, reassign_to));
        }
    }

    fn assign(&mut self, given: &registry::Feature, broken: &mut Vec<&'static str>) {
        let stored = self.setting(&given.name);
        let named = Setting::read(given);
        let mut setting = stored.clone();
        setting.provider = given.provider.map_or(stored.provider, |_| given.provider());
        match setting.provider {
            Provider::Unassigned | Provider::Vendored => {
                if named.models().next().is_some() {
                    broken.push("VALIDATION_FAILED");
                }
                let provider = setting.provider;
                setting = setting.answered_by(provider);
            }
            _ => {
                setting.model = named.model.clone().or(setting.model);
                if !named.fallbacks.is_empty() {
                    setting.fallbacks.clone_from(&named.fallbacks);
                }
                if !named.rules.is_empty() {
                    setting.rules.clone_from(&named.rules);
                }
                let is_nobody = setting.provider == Provider::SelfHosted && setting.model.is_none();
                if is_nobody
                    || setting
                        .model
                        .as_ref()
                        .is_some_and(|model| setting.fallbacks.contains(model))
                {
                    broken.push("VALIDATION_FAILED");
                }
            }
        }
        setting.limit(&named);
        let most = setting.limits.max_concurrency.unwrap_or(i32::MAX);
        if setting.limits.reserved_concurrency.unwrap_or(0) > most {
            broken.push("VALIDATION_FAILED");
        }
        for model in named.models() {
            match self.models.get(model) {
                None => broken.push("MODEL_NOT_FOUND"),
                Some(model) if !fits(&given.name, &model.family) => broken.push("FAMILY_NOT_COMPATIBLE"),
                Some(_) => {}
            }
        }
        self.check_beta(&given.name, &stored, &setting, broken);
        self.set(&given.name, setting);
    }

    fn set(&mut self, feature: &str, setting: Setting) {
        if setting == Setting::unset() {
            self.features.remove(feature);
        } else {
            self.features.insert(feature.to_owned(), setting);
        }
    }

    /// Checks that the reservations of a model do not exceed its places.
    fn check_places(&self, broken: &mut Vec<&'static str>) {
        for (name, model) in &self.models {
            let users = self.features.values();
            let users = users.filter(|setting| setting.model.as_ref() == Some(name));
            if users.map(Setting::reserved).sum::<i32>() > model.max_concurrency.unwrap_or(0) {
                broken.push("VALIDATION_FAILED");
            }
        }
    }

    /// Checks that beta is enabled if a feature names a model that it did not name before.
    fn check_beta(&self, feature: &str, before: &Setting, after: &Setting, broken: &mut Vec<&'static str>) {
        let named = after
            .models()
            .filter(|name| before.models().all(|known| known != *name));
        let mut models = named.filter_map(|name| self.models.get(name));
        let is_beta = |model: &Model| facts(feature).stage.needs_beta() || needs_beta(&model.family);
        if !self.beta_enabled && models.any(is_beta) {
            broken.push("BETA_NOT_ENABLED");
        }
    }

    fn setting(&self, feature: &str) -> Setting {
        self.features.get(feature).cloned().unwrap_or_else(Setting::unset)
    }

    /// Returns the features that name a model.
    pub(super) fn users<'a>(&'a self, model: &'a str) -> impl Iterator<Item = &'a str> {
        self.features
            .iter()
            .filter(move |(_, setting)| setting.models().any(|named| named == model))
            .map(|(feature, _)| feature.as_str())
    }

    fn is_taken(&self, name: &str, display_name: &str) -> bool {
        self.models
            .iter()
            .any(|(other, model)| other != name && model.display_name == display_name)
    }

    /// Whether this is the right outcome of a call of a feature.
    pub(super) fn allows(&self, feature: &str, outcome: &Outcome) -> bool {
        let has_place = |setting: &Setting, name: &String| self.has_place(setting, name);
        let (source, selected) = self.selected(&format!("features/{feature}"), has_place);
        match (selected, outcome) {
            (Ok(_), Outcome::Refused(reason)) if self.inference_paused => reason == "INFERENCE_PAUSED",
            (Ok(_), _) if self.inference_paused => false,
            // While inference is paused, the state of the model does not matter.
            (Err("MODEL_DISABLED" | "MODEL_CREDENTIAL_MISSING" | "MODEL_OVERLOADED"), Outcome::Refused(reason))
                if self.inference_paused =>
            {
                reason == "INFERENCE_PAUSED"
            }
            (Ok((name, model)), _) => model.answers(name, &source, outcome),
            (Err(refusal), Outcome::Refused(reason)) => reason == refusal,
            (Err(_), Outcome::Answered { .. }) => false,
        }
    }

    /// Whether the routes of a router agree with the outcomes of calls, for each feature.
    pub(super) fn allows_routes(&self, routes: &[Route]) -> bool {
        let has_place = |setting: &Setting, name: &String| self.has_place(setting, name);
        routes.len() == Catalogue::get().features().len()
            && routes
                .iter()
                .all(|route| match self.selected(&route.feature, has_place) {
                    (source, Ok(_)) if self.inference_paused => {
                        !route.available && route.reason == "INFERENCE_PAUSED" && route.source_feature == source
                    }
                    (_, Err("MODEL_DISABLED" | "MODEL_CREDENTIAL_MISSING" | "MODEL_OVERLOADED"))
                        if self.inference_paused =>
                    {
                        !route.available && route.reason == "INFERENCE_PAUSED"
                    }
                    (source, Ok((name, _))) => {
                        route.available && route.model == *name && route.source_feature == source
                    }
                    (_, Err(refusal)) => !route.available && route.reason == refusal,
                })
    }

    /// Whether a model has a place for calls with this setting: a reserved one of the feature, or one that is not
    /// reserved.
    fn has_place(&self, setting: &Setting, model: &String) -> bool {
        let users = self.features.values();
        let users = users.filter(|user| user.model.as_ref() == Some(model));
        let reserved = users.map(Setting::reserved).sum::<i32>();
        let is_own = setting.model.as_ref() == Some(model) && setting.reserved() > 0;
        is_own
            || self.models[model]
                .max_concurrency
                .is_none_or(|places| reserved < places)
    }

    /// Returns the feature whose setting decides a call, and the selected model or the reason of the failure.
    fn selected(
        &self,
        feature: &str,
        has_place: impl Fn(&Setting, &String) -> bool,
    ) -> (String, Result<(&String, &Model), &'static str>) {
        let mut source = feature.to_owned();
        let mut setting = self.setting(&source);
        if setting.provider == Provider::Unassigned
            && let Some(parent) = &facts(&source).parent
        {
            source = parent.to_string();
            setting = self.setting(&source);
        }
        let selected = match setting.provider {
            Provider::Disabled => Err("FEATURE_DISABLED"),
            Provider::Vendored => Err("FEATURE_VENDORED"),
            Provider::SelfHosted => self.candidate(&setting, has_place),
            _ => Err("FEATURE_UNASSIGNED"),
        };
        (source, selected)
    }

    /// Returns the first candidate that can be called. If there is none, returns the reason of the first candidate.
    fn candidate(
        &self,
        setting: &Setting,
        has_place: impl Fn(&Setting, &String) -> bool,
    ) -> Result<(&String, &Model), &'static str> {
        let named = setting.model.iter().chain(&setting.fallbacks);
        let mut candidates = named.map(|name| {
            let selected = self.models.get_key_value(name).unwrap();
            match selected.1 {
                model if model.disabled => Err("MODEL_DISABLED"),
                model if model.token == Token::Dropped => Err("MODEL_CREDENTIAL_MISSING"),
                _ if !has_place(setting, name) => Err("MODEL_OVERLOADED"),
                _ => Ok(selected),
            }
        });
        let first = candidates.next().unwrap();
        first.or_else(|reason| candidates.find_map(Result::ok).ok_or(reason))
    }
}

fn facts(feature: &str) -> &'static catalogue::FeatureFacts {
    Catalogue::get().feature(&feature.parse().unwrap()).unwrap()
}

fn needs_beta(family: &str) -> bool {
    Catalogue::get().family(family).unwrap().stage.needs_beta()
}

fn fits(feature: &str, family: &str) -> bool {
    facts(feature).fits(Catalogue::get().family(family).unwrap())
}
