//! The versions of items that are in use, each with the resource from which it was built, so that it can be built
//! again.

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

/// The version of the settings in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UsedSettings {
    /// Its revision. 0: no version is in use.
    pub revision: Revision,
    /// Whether self-hosted inference is paused for all features.
    pub inference_paused: bool,
}

/// The version of a model in use.
#[derive(Debug, Clone)]
pub struct UsedModel {
    pub(super) source: Arc<Resource>,
    pub(super) model: Arc<CompiledModel>,
    /// Whether the credential was dropped.
    pub(super) lacks_credential: bool,
}

/// The version of a feature in use.
#[derive(Debug, Clone)]
pub struct UsedFeature {
    /// Newer than [`Self::revision`] if the newest version is held and only its provider is in use.
    pub(super) source: Arc<Resource>,
    pub(super) revision: Revision,
    pub(super) setting: CompiledSetting,
}

impl Used {
    /// Creates a set of versions of one incarnation of the store.
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

    /// Returns the incarnation of the store to which the versions belong. `None`: there are no versions.
    #[must_use]
    pub const fn life(&self) -> Option<Incarnation> {
        self.life
    }

    /// Returns the credentials of the versions in use.
    pub fn credentials(&self) -> impl Iterator<Item = &Arc<Credential>> {
        self.models.values().filter_map(|used| used.model.credential.as_ref())
    }

    /// Returns the ids of [`Self::credentials`].
    #[must_use]
    pub fn credential_ids(&self) -> HashSet<CredentialId> {
        self.credentials().map(|credential| credential.id).collect()
    }

    /// Returns the models in use whose version is not the newest in `received`, and so cannot be derived from it.
    pub fn older_models<'a>(&'a self, received: &'a Received) -> impl Iterator<Item = &'a UsedModel> {
        let models = self.models.values();
        models.filter(|used| is_older(received, &used.source, used.revision()))
    }

    /// Returns the features in use whose version is not the newest in `received`.
    pub fn older_features<'a>(&'a self, received: &'a Received) -> impl Iterator<Item = &'a UsedFeature> {
        let features = self.features.values();
        features.filter(|used| is_older(received, &used.source, used.revision))
    }

    /// Returns the settings in use.
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

    /// Builds the version again from `source`. `None`: this build cannot use it.
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

    /// Returns the resource from which the version was built.
    #[must_use]
    pub const fn source(&self) -> &Arc<Resource> {
        &self.source
    }

    /// Returns whether the model's credential was dropped.
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

    /// Returns this version without its credential if the newest version has no credential or has lost it. A later
    /// version that is refused too does not bring the credential back.
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
    /// Builds the version from the newest resource, for features of which no older version is in use. `None`: this
    /// build cannot use it.
    #[must_use]
    pub fn from_newest(source: &Arc<Resource>) -> Option<(FeatureName, Self)> {
        let is_readable = missing_capability(&source.raw).is_none();
        is_readable.then(|| Self::from_source(source, source.raw.revision))?
    }

    /// Builds the version again from `source`. `None`: this build cannot use it.
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

    /// Returns the resource from which the version was built.
    #[must_use]
    pub const fn source(&self) -> &Arc<Resource> {
        &self.source
    }

    /// Returns the revision of the version.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    pub(super) fn create_revision(&self) -> Revision {
        self.source.raw.create_revision
    }
}
