//! The type of a self-hosted model. A value is always valid, and so is each of its parts.

mod endpoints;
mod error;
mod labels;
mod limits;
mod message;
mod name;
mod platform;
mod tls;

use std::collections::BTreeSet;

pub use self::{
    endpoints::{Endpoint, Endpoints, Weight, Zone},
    error::ModelPartError,
    labels::Labels,
    limits::{Count, Limits, Positive, Timeout},
    message::{GivenToken, ReadModel},
    name::DisplayName,
    platform::{ApiVersion, Identifier, Platform, Prefix},
    tls::{CaCertificates, ServerName, Tls},
};
use super::size::{NUMBERS, text};
use crate::{
    catalogue::{Catalogue, Family},
    endpoint::{EndpointUri, Origin},
    names::ModelName,
};

/// A self-hosted model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// Name of the model. It never changes.
    pub name: ModelName,
    /// Configuration of the model.
    pub spec: ModelSpec,
}

/// The configuration of a model, without its name and with only those values that were set.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// The name that users see.
    pub display_name: DisplayName,
    /// The family of the model.
    pub family: &'static Family,
    /// The kind of API of the model's servers.
    pub platform: Platform,
    /// The configured endpoints. Empty: the model uses the endpoint of its platform, see [`Platform::own_endpoint`].
    pub endpoints: Endpoints,
    /// The name by which the servers know the model. `None`: the id of the model.
    pub identifier: Option<Identifier>,
    /// Limits of the calls to the model. Boxed, because they are the largest part and few models have any.
    pub limits: Box<Limits>,
    /// The configured infill mode. [`Self::infill_mode()`] returns the mode that applies.
    pub infill_mode: InfillMode,
    /// How the model's servers are authenticated.
    pub tls: Tls,
    /// Whether the model is excluded from selection.
    pub disabled: bool,
    /// Labels for people.
    pub labels: Labels,
}

// `Family` has an `f64`, but the catalogue contains no NaN.
impl Eq for ModelSpec {}

impl ModelSpec {
    /// Returns the endpoints of the model: the configured ones, or the platform's own endpoint if none are configured.
    #[must_use]
    pub fn servers(&self) -> &[Endpoint] {
        let named = self.endpoints.as_slice();
        match self.platform.own_endpoint() {
            Some(own) if named.is_empty() => std::slice::from_ref(own),
            Some(_) | None => named,
        }
    }

    /// Returns the base URLs of the model's endpoints.
    pub fn uris(&self) -> impl Iterator<Item = &EndpointUri> {
        self.servers().iter().map(|endpoint| &endpoint.uri)
    }

    /// Returns the origins of the model's endpoints.
    #[must_use]
    pub fn origins(&self) -> BTreeSet<Origin> {
        self.uris().map(EndpointUri::origin).collect()
    }

    /// Returns the infill mode that applies on the model's platform.
    #[must_use]
    pub const fn infill_mode(&self) -> InfillMode {
        match self.infill_mode {
            // The platform supports only chat, regardless of the family's default.
            InfillMode::FamilyDefault if self.platform.is_chat_only() => InfillMode::Chat,
            mode => mode,
        }
    }

    /// Returns the name of the model in requests to its servers. `None`: the model has no identifier.
    #[must_use]
    pub fn sent_identifier(&self) -> Option<&str> {
        self.identifier.as_ref().map(Identifier::sent)
    }
}

impl Model {
    /// Returns the maximum size of the stored model in bytes, without the reference to its credential.
    #[must_use]
    pub fn stored_bytes_max(&self) -> usize {
        let ModelSpec {
            display_name,
            family,
            platform,
            endpoints,
            identifier,
            // Numbers, which `NUMBERS` covers.
            limits: _,
            infill_mode: _,
            tls,
            disabled: _,
            labels,
        } = &self.spec;
        let texts = [
            self.name.id(),
            display_name.as_str(),
            &family.machine_name,
            platform.api_version().map_or("", ApiVersion::as_str),
            identifier.as_ref().map_or("", Identifier::as_str),
            tls.ca.as_ref().map_or("", CaCertificates::as_str),
            tls.server_name.as_ref().map_or("", ServerName::as_str),
        ];
        let endpoints = endpoints.as_slice().iter();
        let labels = labels.iter().map(|(key, value)| text(key) + text(value));
        NUMBERS
            + texts.into_iter().map(text).sum::<usize>()
            + endpoints
                .map(|endpoint| NUMBERS + text(endpoint.uri.as_str()) + text(endpoint.zone.as_str()))
                .sum::<usize>()
            + labels.sum::<usize>()
    }
}

/// How a model completes code between a prefix and a suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InfillMode {
    /// The default mode of the model's family.
    #[default]
    FamilyDefault,
    /// A prompt with the family's infill tokens.
    Completions,
    /// The model server's own parameter for the suffix.
    Suffix,
    /// Instructions in a chat.
    Chat,
}

impl InfillMode {
    /// Explains why `family` does not support the mode, and lists the families that do. `None`: the family supports it.
    #[must_use]
    pub fn obstacle(self, family: &Family) -> Option<String> {
        let (can, lack): (fn(&Family) -> bool, _) = match self {
            Self::FamilyDefault | Self::Suffix => return None,
            Self::Completions => (
                |family| family.infill_tokens,
                "has no infill tokens; families that have them:",
            ),
            Self::Chat => (|family| family.chat, "does not support chat; families that do:"),
        };
        if can(family) {
            return None;
        }
        let families = Catalogue::get().families().iter();
        let able: Vec<_> = families
            .filter(|family| can(family))
            .map(|family| family.machine_name.as_str())
            .collect();
        Some(format!("family `{}` {lack} {}", family.machine_name, able.join(", ")))
    }
}
