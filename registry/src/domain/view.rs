//! Resources as their readers see them: the stored fields, together with everything that is derived from the rest of
//! the state.

use std::{sync::Arc, time::SystemTime};

use switchboard::{
    catalogue::{self, Catalogue},
    names::{FeatureName, ModelName, ResourceName, Revision},
    resource::{feature::Feature, model::Model, settings::Settings},
};

use super::{
    credential::ModelCredential,
    etag::Etag,
    state::{Record, Recorded, State},
};

/// A model as its readers see it.
#[derive(Debug, Clone)]
pub struct ModelView {
    /// The model.
    pub model: Arc<Recorded<Model>>,
    /// Whether an API token is stored.
    pub is_token_set: bool,
    /// Whether the API token was dropped because an origin was added.
    pub is_token_dropped: bool,
    /// When the API token was last set, cleared or dropped. `None`: never.
    pub token_update_time: Option<SystemTime>,
    /// The features that name the model.
    pub features: Vec<FeatureName>,
    /// Whether the model's family is in beta although beta is off.
    pub is_kept_without_beta: bool,
    /// Etag of the model.
    pub etag: Etag,
}

/// A feature as its readers see it.
#[derive(Debug, Clone)]
pub struct FeatureView {
    /// The catalogue's facts about the feature.
    pub facts: &'static catalogue::FeatureFacts,
    /// The setting of the feature.
    pub feature: Arc<Recorded<Feature>>,
    /// Whether a model can be newly assigned to the feature now.
    pub is_assignable: bool,
    /// Whether the feature has a model although beta is off and the feature, or the family of a model that it names, is
    /// in beta.
    pub is_kept_without_beta: bool,
    /// Etag of the feature.
    pub etag: Etag,
}

/// The settings as their readers see them.
#[derive(Debug, Clone)]
pub struct SettingsView {
    /// The settings.
    pub settings: Recorded<Settings>,
    /// Etag of the settings.
    pub etag: Etag,
}

/// What the views of all written resources have in common.
pub trait WriteView {
    /// Returns the revision that last changed the resource.
    fn revision(&self) -> Revision;
}

impl WriteView for ModelView {
    fn revision(&self) -> Revision {
        self.model.record.revision
    }
}

impl WriteView for FeatureView {
    fn revision(&self) -> Revision {
        self.feature.record.revision
    }
}

impl WriteView for SettingsView {
    fn revision(&self) -> Revision {
        self.settings.record.revision
    }
}

impl State {
    /// Returns a model as its readers see it. `None` if it does not exist.
    #[must_use]
    pub fn model(&self, name: &ModelName) -> Option<ModelView> {
        let model = self.models.get(name)?;
        let credential = self.credential(name);
        Some(ModelView {
            model: Arc::clone(model),
            is_token_set: matches!(credential, ModelCredential::Set(_)),
            is_token_dropped: matches!(credential, ModelCredential::Dropped),
            token_update_time: self.token_update_times.get(name).copied(),
            features: self.features_of(name).map(|feature| feature.name.clone()).collect(),
            is_kept_without_beta: model.value.spec.family.stage.needs_beta() && !self.is_beta_enabled(),
            etag: self.etag(&name.clone().into(), model.record),
        })
    }

    /// Returns a feature as its readers see it. `None` if the catalogue or the store does not know it.
    #[must_use]
    pub fn feature(&self, name: &FeatureName) -> Option<FeatureView> {
        let facts = Catalogue::get().feature(name)?;
        let feature = self.features.get(name)?;
        let needs_beta = facts.stage.needs_beta();
        let mut models = feature.value.references().filter_map(|name| self.models.get(name));
        let is_kept = models.any(|model| needs_beta || model.value.spec.family.stage.needs_beta());
        Some(FeatureView {
            facts,
            feature: Arc::clone(feature),
            is_assignable: !needs_beta || self.is_beta_enabled(),
            is_kept_without_beta: is_kept && !self.is_beta_enabled(),
            etag: self.etag(&name.clone().into(), feature.record),
        })
    }

    /// Returns the settings as their readers see them.
    #[must_use]
    pub fn settings(&self) -> SettingsView {
        SettingsView {
            settings: self.settings.clone(),
            etag: self.etag(&ResourceName::Settings, self.settings.record),
        }
    }

    /// Returns whether families and features in beta may be newly assigned.
    #[must_use]
    pub const fn is_beta_enabled(&self) -> bool {
        self.settings.value.beta_enabled
    }

    /// Returns the etag of a resource with this record.
    #[must_use]
    pub fn etag(&self, name: &ResourceName, record: Record) -> Etag {
        Etag::of(self.items.incarnation(), name, record.revision)
    }
}
