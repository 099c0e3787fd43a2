//! Compiles the catalog from the received state: decides which version of each item is used, which items are held, and
//! which credentials have to be fetched.
//!
//! Pure. An item whose newest version cannot be used keeps the last version that could, with that version's own
//! credential, unless the resource was deleted and created again in between. A change that takes something away is
//! never held: it takes effect at once, even if the rest of the item is refused.
//!
//! The compile step never returns to a version older than the one that was last in force. A model that takes no calls,
//! because it is disabled or because no feature in use names it, is in force in that state: the version before is
//! dropped with its credential, and calls do not return to it when the model is enabled or assigned again.

mod used;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use switchboard::{
    names::{CredentialId, FeatureName, ModelName, ResourceName, Revision},
    reason::FieldReason,
};

use super::{
    received::Received,
    resource::{Content, CredentialRef, CredentialSpec, ModelContent, Raw, Refusal, Resource},
};
use crate::catalog::{Catalog, CompiledSetting, Credential, ModelState};

pub use self::used::{Used, UsedFeature, UsedModel, UsedSettings};

/// Credentials by their ids.
pub type CredentialsById = HashMap<CredentialId, Arc<Credential>>;

/// The result of compiling.
#[derive(Debug)]
pub struct Compiled {
    /// The catalog.
    pub catalog: Catalog,
    /// The versions in use, which are the input of the next compile step.
    pub used: Used,
    /// Items whose newest version is not in use, ordered by name.
    pub held: Vec<Held>,
    /// Credentials that calls need and that still have to be fetched.
    pub wanted: Vec<WantedCredential>,
}

/// An item whose newest version is not in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The item.
    pub name: ResourceName,
    /// Its newest revision.
    pub revision: Revision,
    /// Why it is held.
    pub why: HeldWhy,
    /// The revision of the version that is in use instead. 0: no version is in use.
    pub used_revision: Revision,
}

/// Why the newest version of an item is not in use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeldWhy {
    /// The newest version is unreadable or invalid for this router.
    #[error("the newest version is refused: {0}")]
    Refused(Refusal),
    /// The newest version requires a capability that this router lacks.
    #[error("the newest version requires the capability `{0}`")]
    CapabilityMissing(String),
    /// The newest version's credential has not been fetched yet.
    #[error("the credential has not been fetched yet")]
    CredentialPending,
    /// The newest version names a model that has no usable version.
    #[error("`{0}` has no usable version")]
    Dependency(ModelName),
}

impl HeldWhy {
    /// Returns whether a new version or a new release is needed to end the hold. The other holds end by themselves, for
    /// example when a credential has been fetched.
    #[must_use]
    pub const fn is_lasting(&self) -> bool {
        match self {
            Self::Refused(_) | Self::CapabilityMissing(_) => true,
            Self::CredentialPending | Self::Dependency(_) => false,
        }
    }
}

/// A credential that has to be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedCredential {
    /// The model that the credential belongs to.
    pub model: ModelName,
    /// The id of the credential, and the origins to which it may be sent.
    pub credential: CredentialRef,
}

/// Compiles a received state. `before` has the versions that were in use before it.
#[must_use]
pub fn compile(received: &Received, before: &Used, credentials: &CredentialsById) -> Compiled {
    let nothing = Used::default();
    let life = received.cursor().incarnation;
    // Nothing is held across incarnations of the store: an older version may have been revoked on purpose.
    let before = if before.life == Some(life) { before } else { &nothing };
    let mut step = CompileStep {
        before,
        credentials,
        called: models_of(before.features.values().map(|used| &used.setting)).collect(),
        states: HashMap::new(),
        used: Used {
            life: Some(life),
            ..Used::default()
        },
        held: BTreeMap::new(),
        wanted: Vec::new(),
    };
    for resource in received.resources().values() {
        if let Content::Model(name, content) = &resource.content {
            step.model(resource, name, content);
        }
    }
    // Features come after the models, because the setting to use depends on them.
    for resource in received.resources().values() {
        if let Content::Feature(name, setting) = &resource.content {
            step.feature(resource, name, setting.as_ref());
        }
    }
    step.end_idle(received);
    for resource in received.resources().values() {
        if let Content::Settings(settings) = &resource.content {
            step.settings(resource, settings.as_ref());
        }
    }
    let features = step.used.features.iter();
    Compiled {
        catalog: Catalog {
            cursor: *received.cursor(),
            features: features
                .map(|(name, used)| (name.clone(), used.setting.clone()))
                .collect(),
            models: step.states,
            inference_paused: step.used.settings.inference_paused,
        },
        used: step.used,
        held: step.held.into_values().collect(),
        wanted: step.wanted,
    }
}

