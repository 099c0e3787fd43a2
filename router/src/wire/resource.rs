//! Converts the resources of the change stream from the contract to the types that the compile step needs.
//!
//! The conversion fails only if a resource does not say where it belongs in the history. Any other problem is kept in
//! the resource as the reason why this build refuses it, because even a refused resource is part of the state's digest.

use std::sync::Arc;

use switchboard::{
    catalogue::Catalogue,
    endpoint::Origin,
    names::{CredentialId, ResourceName, Revision},
    pb::{registry, types},
    reason::FieldReason,
    resource::{feature::FeatureSpec, model::ModelSpec, settings::Settings},
    violation::Violations,
};

use crate::{
    catalog::CompiledSetting,
    subscription::resource::{Content, CredentialRef, CredentialSpec, ModelContent, Raw, Refusal, Resource},
};

/// The error for a resource that cannot be placed in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the resource has no name, no payload or no valid revisions")]
pub struct ResourceError;

impl TryFrom<registry::Resource> for Resource {
    type Error = ResourceError;

    fn try_from(wire: registry::Resource) -> Result<Self, ResourceError> {
        let payload = wire.payload.ok_or(ResourceError)?;
        if wire.name.is_empty() || wire.create_revision < 1 || wire.revision < wire.create_revision {
            return Err(ResourceError);
        }
        let raw = Raw {
            name: wire.name.into(),
            create_revision: Revision::new(wire.create_revision).ok_or(ResourceError)?,
            revision: Revision::new(wire.revision).ok_or(ResourceError)?,
            type_url: payload.type_url.into(),
            value: payload.value.into(),
            requires: wire.requires,
        };
        let content = read(&raw);
        Ok(Self::new(raw, content))
    }
}

fn read(raw: &Raw) -> Content {
    match ResourceName::parse(&raw.name) {
        Some(ResourceName::Model(name)) => {
            let content = decode::<registry::ModelEntry>(raw, "ModelEntry").map_or_else(
                |refusal| ModelContent {
                    disabled: false,
                    credential: None,
                    spec: Err(refusal),
                },
                model,
            );
            Content::Model(name, Box::new(content))
        }
        Some(ResourceName::Feature(name)) if Catalogue::get().feature(&name).is_some() => {
            let setting = decode::<registry::Feature>(raw, "Feature").and_then(setting);
            Content::Feature(name, setting)
        }
        Some(ResourceName::Settings) => {
            let settings = decode::<registry::Settings>(raw, "Settings");
            Content::Settings(settings.map(|settings| Settings::read(&settings).inference_paused))
        }
        Some(ResourceName::Feature(_)) | None => Content::Other,
    }
}

fn decode<M: prost::Message + Default>(raw: &Raw, message: &str) -> Result<M, Refusal> {
    let name = raw.type_url.rsplit('/').next().unwrap_or_default();
    if name.strip_prefix("switchboard.registry.v1.") != Some(message) {
        let text = format!("has the type `{name}`, which does not match its name");
        return Err(Refusal::new("", FieldReason::ValueUnknown, text));
    }
    M::decode(raw.value.clone())
        .map_err(|_undecodable| Refusal::new("", FieldReason::ValueMalformed, "cannot be decoded"))
}

fn model(entry: registry::ModelEntry) -> ModelContent {
    let model = entry.model.unwrap_or_default();
    let (disabled, credential) = (model.disabled(), credential(entry.credential));
    let spec = spec(model).and_then(|spec| {
        if let CredentialSpec::Set(CredentialRef { origins, .. }) = credential.as_ref().map_err(Clone::clone)?
            && let Some(outside) = spec.uris().find(|uri| !origins.contains(&uri.origin()))
        {
            let text = format!("does not cover the endpoint `{}`", outside.as_str());
            return Err(Refusal::new("credential.origins", FieldReason::ValueMalformed, text));
        }
        Ok(spec)
    });
    ModelContent {
        disabled,
        credential: credential.ok(),
        spec,
    }
}

/// Returns the model's spec, if this build can use it.
pub(super) fn spec(model: registry::Model) -> Result<Arc<ModelSpec>, Refusal> {
    let spec = ModelSpec::whole(model);
    spec.map(Arc::new).map_err(|violations| first(violations, ""))
}

/// Returns the setting of a feature. A provider other than `SELF_HOSTED` applies even if the rest of the feature is
/// invalid.
fn setting(feature: registry::Feature) -> Result<CompiledSetting, Refusal> {
    // A missing provider means UNASSIGNED, because only fields that were set are stored.
    let provider = feature.provider.map(types::Provider::try_from);
    match provider.unwrap_or(Ok(types::Provider::Unassigned)) {
        Ok(types::Provider::Unassigned) => Ok(CompiledSetting::Unassigned),
        Ok(types::Provider::Disabled) => Ok(CompiledSetting::Disabled),
        Ok(types::Provider::Vendored) => Ok(CompiledSetting::Vendored),
        Ok(types::Provider::SelfHosted | types::Provider::Unspecified) | Err(_) => {
            let spec = FeatureSpec::whole(feature);
            spec.map(CompiledSetting::from)
                .map_err(|violations| first(violations, "feature."))
        }
    }
}

/// Returns the first violation, which is the one that a router reports. `prefix` is removed from its field, because it
/// means nothing to an administrator.
fn first(violations: Violations, prefix: &str) -> Refusal {
    let first = violations.into_iter().next();
    first.map_or_else(
        || Refusal::new("", FieldReason::ValueMalformed, "is incomplete"),
        |first| Refusal {
            field: first.field.strip_prefix(prefix).unwrap_or(&first.field).to_owned(),
            reason: first.reason,
            message: first.description,
        },
    )
}

fn credential(wire: Option<registry::CredentialRef>) -> Result<CredentialSpec, Refusal> {
    let Some(wire) = wire else {
        return Ok(CredentialSpec::None);
    };
    match registry::CredentialState::try_from(wire.state) {
        Ok(registry::CredentialState::None) => Ok(CredentialSpec::None),
        Ok(registry::CredentialState::Dropped) => Ok(CredentialSpec::Dropped),
        Ok(registry::CredentialState::Set) => {
            let malformed = |field, error: String| Refusal::new(field, FieldReason::ValueMalformed, error);
            Ok(CredentialSpec::Set(CredentialRef {
                id: CredentialId::parse(&wire.id).map_err(|error| malformed("credential.id", error.to_string()))?,
                origins: wire
                    .origins
                    .iter()
                    .map(|origin| Origin::parse(origin))
                    .collect::<Result<_, _>>()
                    .map_err(|error| malformed("credential.origins", error.to_string()))?,
            }))
        }
        Ok(registry::CredentialState::Unspecified) | Err(_) => Err(Refusal::new(
            "credential.state",
            FieldReason::ValueUnknown,
            "is not known to this router",
        )),
    }
}
