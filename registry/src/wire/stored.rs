//! Resources as the bytes that are stored, streamed and hashed. The bytes contain explicitly set fields only.
//!
//! A resource is encoded once, when it is written. The bytes are kept for ever and never encoded again to be hashed or
//! sent.

use bytes::Bytes;
use prost::Message as _;
use switchboard::{
    names::{FeatureName, ModelName, ResourceName},
    pb::registry,
    reason::FieldReason,
    resource::{
        feature::{Feature, FeatureSpec},
        model::{Model, ModelSpec},
        settings::Settings,
    },
    violation::Violations,
};

use crate::domain::{
    credential::ModelCredential,
    state::Change,
    write::{Old, OldResource},
};

/// Why this build cannot read a stored resource.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// The bytes cannot be decoded as the message.
    #[error("the stored bytes are not readable")]
    Unreadable(#[source] prost::DecodeError),
    /// The message breaks a rule for writes.
    #[error("stored {field} {description}")]
    Invalid {
        /// Path of the field.
        field: String,
        /// What is wrong with the field.
        description: String,
    },
    /// The reference to the credential in the model differs from the stored credential.
    #[error("the stored credential does not match the model")]
    Credential,
}

/// Encodes the resource of a change.
#[must_use]
pub fn encode(change: &Change) -> Bytes {
    match change {
        Change::Model { model, credential, .. } => registry::ModelEntry {
            model: Some(model.to_stored()),
            credential: Some(credential_ref(credential)),
        }
        .encode_to_vec(),
        Change::Feature(feature) => feature.to_message().encode_to_vec(),
        Change::Settings(settings) => settings.to_stored().encode_to_vec(),
    }
    .into()
}

/// Decodes the bytes of a resource. A model's credential is stored separately and passed as an argument.
///
/// # Errors
///
/// [`StoredError`] if the bytes are not what [`encode`] writes for a valid resource.
pub fn decode(name: &ResourceName, value: &[u8], credential: &ModelCredential) -> Result<Change, StoredError> {
    match name {
        ResourceName::Model(name) => {
            let entry: registry::ModelEntry = message(value)?;
            if entry.credential.unwrap_or_default() != credential_ref(credential) {
                return Err(StoredError::Credential);
            }
            Ok(Change::Model {
                model: decode_model(name, entry.model.unwrap_or_default())
                    .map_err(|violations| StoredError::invalid("model", &violations))?,
                credential: credential.clone(),
                is_token_touched: false,
            })
        }
        ResourceName::Feature(name) => decode_feature(name, message(value)?)
            .map(Change::Feature)
            .map_err(|violations| StoredError::invalid("feature", &violations)),
        ResourceName::Settings => Ok(Change::Settings(Settings::read(&message(value)?))),
    }
}

/// Decodes an old value of a resource. A value that is no longer valid because the catalogue has changed is returned as
/// its violations.
#[must_use]
pub fn decode_old(name: &ResourceName, value: Option<&[u8]>) -> Old {
    let was = value.map(|value| old_resource(name, value));
    Old {
        name: name.clone(),
        was: was.transpose(),
    }
}

fn old_resource(name: &ResourceName, value: &[u8]) -> Result<OldResource, Violations> {
    match name {
        ResourceName::Model(name) => {
            let entry: registry::ModelEntry = old_message(value)?;
            let credential = entry.credential.unwrap_or_default();
            Ok(OldResource::Model {
                model: decode_model(name, entry.model.unwrap_or_default())?,
                wanted_token: credential.state() != registry::CredentialState::None,
            })
        }
        ResourceName::Feature(name) => decode_feature(name, old_message(value)?).map(OldResource::Feature),
        ResourceName::Settings => Ok(OldResource::Settings(Settings::read(&old_message(value)?))),
    }
}

fn old_message<M: prost::Message + Default>(value: &[u8]) -> Result<M, Violations> {
    M::decode(value).map_err(|_unreadable| {
        let mut violations = Violations::new();
        violations.push("value", FieldReason::ValueMalformed, "is not readable");
        violations
    })
}

/// Returns whether two values of a resource are equal, as far as this build can read them.
#[must_use]
pub fn is_same(name: &ResourceName, one: &[u8], other: &[u8]) -> bool {
    fn is_same_message<M: prost::Message + Default + PartialEq>(one: &[u8], other: &[u8]) -> bool {
        M::decode(one).is_ok_and(|one| M::decode(other).is_ok_and(|other| one == other))
    }
    one == other
        || match name {
            ResourceName::Model(_) => is_same_message::<registry::ModelEntry>(one, other),
            ResourceName::Feature(_) => is_same_message::<registry::Feature>(one, other),
            ResourceName::Settings => is_same_message::<registry::Settings>(one, other),
        }
}

fn decode_model(name: &ModelName, model: registry::Model) -> Result<Model, Violations> {
    Ok(Model {
        name: name.clone(),
        spec: ModelSpec::whole(model)?,
    })
}

fn decode_feature(name: &FeatureName, feature: registry::Feature) -> Result<Feature, Violations> {
    Ok(Feature {
        name: name.clone(),
        spec: FeatureSpec::whole(feature)?,
    })
}

fn credential_ref(credential: &ModelCredential) -> registry::CredentialRef {
    let (state, id, origins) = match credential {
        ModelCredential::None => (registry::CredentialState::None, String::new(), Vec::new()),
        ModelCredential::Dropped => (registry::CredentialState::Dropped, String::new(), Vec::new()),
        ModelCredential::Set(set) => {
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
    /// Reports only the first violation, because nobody can be asked to correct stored fields.
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
