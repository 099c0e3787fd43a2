//! Resources of the change stream, from the contract to what the compile step needs.
//!
//! Only what lacks its place in the history is an error: whatever else is wrong with a resource is kept as the reason why
//! this build refuses it, since it has to be hashed all the same.

mod feature;
mod model;

use std::time::Duration;

use switchboard::{
    catalogue::Catalogue,
    duration,
    names::{ResourceName, Revision},
    pb::registry,
    reason::FieldReason,
};

pub(super) use self::model::spec;
use self::{feature::setting, model::model};
use crate::subscription::resource::{Content, ModelContent, Raw, Refusal, Resource};

const MINUTE: Duration = Duration::from_secs(60);

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
                model,
            );
            Content::Model(name, Box::new(content))
        }
        Some(ResourceName::Feature(name)) if Catalogue::get().feature(&name).is_some() => {
            let setting = decode::<registry::Feature>(raw, "Feature").and_then(|feature| setting(&feature));
            Content::Feature(name, setting)
        }
        Some(ResourceName::Settings) => {
            let settings = decode::<registry::Settings>(raw, "Settings");
            Content::Settings(settings.map(|settings| settings.inference_paused()))
        }
        Some(ResourceName::Feature(_)) | None => Content::Other,
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

fn count<T: TryFrom<i32>>(field: &str, wire: Option<i32>, least: i32, most: i32) -> Result<Option<T>, Refusal> {
    let Some(count) = wire else { return Ok(None) };
    let within = (least..=most).contains(&count).then_some(count);
    match within.and_then(|count| T::try_from(count).ok()) {
        Some(count) => Ok(Some(count)),
        None => Err(out_of_range(field, format!("must be {least} to {most}"))),
    }
}

fn span(
    field: &str,
    wire: Option<&prost_types::Duration>,
    least: Duration,
    most: Duration,
) -> Result<Option<Duration>, Refusal> {
    let Some(wire) = wire else { return Ok(None) };
    match duration::read(*wire) {
        Some(span) if (least..=most).contains(&span) => Ok(Some(span)),
        _ => Err(out_of_range(field, format!("must be {least:?} to {most:?}"))),
    }
}

fn out_of_range(field: &str, text: String) -> Refusal {
    Refusal::new(field, FieldReason::ValueOutOfRange, text)
}