/// Returns the models that the settings name: as the model of a feature, as a fallback or in a rule.
fn models_of<'a>(settings: impl Iterator<Item = &'a CompiledSetting>) -> impl Iterator<Item = &'a ModelName> {
    let assignments = settings.filter_map(|setting| match setting {
        CompiledSetting::SelfHosted(assignment) => Some(assignment.models()),
        CompiledSetting::Unassigned | CompiledSetting::Disabled | CompiledSetting::Vendored => None,
    });
    assignments.flatten()
}

struct CompileStep<'a> {
    before: &'a Used,
    credentials: &'a CredentialsById,
    /// The models that the features in use before named.
    called: BTreeSet<&'a ModelName>,
    states: HashMap<ModelName, ModelState>,
    used: Used,
    held: BTreeMap<&'a str, Held>,
    wanted: Vec<WantedCredential>,
}

impl<'a> CompileStep<'a> {
    fn model(&mut self, resource: &'a Arc<Resource>, name: &ModelName, content: &ModelContent) {
        let raw = &resource.raw;
        let before = self.before.models.get(name);
        let before = before.filter(|used| used.create_revision() == raw.create_revision);
        let used = match self.newest(resource, name, content, before) {
            Ok(used) => Some(used),
            Err(why) => {
                let last_good = before.and_then(|before| self.last_good(name, content, &why, before));
                let used_revision = last_good.as_ref().map_or(Revision::ZERO, UsedModel::revision);
                self.hold(raw, name.clone().into(), why, used_revision);
                last_good
            }
        };
        let state = match &used {
            _ if content.disabled => ModelState::Disabled,
            Some(used) if used.lacks_credential => ModelState::CredentialMissing,
            None if content.credential == Some(CredentialSpec::Dropped) => ModelState::CredentialMissing,
            Some(used) => ModelState::Ready(Arc::clone(&used.model)),
            None => ModelState::NotReady,
        };
        self.states.insert(name.clone(), state);
        if let Some(used) = used {
            self.used.models.insert(name.clone(), used);
        }
    }

    /// Returns the newest version of a model, or why it cannot be used.
    fn newest(
        &mut self,
        resource: &Arc<Resource>,
        name: &ModelName,
        content: &ModelContent,
        before: Option<&UsedModel>,
    ) -> Result<UsedModel, HeldWhy> {
        let raw = &resource.raw;
        if let Some(why) = missing_capability(raw) {
            return Err(why);
        }
        let spec = match &content.spec {
            Ok(spec) => spec,
            Err(refusal) => return Err(HeldWhy::Refused(refusal.clone())),
        };
        if let Some(before) = before.filter(|before| before.revision() == raw.revision) {
            return Ok(before.clone());
        }
        let usable = |credential, lacks| Ok(UsedModel::new(resource, name, spec, credential, lacks));
        match &content.credential {
            Some(CredentialSpec::None) => usable(None, false),
            Some(CredentialSpec::Dropped) => usable(None, true),
            Some(CredentialSpec::Set(wanted)) => match self.credentials.get(&wanted.id) {
                Some(credential) => usable(Some(Arc::clone(credential)), false),
                None => {
                    self.wanted.push(WantedCredential {
                        model: name.clone(),
                        credential: wanted.clone(),
                    });
                    Err(HeldWhy::CredentialPending)
                }
            },
            None => Err(HeldWhy::Refused(Refusal::new(
                "credential",
                FieldReason::ValueMalformed,
                "cannot be read",
            ))),
        }
    }

    /// Returns the version in use before, which stays in use while the newest is held. `None`: a newer version has been
    /// in force since, or is now. A model that took no calls was in force in that state, so a version that only waits
    /// for its credential does not bring back the one before it.
    fn last_good(
        &self,
        name: &ModelName,
        newest: &ModelContent,
        why: &HeldWhy,
        before: &UsedModel,
    ) -> Option<UsedModel> {
        let is_over = match why {
            _ if newest.disabled || before.is_disabled() => true,
            HeldWhy::CredentialPending => before.lacks_credential || !self.called.contains(name),
            HeldWhy::Refused(_) | HeldWhy::CapabilityMissing(_) | HeldWhy::Dependency(_) => false,
        };
        (!is_over).then(|| before.without_what_was_taken(newest.credential.as_ref()))
    }

