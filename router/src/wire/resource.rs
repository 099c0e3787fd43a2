//! Resources of the change stream, from the contract to what the compile step needs.
//!
//! Only what lacks its place in the history is an error: whatever else is wrong with a resource is kept as the reason why
//! this build refuses it, since it has to be hashed all the same.

use std::{sync::Arc, time::Duration};

use switchboard::{
    catalogue::Catalogue,
    duration,
    endpoint::{EndpointUri, Origin},
    names::{CredentialId, ModelName, ResourceName, Revision},
    pb::{registry, types},
    reason::FieldReason,
};

use crate::{
    catalog::{
        Assignment, Endpoint, FeatureLimits, InfillMode, Limits, Match, Platform, QUEUE_MAX, Rule, RuleId, Setting,
        Share, Tls, TlsError,
    },
    subscription::resource::{Content, CredentialRef, CredentialSpec, ModelContent, ModelSpec, Raw, Refusal, Resource},
};

/// The platform prefix of an identifier that is not sent.
const CUSTOM_OPENAI: &str = "custom_openai/";
const WEIGHT_MAX: u32 = 1000;
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
            Content::Model(name, content)
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

fn model(entry: registry::ModelEntry) -> ModelContent {
    let model = entry.model.unwrap_or_default();
    let credential = credential(entry.credential);
    let spec = spec(&model).and_then(|spec| {
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

fn spec(model: &registry::Model) -> Result<ModelSpec, Refusal> {
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
    let sent = given.strip_prefix(CUSTOM_OPENAI).unwrap_or(given);
    Ok(ModelSpec {
        family,
        platform: platform(model)?,
        identifier: (!sent.is_empty()).then(|| sent.to_owned()),
        endpoints,
        infill_mode: infill_mode(model)?,
        limits: model.limits.as_ref().map(limits).transpose()?.unwrap_or_default(),
        tls: model.tls.as_ref().map(tls).transpose()?,
    })
}

/// Left out it is the OpenAI-compatible one: only what somebody has set is stored.
fn platform(model: &registry::Model) -> Result<Platform, Refusal> {
    let text = match model.platform.map(registry::Platform::try_from) {
        None | Some(Ok(registry::Platform::OpenaiCompatible)) => return Ok(Platform::OpenAiCompatible),
        Some(Ok(registry::Platform::Unspecified) | Err(_)) => "is not known to this router",
        Some(Ok(platform)) => {
            let text = format!("`{}` is not spoken by this router", platform.as_str_name());
            return Err(Refusal::new("model.platform", FieldReason::ValueUnknown, text));
        }
    };
    Err(Refusal::new("model.platform", FieldReason::ValueUnknown, text))
}

fn limits(wire: &registry::ModelLimits) -> Result<Limits, Refusal> {
    let queue_max = i32::try_from(QUEUE_MAX).unwrap_or(i32::MAX);
    Ok(Limits {
        max_concurrency: count("model.limits.max_concurrency", wire.max_concurrency, 1, i32::MAX)?,
        max_queue: count("model.limits.max_queue", wire.max_queue, 0, queue_max)?,
        queue_timeout: timeout("model.limits.queue_timeout", wire.queue_timeout.as_ref(), 5 * MINUTE)?,
        connect_timeout: timeout("model.limits.connect_timeout", wire.connect_timeout.as_ref(), MINUTE)?,
        first_token_timeout: timeout(
            "model.limits.first_token_timeout",
            wire.first_token_timeout.as_ref(),
            15 * MINUTE,
        )?,
        idle_timeout: timeout("model.limits.idle_timeout", wire.idle_timeout.as_ref(), 15 * MINUTE)?,
        total_timeout: timeout("model.limits.total_timeout", wire.total_timeout.as_ref(), 15 * MINUTE)?,
        max_output_tokens: count("model.limits.max_output_tokens", wire.max_output_tokens, 1, i32::MAX)?,
    })
}

fn count<T: TryFrom<i32>>(field: &str, wire: Option<i32>, least: i32, most: i32) -> Result<Option<T>, Refusal> {
    let Some(count) = wire else { return Ok(None) };
    let within = (least..=most).contains(&count).then_some(count);
    match within.and_then(|count| T::try_from(count).ok()) {
        Some(count) => Ok(Some(count)),
        None => Err(out_of_range(field, format!("must be {least} to {most}"))),
    }
}

fn timeout(field: &str, wire: Option<&prost_types::Duration>, most: Duration) -> Result<Option<Duration>, Refusal> {
    let Some(wire) = wire else { return Ok(None) };
    match duration::read(*wire) {
        Some(timeout) if !timeout.is_zero() && timeout <= most => Ok(Some(timeout)),
        _ => Err(out_of_range(field, format!("must be above 0, at most {most:?}"))),
    }
}

fn out_of_range(field: &str, text: String) -> Refusal {
    Refusal::new(field, FieldReason::ValueOutOfRange, text)
}

fn tls(wire: &registry::Tls) -> Result<Arc<Tls>, Refusal> {
    let tls = Tls::parse(wire.ca_pem.as_deref(), wire.server_name.as_deref());
    tls.map(Arc::new).map_err(|error| {
        let field = match error {
            TlsError::CaPem => "model.tls.ca_pem",
            TlsError::ServerName => "model.tls.server_name",
        };
        Refusal::new(field, FieldReason::ValueMalformed, error.to_string())
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
    Ok(Endpoint {
        uri,
        weight,
        zone: wire.zone.as_str().into(),
    })
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
        Ok(types::Provider::SelfHosted) => Ok(Setting::SelfHosted(Arc::new(assignment(feature)?))),
        Ok(types::Provider::Unspecified) | Err(_) => Err(Refusal::new(
            "provider",
            FieldReason::ValueUnknown,
            "is not known to this router",
        )),
    }
}

fn assignment(feature: &registry::Feature) -> Result<Assignment, Refusal> {
    let fallback = |(place, name): (usize, &String)| model_name(name, || format!("fallback_models[{place}]"));
    let rule = |(place, wire): (usize, &registry::FeatureRule)| rule(place, wire);
    Ok(Assignment {
        model: model_name(feature.model(), || "model".to_owned())?,
        fallbacks: feature
            .fallback_models
            .iter()
            .enumerate()
            .map(fallback)
            .collect::<Result<_, _>>()?,
        rules: feature.rules.iter().enumerate().map(rule).collect::<Result<_, _>>()?,
        limits: feature.limits.map(feature_limits).transpose()?.unwrap_or_default(),
        hedge_delay: timeout("hedge_delay", feature.hedge_delay.as_ref(), MINUTE)?,
    })
}

fn feature_limits(wire: registry::FeatureLimits) -> Result<FeatureLimits, Refusal> {
    Ok(FeatureLimits {
        max_concurrency: count("limits.max_concurrency", wire.max_concurrency, 1, i32::MAX)?,
        reserved_concurrency: count("limits.reserved_concurrency", wire.reserved_concurrency, 0, i32::MAX)?
            .unwrap_or(0),
    })
}

fn model_name(wire: &str, field: impl FnOnce() -> String) -> Result<ModelName, Refusal> {
    ModelName::parse(wire).map_err(|error| Refusal::new(field(), FieldReason::ValueMalformed, error.to_string()))
}

fn rule(place: usize, wire: &registry::FeatureRule) -> Result<Rule, Refusal> {
    let field = |leaf: &str| format!("rules[{place}].{leaf}");
    let malformed = |leaf, error: String| Refusal::new(field(leaf), FieldReason::ValueMalformed, error);
    let nothing = registry::RuleMatch::default();
    let wire_match = wire.r#match.as_ref().unwrap_or(&nothing);
    let share = wire_match
        .percent
        .map(Share::from_percent)
        .transpose()
        .map_err(|error| Refusal::new(field("match.percent"), FieldReason::ValueOutOfRange, error.to_string()))?;
    let condition = Match::new(
        &wire_match.namespace_ids,
        &wire_match.project_ids,
        &wire_match.user_ids,
        share,
    );
    Ok(Rule {
        id: RuleId::parse(&wire.rule_id).map_err(|error| malformed("rule_id", error.to_string()))?,
        // As a rule looks whose only condition is of a later build: it must not hold for everybody.
        condition: condition.ok_or_else(|| {
            let text = "has no condition that this router knows";
            Refusal::new(field("match"), FieldReason::FieldRequired, text)
        })?,
        model: model_name(&wire.model, || field("model"))?,
    })
}
