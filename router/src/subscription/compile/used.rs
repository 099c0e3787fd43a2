//! The versions of items that are in use, each with what it was made from, so that it can be made again.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use switchboard::{
    history::Incarnation,
    names::{CredentialId, FeatureName, ModelName, Revision},
    resource::model::ModelSpec,
};

use super::missing_capability;
use crate::{
    catalog::{CompiledModel, CompiledSetting, Credential},
    subscription::{
        received::Received,
        resource::{Content, CredentialSpec, Resource},
    },
};

/// The versions in use.
#[derive(Debug, Default)]
pub struct Used {
    pub(super) life: Option<Incarnation>,
    pub(super) models: HashMap<ModelName, UsedModel>,
    pub(super) features: HashMap<FeatureName, UsedFeature>,
    pub(super) settings: UsedSettings,
}

/// The version in use of the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UsedSettings {
    /// Its revision. 0: there is none.
    pub revision: Revision,
    /// Self-hosted inference is switched off everywhere.
    pub inference_paused: bool,
}

/// The version in use of a model.
#[derive(Debug, Clone)]
pub struct UsedModel {
    pub(super) source: Arc<Resource>,
    pub(super) model: Arc<CompiledModel>,
    /// The credential was dropped.
    pub(super) lacks_credential: bool,
}

/// The version in use of a feature.
#[derive(Debug, Clone)]
pub struct UsedFeature {
    /// Newer than [`Self::revision`] where only what it takes away is in use.
    pub(super) source: Arc<Resource>,
    pub(super) revision: Revision,
    pub(super) setting: CompiledSetting,
}

impl Used {
    /// Versions of one life of the store.
    #[must_use]
    pub fn new(
        life: Incarnation,
        models: impl IntoIterator<Item = UsedModel>,
        features: impl IntoIterator<Item = (FeatureName, UsedFeature)>,
        settings: UsedSettings,
    ) -> Self {
        let models = models.into_iter().map(|used| (used.model.name.clone(), used));
        Self {
            life: Some(life),
            models: models.collect(),
            features: features.into_iter().collect(),
            settings,
        }
    }

    /// The life of the store that the versions are of. `None`: there are none.
    #[must_use]
    pub const fn life(&self) -> Option<Incarnation> {
        self.life
    }

    /// The credentials that versions in use have.
    pub fn credentials(&self) -> impl Iterator<Item = &Arc<Credential>> {
        self.models.values().filter_map(|used| used.model.credential.as_ref())
    }

    /// The ids of [`Self::credentials`].
    #[must_use]
    pub fn credential_ids(&self) -> HashSet<CredentialId> {
        self.credentials().map(|credential| credential.id).collect()
    }

    /// The models in use that are not the newest versions in `received`, and do not follow from it.
    pub fn older_models<'a>(&'a self, received: &'a Received) -> impl Iterator<Item = &'a UsedModel> {
        let models = self.models.values();
        models.filter(|used| is_older(received, &used.source, used.revision()))
    }

    /// The same of features.
    pub fn older_features<'a>(&'a self, received: &'a Received) -> impl Iterator<Item = &'a UsedFeature> {
        let features = self.features.values();
        features.filter(|used| is_older(received, &used.source, used.revision))
    }

    /// The settings in use.
    #[must_use]
    pub const fn settings(&self) -> UsedSettings {
        self.settings
    }
}

fn is_older(received: &Received, source: &Resource, revision: Revision) -> bool {
    let newest = received.resources().get(&source.raw.name);
    newest.is_none_or(|newest| newest.raw.revision != revision)
}

impl UsedModel {
    pub(super) fn new(
        source: &Arc<Resource>,
        name: &ModelName,
        spec: &Arc<ModelSpec>,
        credential: Option<Arc<Credential>>,
        lacks_credential: bool,
    ) -> Self {
        let model = CompiledModel::new(name.clone(), Arc::clone(spec), credential);
        Self {
            source: Arc::clone(source),
            model: Arc::new(model),
            lacks_credential,
        }
    }

    /// Makes again what was made from `source`. `None`: this build cannot use it.
    #[must_use]
    pub fn from_source(
        source: &Arc<Resource>,
        credential: Option<Arc<Credential>>,
        lacks_credential: bool,
    ) -> Option<Self> {
        match &source.content {
            Content::Model(name, content) => {
                let spec = content.spec.as_ref().ok()?;
                Some(Self::new(source, name, spec, credential, lacks_credential))
            }
            Content::Feature(..) | Content::Settings(_) | Content::Other => None,
        }
    }

    /// What it was made from.
    #[must_use]
    pub const fn source(&self) -> &Arc<Resource> {
        &self.source
    }

    /// Whether its credential was dropped.
    #[must_use]
    pub const fn lacks_credential(&self) -> bool {
        self.lacks_credential
    }

    pub(super) fn create_revision(&self) -> Revision {
        self.source.raw.create_revision
    }

    pub(super) fn is_disabled(&self) -> bool {
        matches!(&self.source.content, Content::Model(_, content) if content.disabled)
    }

    pub(super) fn revision(&self) -> Revision {
        self.source.raw.revision
    }

    /// It, less the credential where the newest version has none or lost it. It does not come back with a later version
    /// that is refused too.
    pub(super) fn without_what_was_taken(&self, newest: Option<&CredentialSpec>) -> Self {
        let lacks_credential = match newest {
            Some(CredentialSpec::None) => false,
            Some(CredentialSpec::Dropped) => true,
            Some(CredentialSpec::Set(_)) | None => return self.clone(),
        };
        Self {
            model: Arc::new(CompiledModel {
                credential: None,
                ..CompiledModel::clone(&self.model)
            }),
            lacks_credential,
            ..self.clone()
        }
    }
}

impl UsedFeature {
    /// What is made from the newest version, unless an older one is in use. `None`: this build cannot use it.
    #[must_use]
    pub fn from_newest(source: &Arc<Resource>) -> Option<(FeatureName, Self)> {
        let is_readable = missing_capability(&source.raw).is_none();
        is_readable.then(|| Self::from_source(source, source.raw.revision))?
    }

    /// Makes again what was made from `source`. `None`: this build cannot use it.
    #[must_use]
    pub fn from_source(source: &Arc<Resource>, revision: Revision) -> Option<(FeatureName, Self)> {
        match &source.content {
            Content::Feature(name, Ok(setting)) => {
                let used = Self {
                    source: Arc::clone(source),
                    revision,
                    setting: setting.clone(),
                };
                Some((name.clone(), used))
            }
            Content::Feature(_, Err(_)) | Content::Model(..) | Content::Settings(_) | Content::Other => None,
        }
    }

    /// What it was made from.
    #[must_use]
    pub const fn source(&self) -> &Arc<Resource> {
        &self.source
    }

    /// Its revision.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    pub(super) fn create_revision(&self) -> Revision {
        self.source.raw.create_revision
    }
}