    /// Ends the hold of models that wait for a credential although they take no calls. Their credential is not fetched,
    /// the version before is dropped, and the newest version is in force without its credential.
    fn end_idle(&mut self, received: &Received) {
        let newest = received.resources().values();
        let newest = newest.filter_map(|resource| match &resource.content {
            Content::Feature(_, Ok(setting)) => Some(setting),
            Content::Feature(_, Err(_)) | Content::Model(..) | Content::Settings(_) | Content::Other => None,
        });
        let in_use = self.used.features.values().map(|used| &used.setting);
        let reachable: BTreeSet<_> = models_of(newest.chain(in_use)).collect();
        let is_idle = |wanted: &mut WantedCredential| {
            let is_disabled = matches!(self.states.get(&wanted.model), Some(ModelState::Disabled));
            is_disabled || !reachable.contains(&wanted.model)
        };
        let idle: Vec<_> = self.wanted.extract_if(.., is_idle).collect();
        for WantedCredential { model, .. } in idle {
            self.held.remove(&*model.to_string());
            self.used.models.remove(&model);
            if let Some(state @ ModelState::Ready(_)) = self.states.get_mut(&model) {
                *state = ModelState::NotReady;
            }
        }
    }

    fn feature(&mut self, resource: &'a Arc<Resource>, name: &FeatureName, newest: Result<&CompiledSetting, &Refusal>) {
        let raw = &resource.raw;
        let before = self.before.features.get(name);
        let before = before.filter(|used| used.create_revision() == raw.create_revision);
        let why = missing_capability(raw).or_else(|| match newest {
            Ok(CompiledSetting::SelfHosted(assignment)) if self.must_wait_for(&assignment.model, before) => {
                Some(HeldWhy::Dependency(assignment.model.clone()))
            }
            Ok(_) => None,
            Err(refusal) => Some(HeldWhy::Refused(refusal.clone())),
        });
        let used_revision = if why.is_none() {
            raw.revision
        } else {
            before.map_or(Revision::ZERO, |used| used.revision)
        };
        let used = match (newest, &why) {
            (Ok(setting), None) => Some((resource, setting)),
            (
                Ok(taken @ (CompiledSetting::Disabled | CompiledSetting::Unassigned | CompiledSetting::Vendored)),
                Some(_),
            ) => Some((resource, taken)),
            (Ok(CompiledSetting::SelfHosted(_)) | Err(_), Some(_)) | (Err(_), None) => {
                before.map(|used| (&used.source, &used.setting))
            }
        };
        if let Some((source, setting)) = used {
            let used = UsedFeature {
                source: Arc::clone(source),
                revision: used_revision,
                setting: setting.clone(),
            };
            self.used.features.insert(name.clone(), used);
        }
        if let Some(why) = why {
            self.hold(raw, name.clone().into(), why, used_revision);
        }
    }

    fn settings(&mut self, resource: &'a Resource, newest: Result<&bool, &Refusal>) {
        let raw = &resource.raw;
        let before = self.before.settings;
        let why = missing_capability(raw).or_else(|| newest.err().cloned().map(HeldWhy::Refused));
        let used = UsedSettings {
            revision: if why.is_none() { raw.revision } else { before.revision },
            inference_paused: match (newest, &why) {
                // A setting that stops inference takes effect at once.
                (Ok(true), _) => true,
                (Ok(false), None) => false,
                (Ok(false), Some(_)) | (Err(_), _) => before.inference_paused,
            },
        };
        self.used.settings = used;
        if let Some(why) = why {
            self.hold(raw, ResourceName::Settings, why, used.revision);
        }
    }

    /// Returns whether a feature must wait for its model: the model has no usable version, while the setting in use
    /// before can continue. Fallbacks and models of rules need not be usable: calls pass them over until they are.
    fn must_wait_for(&self, model: &ModelName, before: Option<&UsedFeature>) -> bool {
        let is_usable = |model| !matches!(self.states.get(model), Some(ModelState::NotReady) | None);
        let goes_on = |before: &UsedFeature| match &before.setting {
            CompiledSetting::SelfHosted(assignment) => assignment
                .models()
                .all(|model| matches!(self.states.get(model), Some(ModelState::Ready(_)))),
            CompiledSetting::Unassigned | CompiledSetting::Disabled | CompiledSetting::Vendored => true,
        };
        !is_usable(model) && before.is_some_and(goes_on)
    }

    fn hold(&mut self, raw: &'a Raw, name: ResourceName, why: HeldWhy, used_revision: Revision) {
        let held = Held {
            name,
            revision: raw.revision,
            why,
            used_revision,
        };
        self.held.insert(&raw.name, held);
    }
}

/// Returns a required capability that this build lacks. This build has no capabilities, so it lacks each one.
fn missing_capability(raw: &Raw) -> Option<HeldWhy> {
    raw.requires.first().cloned().map(HeldWhy::CapabilityMissing)
}

#[cfg(test)]
mod tests;
