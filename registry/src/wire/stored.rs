//! Resources as the bytes that are stored, streamed and hashed: only what somebody has set.
//!
//! Encoded once, at the write, and kept for ever: nothing is encoded again to be hashed or sent.

use bytes::Bytes;
use prost::Message as _;
use switchboard::{
    names::{FeatureName, ModelName, ResourceName},
    pb::registry,
    violation::Violations,
};

use super::{
    feature::{self, fallback_models, provider_number, rule_messages},
    mask::Mask,
    model::{
        self,
        part::{endpoints, infill_mode_number, labels, limits, platform_number, tls},
    },
};
use crate::domain::{
    credential::Credential,
    feature::Feature,
    model::{InfillMode, Model, Platform, Weight},
    settings::Settings,
    state::Change,
    write::FeaturePatch,
};

/// Why stored bytes are no resource that this build can read.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// The bytes are not the message.
    #[error("stored bytes are not readable")]
    Unreadable(#[source] prost::DecodeError),
    /// The message breaks a rule that writes go by.
    #[error("stored {field} {description}")]
    Invalid {
        /// The field.
        field: String,
        /// What is wrong with it.
        description: String,
    },
    /// The model says another thing of its credential than the credential itself.
    #[error("the stored credential is not the one that the model names")]
    Credential,
}

/// The bytes of a resource as a change leaves it.
#[must_use]
pub fn encode(change: &Change) -> Bytes {
    match change {
        Change::Model { model, credential, .. } => registry::ModelEntry {
            model: Some(encode_model(model)),
            credential: Some(credential_ref(credential)),
        }
        .encode_to_vec(),
        Change::Feature(feature) => registry::Feature {
            name: feature.name.to_string(),
            // Always written: a reader must not have to guess what silence means for the one thing a feature says.
            provider: Some(provider_number(feature.setting.provider())),
            model: feature.setting.model().map(ToString::to_string),
            fallback_models: fallback_models(&feature.setting),
            rules: rule_messages(&feature.setting),
            ..Default::default()
        }
        .encode_to_vec(),
        Change::Settings(settings) => registry::Settings {
            name: ResourceName::SETTINGS.to_owned(),
            beta_enabled: settings.beta_enabled.then_some(true),
            inference_paused: settings.inference_paused.then_some(true),
            ..Default::default()
        }
        .encode_to_vec(),
    }
    .into()
}

/// Reads the bytes of a resource. The credential of a model is stored apart and handed in.
///
/// # Errors
///
/// [`StoredError`] when the bytes are not what [`encode`] writes for a valid resource.
pub fn decode(name: &ResourceName, value: &[u8], credential: &Credential) -> Result<Change, StoredError> {
    match name {
        ResourceName::Model(name) => {
            let entry: registry::ModelEntry = message(value)?;
            if entry.credential.unwrap_or_default() != credential_ref(credential) {
                return Err(StoredError::Credential);
            }
            Ok(Change::Model {
                model: decode_model(name, entry.model.unwrap_or_default())?,
                credential: credential.clone(),
                is_token_touched: false,
            })
        }
        ResourceName::Feature(name) => decode_feature(name, message(value)?).map(Change::Feature),
        ResourceName::Settings => {
            let settings: registry::Settings = message(value)?;
            Ok(Change::Settings(Settings {
                beta_enabled: settings.beta_enabled.unwrap_or(false),
                inference_paused: settings.inference_paused.unwrap_or(false),
            }))
        }
    }
}

fn encode_model(model: &Model) -> registry::Model {
    let endpoints = endpoints(model).map(|endpoint| registry::Endpoint {
        weight: endpoint.weight.filter(|&weight| weight != Weight::default().get()),
        ..endpoint
    });
    registry::Model {
        name: model.name.to_string(),
        display_name: Some(model.display_name.as_str().to_owned()),
        family: Some(model.family.machine_name.clone()),
        platform: Some(model.platform)
            .filter(|platform| *platform != Platform::default())
            .map(platform_number),
        endpoints: endpoints.collect(),
        identifier: model
            .identifier
            .as_ref()
            .map(|identifier| identifier.as_str().to_owned()),
        limits: limits(&model.limits),
        infill_mode: Some(model.infill_mode)
            .filter(|mode| *mode != InfillMode::default())
            .map(infill_mode_number),
        tls: tls(&model.tls),
        disabled: model.disabled.then_some(true),
        labels: labels(model),
        ..Default::default()
    }
}

fn decode_model(name: &ModelName, model: registry::Model) -> Result<Model, StoredError> {
    let mut violations = Violations::new();
    let patch = model::patch::patch(model, &Mask::Present, &mut violations);
    let model = violations.or(patch).and_then(|patch| patch.into_model(name.clone()));
    model.map_err(|violations| StoredError::invalid("model", &violations))
}

fn decode_feature(name: &FeatureName, feature: registry::Feature) -> Result<Feature, StoredError> {
    let mut violations = Violations::new();
    let patch = feature::patch(feature, &Mask::Present, &mut violations);
    let setting = violations.or(patch).and_then(FeaturePatch::into_setting);
    Ok(Feature {
        name: name.clone(),
        setting: setting.map_err(|violations| StoredError::invalid("feature", &violations))?,
    })
}

fn credential_ref(credential: &Credential) -> registry::CredentialRef {
    let (state, id, origins) = match credential {
        Credential::None => (registry::CredentialState::None, String::new(), Vec::new()),
        Credential::Dropped => (registry::CredentialState::Dropped, String::new(), Vec::new()),
        Credential::Set(set) => {
            let mut origins: Vec<_> = set.origins.iter().map(ToString::to_string).collect();
            origins.sort_unstable();
            (registry::CredentialState::Set, set.id.to_string(), origins)
        }
    };
    registry::CredentialRef {
        id,
        state: state.into(),
        origins,
    }
}

fn message<M: prost::Message + Default>(value: &[u8]) -> Result<M, StoredError> {
    M::decode(value).map_err(StoredError::Unreadable)
}

impl StoredError {
    /// The first of what is wrong stands for all: nobody can answer with more fields.
    fn invalid(resource: &str, violations: &Violations) -> Self {
        let (field, description) = match violations.as_slice() {
            [first, ..] => (first.field.as_str(), first.description.as_str()),
            [] => (resource, "is incomplete"),
        };
        Self::Invalid {
            field: field.to_owned(),
            description: description.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
