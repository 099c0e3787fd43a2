//! Applies a whole configuration. Models that it does not contain are deleted.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::UNIX_EPOCH,
};

use switchboard::{
    catalogue::Catalogue,
    history::View,
    names::{CredentialId, FeatureName, ModelName, ResourceName, Revision},
    pb::registry,
    reason::FieldReason,
    resource::{
        Given,
        feature::{Feature, FeatureSpec},
        model::{GivenToken, Model, ModelSpec, ReadModel},
        settings::Settings,
    },
    violation::Violations,
};

use super::{
    Plan, Revise, WriteError, check_etag,
    diff::{self, Diff, DiffView},
    feature, model,
};
use crate::domain::{
    reservation,
    state::{Change, State},
};

const CONFIG: &str = "config";

/// Replaces the configuration, completely or not at all. Every rule is checked against the final state.
#[derive(Debug)]
pub struct ApplyConfig {
    /// All models.
    pub models: Vec<GivenModel>,
    /// The features with a provider other than unassigned.
    pub features: Vec<GivenFeature>,
    /// The settings.
    pub settings: Settings,
    /// Etag that the settings must have. `None`: not checked.
    pub settings_etag: Option<String>,
    /// The revision since which nothing may have changed. `None`: not checked.
    pub expected: Option<Revision>,
    /// Violations that were found when the request was read.
    pub violations: Violations,
}

/// The requested state of a model.
#[derive(Debug)]
pub struct GivenModel {
    /// The name of the model. `None`: it is invalid, which is one of the violations.
    pub name: Option<ModelName>,
    /// Etag that the model must have. `None`: not checked.
    pub etag: Option<String>,
    /// The fields of the model.
    pub model: registry::Model,
    /// Violations that were found when the request was read.
    pub violations: Violations,
    /// The id for the model's credential if one is set. Each model needs its own.
    pub fresh: CredentialId,
}

/// The requested state of a feature.
#[derive(Debug)]
pub struct GivenFeature {
    /// The name of the feature. `None`: it is invalid, which is one of the violations.
    pub name: Option<FeatureName>,
    /// Etag that the feature must have. `None`: not checked.
    pub etag: Option<String>,
    /// The fields of the feature.
    pub feature: registry::Feature,
    /// Violations that were found when the request was read.
    pub violations: Violations,
}

impl Revise for ApplyConfig {
    type Subject = Arc<Diff>;
    type View = DiffView;

    fn plan(&self, state: &State, _fresh: CredentialId) -> Result<Plan<Arc<Diff>>, WriteError> {
        self.check_unchanged(state)?;
        let mut judged = Judged {
            state,
            violations: self.violations.clone(),
            in_doubt: HashSet::new(),
            newly_in_beta: BTreeSet::new(),
        };
        let mut wanted = judged.models(&self.models);
        wanted.push(Change::Settings(self.settings));
        let named: HashSet<_> = self.models.iter().filter_map(|given| given.name.as_ref()).collect();
        let deleted: Vec<_> = state
            .models
            .keys()
            .filter(|name| !named.contains(name))
            .cloned()
            .collect();
        let mut end = state.clone();
        end.preview(wanted.clone(), &deleted, UNIX_EPOCH);
        let features = judged.features(&self.features, &end);
        end.preview(features.clone(), &[], UNIX_EPOCH);
        judged.check_reservations(&self.features, &end);
        wanted.extend(features);
        if !judged.violations.is_empty() {
            return Err(WriteError::Invalid(judged.violations));
        }
        if !self.settings.beta_enabled && !judged.newly_in_beta.is_empty() {
            return Err(WriteError::BetaNotEnabled(judged.newly_in_beta.into_iter().collect()));
        }
        diff::plan(state, CONFIG, wanted, deleted)
    }

    fn outcome(state: &State, diff: &Arc<Diff>) -> Option<DiffView> {
        Some(DiffView::new(state, diff))
    }
}

impl ApplyConfig {
    /// Checks that nothing has changed since the caller read the configuration.
    fn check_unchanged(&self, state: &State) -> Result<(), WriteError> {
        if let Some(expected) = self.expected {
            check_expected(state, expected)?;
        }
        for given in &self.models {
            let stored = given.name.as_ref().and_then(|name| state.models.get_key_value(name));
            if let Some((name, stored)) = stored {
                check_etag(state, name.clone().into(), stored.record, given.etag.as_deref())?;
            }
        }
        for given in &self.features {
            let stored = given.name.as_ref().and_then(|name| state.features.get_key_value(name));
            if let Some((name, stored)) = stored {
                check_etag(state, name.clone().into(), stored.record, given.etag.as_deref())?;
            }
        }
        let settings = state.settings.record;
        check_etag(state, ResourceName::Settings, settings, self.settings_etag.as_deref())
    }
}

/// Fails with the newest change of a resource since `expected`, if there is one.
fn check_expected(state: &State, expected: Revision) -> Result<(), WriteError> {
    let (oldest, newest) = (state.items.oldest_resumable(), state.items.revision());
    if expected > newest {
        return Err(WriteError::InFuture { oldest, newest });
    }
    let changed = state.items.changed_after(View::Config, expected).last();
    let changed = changed.map(|item| (item.name.clone(), item.revision));
    let deleted = state.items.deleted_after(expected).last();
    let deleted = deleted.and_then(|gone| Some((ResourceName::parse(&gone.key)?, gone.revision)));
    match changed.into_iter().chain(deleted).max_by_key(|(_, revision)| *revision) {
        Some((name, revision)) => Err(WriteError::Conflict { name, revision }),
        // Resources that were deleted before the floor have left no trace.
        None if expected < oldest => Err(WriteError::Compacted { oldest, newest }),
        None => Ok(()),
    }
}

