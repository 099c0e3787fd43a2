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
    feature::{provider, provider_number},
    mask::Mask,
    model::{endpoints, patch},
};
use crate::domain::{
    credential::Credential,
    feature::{Feature, Provider, Setting},
    model::{Model, Weight},
    settings::Settings,
    state::Change,
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
            ..Default::default()
        }
        .encode_to_vec(),
        Change::Settings(settings) => registry::Settings {
            name: ResourceName::SETTINGS.to_owned(),
            beta_enabled: settings.beta_enabled.then_some(true),
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
        ResourceName::Feature(name) => decode_feature(name, &message(value)?).map(Change::Feature),
        ResourceName::Settings => {
            let settings: registry::Settings = message(value)?;
            Ok(Change::Settings(Settings {
                beta_enabled: settings.beta_enabled.unwrap_or(false),
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
        endpoints: endpoints.collect(),
        identifier: model
            .identifier
            .as_ref()
            .map(|identifier| identifier.as_str().to_owned()),
        disabled: model.disabled.then_some(true),
        ..Default::default()
    }
}

fn decode_model(name: &ModelName, model: registry::Model) -> Result<Model, StoredError> {
    let mut violations = Violations::new();
    let patch = patch(model, &Mask::Present, &mut violations);
    violations
        .or(patch)
        .and_then(|patch| patch.into_model(name.clone()))
        .map_err(|violations| match violations.as_slice() {
            [first, ..] => StoredError::invalid(&first.field, &first.description),
            [] => StoredError::invalid("model", "is incomplete"),
        })
}

fn decode_feature(name: &FeatureName, feature: &registry::Feature) -> Result<Feature, StoredError> {
    let model = feature.model.as_deref().map(ModelName::parse).transpose();
    let model = model.map_err(|error| StoredError::invalid("feature.model", &error.to_string()))?;
    let provider = provider(feature.provider.unwrap_or_default())
        .map_err(|flaw| StoredError::invalid("feature.provider", &flaw.description))?;
    let setting = match (provider, model) {
        (Provider::Unassigned, None) => Setting::Unassigned,
        (Provider::Vendored, None) => Setting::Vendored,
        (Provider::Disabled, model) => Setting::Disabled(model),
        (Provider::SelfHosted, Some(model)) => Setting::SelfHosted(model),
        (Provider::Unassigned | Provider::Vendored, Some(_)) | (Provider::SelfHosted, None) => {
            return Err(StoredError::invalid("feature.model", "does not go with the provider"));
        }
    };
    Ok(Feature {
        name: name.clone(),
        setting,
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
    fn invalid(field: &str, description: &str) -> Self {
        Self::Invalid {
            field: field.to_owned(),
            description: description.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use switchboard::{catalogue::Catalogue, endpoint::EndpointUri, names::CredentialId, secret::ApiToken};

    use super::*;
    use crate::domain::{
        credential::SetCredential,
        model::{DisplayName, Endpoint, Endpoints, Identifier},
    };

    fn model() -> Change {
        let uri = |text| EndpointUri::parse(text).unwrap();
        let endpoints = vec![
            Endpoint {
                uri: uri("http://gpu1:8000/v1/"),
                weight: Weight::default(),
            },
            Endpoint {
                uri: uri("https://gpu2"),
                weight: Weight::parse(0).unwrap(),
            },
        ];
        Change::Model {
            model: Model {
                name: ModelName::parse("models/mistral").unwrap(),
                display_name: DisplayName::parse(" Mistral ").unwrap(),
                family: Catalogue::get().family("mistral").unwrap(),
                endpoints: Endpoints::new(endpoints).unwrap(),
                identifier: Identifier::parse("custom_openai/mistral-7b").unwrap(),
                disabled: true,
            },
            credential: Credential::Set(SetCredential {
                id: CredentialId::random(),
                origins: BTreeSet::from([uri("https://gpu2").origin(), uri("http://gpu1:8000").origin()]),
                token: ApiToken::parse("canary-4f1c".to_owned()).unwrap(),
            }),
            is_token_touched: true,
        }
    }

    #[test]
    fn what_is_stored_is_read_back() {
        let Change::Model { model, credential, .. } = model() else {
            panic!()
        };
        let changes = [
            (
                Change::Model {
                    model,
                    credential: credential.clone(),
                    is_token_touched: false,
                },
                credential,
            ),
            (
                Change::Feature(Feature {
                    name: FeatureName::parse("features/duo_chat").unwrap(),
                    setting: Setting::Disabled(Some(ModelName::parse("models/mistral").unwrap())),
                }),
                Credential::None,
            ),
            (Change::Settings(Settings { beta_enabled: true }), Credential::None),
        ];
        for (change, credential) in changes {
            let value = encode(&change);
            let read = decode(&change.name(), &value, &credential).unwrap();
            assert_eq!(format!("{read:?}"), format!("{change:?}"));
            assert_eq!(encode(&read), value);
        }
    }

    #[test]
    fn what_is_stored_has_no_token_and_nothing_that_is_output_only() {
        let change = model();
        let value = encode(&change);
        assert!(!String::from_utf8_lossy(&value).contains("canary-4f1c"));
        let entry = registry::ModelEntry::decode(&*value).unwrap();
        let stored = entry.model.unwrap();
        assert_eq!(stored.etag, "");
        assert_eq!((stored.revision, stored.release_stage), (0, 0));
        assert_eq!(
            stored.endpoints[0].weight, None,
            "a default is nothing that somebody has set"
        );
        assert_eq!(stored.endpoints[1].weight, Some(0));
        let origins = entry.credential.unwrap().origins;
        assert_eq!(origins, ["http://gpu1:8000", "https://gpu2:443"]);
    }

    #[test]
    fn a_model_with_another_models_credential_is_not_read() {
        let change = model();
        let read = decode(&change.name(), &encode(&change), &Credential::None);
        assert!(matches!(read, Err(StoredError::Credential)));
    }

    #[test]
    fn bytes_that_break_a_rule_are_not_read() {
        let name = ResourceName::parse("features/duo_chat").unwrap();
        let bad = registry::Feature {
            provider: Some(4),
            ..Default::default()
        };
        let read = decode(&name, &bad.encode_to_vec(), &Credential::None);
        assert!(matches!(read, Err(StoredError::Invalid { .. })));
        let read = decode(&name, b"\xff", &Credential::None);
        assert!(matches!(read, Err(StoredError::Unreadable(_))));
    }
}
