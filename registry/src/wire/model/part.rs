//! The parts of a model, in both directions.

use std::{collections::BTreeMap, time::Duration};

use switchboard::{duration, pb::registry, reason::FieldReason};

use super::super::Flaw;
use crate::domain::model::{
    ApiVersion, CaCertificates, InfillMode, Limits, Model, ModelPartError, Platform, ServerName, Timeout, Tls,
};

/// The endpoints as they are answered and stored.
pub(in crate::wire) fn endpoints(model: &Model) -> impl Iterator<Item = registry::Endpoint> {
    model.endpoints.as_slice().iter().map(|endpoint| registry::Endpoint {
        uri: endpoint.uri.as_str().to_owned(),
        weight: Some(endpoint.weight.get()),
        zone: endpoint.zone.as_str().to_owned(),
    })
}

/// The labels as they are answered and stored.
pub(in crate::wire) fn labels(model: &Model) -> BTreeMap<String, String> {
    let labels = model.labels.iter();
    labels.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// The limits as they are answered and stored. `None`: nobody has set one.
pub(in crate::wire) fn limits(limits: &Limits) -> Option<registry::ModelLimits> {
    (*limits != Limits::default()).then(|| registry::ModelLimits {
        max_concurrency: limits.max_concurrency.map(|count| count.get()),
        max_queue: limits.max_queue.map(|count| count.get()),
        queue_timeout: limits.queue_timeout.and_then(|timeout| span(timeout.get())),
        connect_timeout: limits.connect_timeout.and_then(|timeout| span(timeout.get())),
        first_token_timeout: limits.first_token_timeout.and_then(|timeout| span(timeout.get())),
        idle_timeout: limits.idle_timeout.and_then(|timeout| span(timeout.get())),
        total_timeout: limits.total_timeout.and_then(|timeout| span(timeout.get())),
        max_output_tokens: limits.max_output_tokens.map(|count| count.get()),
        context_tokens: limits.context_tokens.map(|count| count.get()),
    })
}

fn span(span: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(span).ok()
}

/// Reads a limit of time; a span that is no time is out of range like any other.
pub(super) fn timeout<const MAX: u64>(span: prost_types::Duration) -> Result<Timeout<MAX>, ModelPartError> {
    duration::read(span).map_or(Err(Timeout::<MAX>::OUT_OF_RANGE), Timeout::parse)
}

/// How servers prove who they are, as it is answered and stored. `None`: nobody has set anything.
pub(in crate::wire) fn tls(tls: &Tls) -> Option<registry::Tls> {
    (*tls != Tls::default()).then(|| registry::Tls {
        ca_pem: tls.ca.as_ref().map(CaCertificates::as_str).map(str::to_owned),
        server_name: tls.server_name.as_ref().map(ServerName::as_str).map(str::to_owned),
    })
}

/// Reads a platform.
pub(super) fn platform(number: i32) -> Result<Platform, Flaw> {
    match registry::Platform::try_from(number) {
        Ok(registry::Platform::OpenaiCompatible) => Ok(Platform::OpenAiCompatible),
        Ok(registry::Platform::AzureOpenai) => Ok(Platform::AzureOpenAi),
        Ok(registry::Platform::Anthropic) => Ok(Platform::Anthropic),
        Ok(registry::Platform::Bedrock) => Ok(Platform::Bedrock),
        Ok(registry::Platform::VertexAi) => Ok(Platform::VertexAi),
        Ok(registry::Platform::Unspecified) | Err(_) => Err(Flaw::new(
            FieldReason::ValueUnknown,
            format!("must be one of {}, or be left out", Platform::supported()),
        )),
    }
}

/// A platform as it is answered and stored.
pub(in crate::wire) fn platform_number(platform: Platform) -> i32 {
    match platform {
        Platform::OpenAiCompatible => registry::Platform::OpenaiCompatible,
        Platform::AzureOpenAi => registry::Platform::AzureOpenai,
        Platform::Anthropic => registry::Platform::Anthropic,
        Platform::Bedrock => registry::Platform::Bedrock,
        Platform::VertexAi => registry::Platform::VertexAi,
    }
    .into()
}

/// What the platform needs, as it is answered and stored. `None`: nothing.
pub(in crate::wire) fn platform_options(model: &Model) -> Option<registry::PlatformOptions> {
    let version = model.api_version.as_ref().map(ApiVersion::as_str);
    version.map(|version| registry::PlatformOptions {
        api_version: Some(version.to_owned()),
        ..Default::default()
    })
}

/// Reads an infill mode.
pub(super) fn infill_mode(number: i32) -> Result<InfillMode, Flaw> {
    match registry::InfillMode::try_from(number) {
        Ok(registry::InfillMode::FamilyDefault) => Ok(InfillMode::FamilyDefault),
        Ok(registry::InfillMode::Completions) => Ok(InfillMode::Completions),
        Ok(registry::InfillMode::Suffix) => Ok(InfillMode::Suffix),
        Ok(registry::InfillMode::Chat) => Ok(InfillMode::Chat),
        Ok(registry::InfillMode::Unspecified) | Err(_) => Err(Flaw::new(
            FieldReason::ValueUnknown,
            "must be INFILL_MODE_FAMILY_DEFAULT, INFILL_MODE_COMPLETIONS, INFILL_MODE_SUFFIX or INFILL_MODE_CHAT",
        )),
    }
}

/// An infill mode as it is answered and stored.
pub(in crate::wire) fn infill_mode_number(mode: InfillMode) -> i32 {
    match mode {
        InfillMode::FamilyDefault => registry::InfillMode::FamilyDefault,
        InfillMode::Completions => registry::InfillMode::Completions,
        InfillMode::Suffix => registry::InfillMode::Suffix,
        InfillMode::Chat => registry::InfillMode::Chat,
    }
    .into()
}
