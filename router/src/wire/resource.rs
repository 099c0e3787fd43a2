//! Resources of the change stream, from the contract to what the compile step needs.
//!
//! Only what lacks its place in the history is an error: whatever else is wrong with a resource is kept as the reason why
//! this build refuses it, since it has to be hashed all the same.

use switchboard::{
    catalogue::Catalogue,
    endpoint::{EndpointUri, Origin},
    names::{CredentialId, ModelName, ResourceName, Revision},
    pb::{registry, types},
    reason::FieldReason,
};

use crate::{
    catalog::{Endpoint, InfillMode, Setting},
    subscription::resource::{Content, CredentialRef, CredentialSpec, ModelContent, ModelSpec, Raw, Refusal, Resource},
};

/// The platform prefix of an identifier that is not sent.
const CUSTOM_OPENAI: &str = "custom_openai/";
const WEIGHT_MAX: u32 = 1000;

/// The resource has no place in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a resource without name, payload or revisions")]
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
                |entry| model(&name, entry),
            );
            Content::Model(name, content)
        }
        Some(ResourceName::Feature(name)) if Catalogue::get().feature(&name).is_some() => {
            let setting = decode::<registry::Feature>(raw, "Feature").and_then(|feature| setting(&feature));
            Content::Feature(name, setting)
        }
        Some(ResourceName::Feature(_) | ResourceName::Settings) | None => Content::Other,
    }
}

fn decode<M: prost::Message + Default>(raw: &Raw, message: &str) -> Result<M, Refusal> {
    let name = raw.type_url.rsplit('/').next().unwrap_or_default();
    if name.strip_prefix("switchboard.registry.v1.") != Some(message) {
        let text = format!("has the type `{name}`, which is not that of its kind");
        return Err(Refusal::new("", FieldReason::ValueUnknown, text));
    }
    M::decode(raw.value.clone())
        .map_err(|_undecodable| Refusal::new("", FieldReason::ValueMalformed, "cannot be decoded"))
}

fn model(name: &ModelName, entry: registry::ModelEntry) -> ModelContent {
    let model = entry.model.unwrap_or_default();
    let credential = credential(entry.credential);
    let spec = spec(name, &model).and_then(|spec| {
        if let CredentialSpec::Set(CredentialRef { origins, .. }) = credential.as_ref().map_err(Clone::clone)?
            && let Some(outside) = spec
                .endpoints
                .iter()
                .find(|endpoint| !origins.contains(&endpoint.uri.origin()))
        {
            let text = format!("does not cover the endpoint `{}`", outside.uri.as_str());
            return Err(Refusal::new("credential.origins", FieldReason::ValueMalformed, text));
        }
        Ok(spec)
    });
    ModelContent {
        disabled: model.disabled(),
        credential: credential.ok(),
        spec,
    }
}

fn spec(name: &ModelName, model: &registry::Model) -> Result<ModelSpec, Refusal> {
    let family = Catalogue::get().family(model.family()).ok_or_else(|| {
        let text = format!("`{}` is not in this router's catalogue", model.family());
        Refusal::new("model.family", FieldReason::FamilyUnknown, text)
    })?;
    let endpoints: Vec<Endpoint> = model
        .endpoints
        .iter()
        .enumerate()
        .map(|(place, wire)| {
            endpoint(wire).map_err(|(field, reason, text)| {
                Refusal::new(format!("model.endpoints[{place}].{field}"), reason, text)
            })
        })
        .collect::<Result<_, _>>()?;
    if endpoints.iter().all(|endpoint| endpoint.weight == 0) {
        let text = "must have an endpoint with a weight above 0";
        return Err(Refusal::new("model.endpoints", FieldReason::FieldRequired, text));
    }
    let given = model.identifier();
    let identifier = match given.strip_prefix(CUSTOM_OPENAI).unwrap_or(given) {
        "" => name.id(),
        sent => sent,
    };
    Ok(ModelSpec {
        family,
        identifier: identifier.to_owned(),
        endpoints,
        infill_mode: infill_mode(model)?,
    })
}

fn infill_mode(model: &registry::Model) -> Result<InfillMode, Refusal> {
    use registry::InfillMode as Wire;
    match model.infill_mode.map_or(Ok(Wire::FamilyDefault), Wire::try_from) {
        Ok(Wire::FamilyDefault) => Ok(InfillMode::FamilyDefault),
        Ok(Wire::Completions) => Ok(InfillMode::Completions),
        Ok(Wire::Suffix) => Ok(InfillMode::Suffix),
        Ok(Wire::Chat) => Ok(InfillMode::Chat),
        Ok(Wire::Unspecified) | Err(_) => Err(Refusal::new(
            "model.infill_mode",
            FieldReason::ValueUnknown,
            "is not known to this router",
        )),
    }
}

fn endpoint(wire: &registry::Endpoint) -> Result<Endpoint, (&'static str, FieldReason, String)> {
    let uri = EndpointUri::parse(&wire.uri).map_err(|error| ("uri", error.reason(), error.to_string()))?;
    let weight = u32::try_from(wire.weight.unwrap_or(1))
        .ok()
        .filter(|weight| *weight <= WEIGHT_MAX)
        .ok_or_else(|| {
            let text = format!("must be 0 to {WEIGHT_MAX}");
            ("weight", FieldReason::ValueOutOfRange, text)
        })?;
    Ok(Endpoint { uri, weight })
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

fn setting(feature: &registry::Feature) -> Result<Setting, Refusal> {
    // Left out it is UNASSIGNED: only what somebody has set is stored.
    let provider = feature.provider.map(types::Provider::try_from);
    match provider.unwrap_or(Ok(types::Provider::Unassigned)) {
        Ok(types::Provider::Unassigned) => Ok(Setting::Unassigned),
        Ok(types::Provider::Disabled) => Ok(Setting::Disabled),
        Ok(types::Provider::Vendored) => Ok(Setting::Vendored),
        Ok(types::Provider::SelfHosted) => ModelName::parse(feature.model())
            .map(Setting::SelfHosted)
            .map_err(|error| Refusal::new("model", FieldReason::ValueMalformed, error.to_string())),
        Ok(types::Provider::Unspecified) | Err(_) => Err(Refusal::new(
            "provider",
            FieldReason::ValueUnknown,
            "is not known to this router",
        )),
    }
}
