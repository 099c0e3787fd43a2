//! Models of the change stream.

use std::{sync::Arc, time::Duration};

use switchboard::{
    catalogue::Catalogue,
    endpoint::{EndpointUri, Origin},
    names::CredentialId,
    pb::registry,
    reason::FieldReason,
};

use super::{MINUTE, count, span};
use crate::{
    catalog::{Endpoint, InfillMode, Limits, Platform, QUEUE_MAX, Tls, TlsError},
    subscription::resource::{CredentialRef, CredentialSpec, ModelContent, ModelSpec, Refusal},
};

const WEIGHT_MAX: u32 = 1000;
/// The most characters of a zone, and of an API version.
const TEXT_MAX: usize = 63;

pub(super) fn model(entry: registry::ModelEntry) -> ModelContent {
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

/// How to call a model.
pub(in crate::wire) fn spec(model: &registry::Model) -> Result<ModelSpec, Refusal> {
    let family = Catalogue::get().family(model.family()).ok_or_else(|| {
        let text = format!("`{}` is not in this router's catalogue", model.family());
        Refusal::new("model.family", FieldReason::FamilyUnknown, text)
    })?;
    let platform = platform(model)?;
    let mut endpoints: Vec<Endpoint> = model
        .endpoints
        .iter()
        .enumerate()
        .map(|(place, wire)| {
            endpoint(wire).map_err(|(field, reason, text)| {
                Refusal::new(format!("model.endpoints[{place}].{field}"), reason, text)
            })
        })
        .collect::<Result<_, _>>()?;
    if endpoints.is_empty() && platform == Platform::Anthropic {
        endpoints.push(Endpoint {
            uri: EndpointUri::anthropic().clone(),
            weight: 1,
            zone: "".into(),
        });
    }
    if endpoints.iter().all(|endpoint| endpoint.weight == 0) {
        let text = "must have an endpoint with a weight above 0";
        return Err(Refusal::new("model.endpoints", FieldReason::FieldRequired, text));
    }
    let given = model.identifier();
    let sent = given.strip_prefix(identifier_prefix(&platform)).unwrap_or(given);
    Ok(ModelSpec {
        family,
        identifier: (!sent.is_empty()).then(|| sent.to_owned()),
        endpoints,
        infill_mode: infill_mode(model, &platform)?,
        platform,
        limits: model.limits.as_ref().map(limits).transpose()?.unwrap_or_default(),
        tls: model.tls.as_ref().map(tls).transpose()?,
    })
}

/// Left out it is the OpenAI-compatible one: only what somebody has set is stored.
fn platform(model: &registry::Model) -> Result<Platform, Refusal> {
    let refusal = |text: String| Refusal::new("model.platform", FieldReason::ValueUnknown, text);
    match model.platform.map(registry::Platform::try_from) {
        None | Some(Ok(registry::Platform::OpenaiCompatible)) => Ok(Platform::OpenAiCompatible),
        Some(Ok(registry::Platform::AzureOpenai)) => Ok(Platform::AzureOpenAi {
            api_version: api_version(model)?,
        }),
        Some(Ok(registry::Platform::Anthropic)) => Ok(Platform::Anthropic),
        Some(Ok(platform @ (registry::Platform::Bedrock | registry::Platform::VertexAi))) => Err(refusal(format!(
            "`{}` is not spoken by this router",
            platform.as_str_name()
        ))),
        Some(Ok(registry::Platform::Unspecified) | Err(_)) => Err(refusal("is not known to this router".to_owned())),
    }
}

/// It stands in the query of a URL.
fn api_version(model: &registry::Model) -> Result<Box<str>, Refusal> {
    let options = model.platform_options.as_ref();
    let version = options.map_or("", registry::PlatformOptions::api_version);
    let is_good = (1..=TEXT_MAX).contains(&version.len())
        && version
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
    if is_good {
        return Ok(version.into());
    }
    let field = "model.platform_options.api_version";
    let text = format!("must have 1 to {TEXT_MAX} letters, digits, hyphens and dots");
    Err(Refusal::new(field, FieldReason::ValueMalformed, text))
}

/// What may stand before an identifier to tell its platform, and is not sent.
const fn identifier_prefix(platform: &Platform) -> &'static str {
    match platform {
        Platform::OpenAiCompatible => "custom_openai/",
        Platform::AzureOpenAi { .. } => "azure/",
        Platform::Anthropic => "anthropic/",
    }
}

fn limits(wire: &registry::ModelLimits) -> Result<Limits, Refusal> {
    let queue_max = i32::try_from(QUEUE_MAX).unwrap_or(i32::MAX);
    let timeout =
        |field, wire: &Option<prost_types::Duration>, most| span(field, wire.as_ref(), Duration::from_nanos(1), most);
    Ok(Limits {
        max_concurrency: count("model.limits.max_concurrency", wire.max_concurrency, 1, i32::MAX)?,
        max_queue: count("model.limits.max_queue", wire.max_queue, 0, queue_max)?,
        queue_timeout: timeout("model.limits.queue_timeout", &wire.queue_timeout, 5 * MINUTE)?,
        connect_timeout: timeout("model.limits.connect_timeout", &wire.connect_timeout, MINUTE)?,
        first_token_timeout: timeout(
            "model.limits.first_token_timeout",
            &wire.first_token_timeout,
            15 * MINUTE,
        )?,
        idle_timeout: timeout("model.limits.idle_timeout", &wire.idle_timeout, 15 * MINUTE)?,
        total_timeout: timeout("model.limits.total_timeout", &wire.total_timeout, 15 * MINUTE)?,
        max_output_tokens: count("model.limits.max_output_tokens", wire.max_output_tokens, 1, i32::MAX)?,
    })
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

fn infill_mode(model: &registry::Model, platform: &Platform) -> Result<InfillMode, Refusal> {
    use registry::InfillMode as Wire;
    let mode = model.infill_mode.map_or(Ok(Wire::FamilyDefault), Wire::try_from);
    match mode {
        // There are only chats, whatever the family does elsewhere.
        Ok(Wire::FamilyDefault) if *platform == Platform::Anthropic => Ok(InfillMode::Chat),
        Ok(Wire::Completions | Wire::Suffix) if *platform == Platform::Anthropic => Err(Refusal::new(
            "model.infill_mode",
            FieldReason::InfillModeNotSupported,
            "is not one of a platform that takes chats only",
        )),
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
    if wire.zone.chars().count() > TEXT_MAX {
        let text = format!("must have at most {TEXT_MAX} characters");
        return Err(("zone", FieldReason::ValueOutOfRange, text));
    }
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