/// The findings while the parts of the configuration are checked.
struct Judged<'a> {
    state: &'a State,
    violations: Violations,
    /// Models with invalid fields. References to them cannot be checked.
    in_doubt: HashSet<&'a ModelName>,
    /// Families and features in beta that are newly assigned.
    newly_in_beta: BTreeSet<String>,
}

impl<'a> Judged<'a> {
    fn models(&mut self, models: &'a [GivenModel]) -> Vec<Change> {
        let mut wanted: Vec<Change> = Vec::with_capacity(models.len());
        let mut names = HashSet::new();
        let mut holders: HashMap<String, &ModelName> = HashMap::new();
        for (index, given) in models.iter().enumerate() {
            let path = format!("{CONFIG}.models[{index}]");
            let mut found = given.violations.clone();
            let read = ModelSpec::read(given.model.clone(), &Given::Whole, &mut found);
            self.violations.append(found.moved("model", &path));
            let Some(name) = &given.name else { continue };
            if !names.insert(name) {
                let description = format!("`{name}` is given more than once");
                self.violations
                    .push(format!("{path}.name"), FieldReason::ValueRepeated, description);
                continue;
            }
            let Some(ReadModel { spec, token }) = read else {
                self.in_doubt.insert(name);
                continue;
            };
            if let Some(holder) = holders.insert(spec.display_name.folded().to_owned(), name) {
                let description = format!("is the same as that of `{holder}`; each model needs its own");
                self.violations
                    .push(format!("{path}.display_name"), FieldReason::ValueRepeated, description);
            }
            let model = Model {
                name: name.clone(),
                spec,
            };
            wanted.push(self.model(model, &token, given.fresh, &path));
        }
        wanted
    }

    fn model(&mut self, model: Model, token: &GivenToken, fresh: CredentialId, path: &str) -> Change {
        let (stored, family) = (self.state.models.get(&model.name), model.spec.family);
        if stored.is_none_or(|stored| stored.value.spec.family != family) && family.stage.needs_beta() {
            self.newly_in_beta.insert(model::family_subject(family));
        }
        let stored = self.state.credential(&model.name);
        let (credential, is_token_touched) = model::credential_after(token, stored, &model.spec, fresh);
        if let Err(WriteError::Invalid(found)) = model::check_size(&model, &credential) {
            self.violations.append(found.moved("model", path));
        }
        Change::Model {
            model,
            credential,
            is_token_touched,
        }
    }

    /// Returns the requested features, checked against the requested models. Features that are not in the request
    /// become unassigned. Features that the catalogue no longer knows are not changed.
    fn features(&mut self, features: &'a [GivenFeature], end: &State) -> Vec<Change> {
        let mut wanted = Vec::new();
        let mut names = HashSet::new();
        for (index, given) in features.iter().enumerate() {
            let path = format!("{CONFIG}.features[{index}]");
            let mut found = given.violations.clone();
            let is_sure = |model: &ModelName| !self.in_doubt.contains(model);
            let facts = given.name.as_ref().and_then(|name| Catalogue::get().feature(name));
            let known = facts.filter(|facts| self.state.features.contains_key(&facts.name));
            let check = |field: &str, model: &ModelName, found: &mut Violations| {
                if let Some(facts) = known.filter(|_| is_sure(model)) {
                    feature::check_reference(end, facts, field, model, found);
                }
            };
            let spec = FeatureSpec::read(given.feature.clone(), &Given::Whole, check, &mut found);
            if let Some(name) = &given.name {
                let Some((facts, stored)) = facts.zip(self.state.features.get(name)) else {
                    let description = format!("`{name}` does not exist");
                    found.push("feature.name", FieldReason::FeatureNotFound, description);
                    self.violations.append(found.moved("feature", &path));
                    continue;
                };
                if !names.insert(name) {
                    let description = format!("`{name}` is given more than once");
                    found.push("feature.name", FieldReason::ValueRepeated, description);
                }
                if let Some(spec) = spec {
                    feature::check_size(&spec.setting, &mut found);
                    let (before, after) = (&stored.value.spec.setting, &spec.setting);
                    self.newly_in_beta
                        .extend(feature::newly_in_beta(end, facts, before, after));
                    wanted.push(Change::Feature(Feature {
                        name: name.clone(),
                        spec,
                    }));
                }
            }
            self.violations.append(found.moved("feature", &path));
        }
        let known = Catalogue::get().features().iter().map(|facts| &facts.name);
        let silent = known.filter(|name| !names.contains(name) && self.state.features.contains_key(name));
        wanted.extend(silent.map(|name| Change::Feature(Feature::unset(name.clone()))));
        wanted
    }

    /// Checks that the reservations of the features fit their models in the final state. Runs only if there are no
    /// other violations, because otherwise the final state is not known.
    fn check_reservations(&mut self, features: &'a [GivenFeature], end: &State) {
        if !self.violations.is_empty() {
            return;
        }
        for (index, given) in features.iter().enumerate() {
            let feature = given.name.as_ref().and_then(|name| end.features.get(name));
            let model = feature.and_then(|feature| end.models.get(feature.value.spec.setting.model()?));
            let Some((feature, model)) = feature.zip(model) else {
                continue;
            };
            let model = &model.value;
            if feature.value.places_on(&model.name) > 0
                && let Err(overbooked) = reservation::check(model, end.places_reserved_on(&model.name))
            {
                let mut found = Violations::new();
                found.push(
                    feature::RESERVED,
                    FieldReason::ReservationTooLarge,
                    overbooked.to_string(),
                );
                let path = format!("{CONFIG}.features[{index}]");
                self.violations.append(found.moved("feature", &path));
            }
        }
    }
}
