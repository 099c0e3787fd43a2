//! A self-hosted model as it was registered, in parts that are valid once they exist.

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
    /// Its name; it never changes.
    pub name: ModelName,
    /// What it is.
    pub spec: ModelSpec,
}

/// What a model is, but for its name: only what somebody has set.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// The name that people see.
    pub display_name: DisplayName,
    /// What kind of model it is.
    pub family: &'static Family,
    /// The kind of API that its servers speak.
    pub platform: Platform,
    /// The servers that it names. None: it is served where the platform itself is.
    pub endpoints: Endpoints,
    /// The name by which its servers know it. `None`: the id.
    pub identifier: Option<Identifier>,
    /// Limits of the calls to it. Boxed, as they are the largest part and few models have any.
    pub limits: Box<Limits>,
    /// How it completes code between a prefix and a suffix.
    pub infill_mode: InfillMode,
    /// How its servers prove who they are.
    pub tls: Tls,
    /// Taken out of selection.
    pub disabled: bool,
    /// What people have written on it.
    pub labels: Labels,
}

// `Family` holds no number that is not equal to itself.
impl Eq for ModelSpec {}

impl ModelSpec {
    /// Its servers: those that it names, else the platform's own.
    #[must_use]
    pub fn servers(&self) -> &[Endpoint] {
        let named = self.endpoints.as_slice();
        match self.platform.own_endpoint() {
            Some(own) if named.is_empty() => std::slice::from_ref(own),
            Some(_) | None => named,
        }
    }

    /// The base URLs of its servers.
    pub fn uris(&self) -> impl Iterator<Item = &EndpointUri> {
        self.servers().iter().map(|endpoint| &endpoint.uri)
    }

    /// The origins of its servers.
    #[must_use]
    pub fn origins(&self) -> BTreeSet<Origin> {
        self.uris().map(EndpointUri::origin).collect()
    }

    /// How it completes code, as far as its platform leaves a choice.
    #[must_use]
    pub const fn infill_mode(&self) -> InfillMode {
        match self.infill_mode {
            // There are only chats, whatever the family does elsewhere.
            InfillMode::FamilyDefault if self.platform.is_chat_only() => InfillMode::Chat,
            mode => mode,
        }
    }

    /// The name that is sent to its servers. `None`: none was given.
    #[must_use]
    pub fn sent_identifier(&self) -> Option<&str> {
        self.identifier.as_ref().map(Identifier::sent)
    }
}

impl Model {
    /// The most bytes that it can take when it is stored, less the reference to its credential.
    #[must_use]
    pub fn stored_bytes_max(&self) -> usize {
        let ModelSpec {
            display_name,
            family,
            platform,
            endpoints,
            identifier,
            // Numbers.
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
    /// As its family does it.
    #[default]
    FamilyDefault,
    /// With the family's infill tokens.
    Completions,
    /// With the server's own parameter for the suffix.
    Suffix,
    /// With instructions in a chat.
    Chat,
}

impl InfillMode {
    /// Why a family cannot do it, with the families that can. `None`: it can.
    #[must_use]
    pub fn obstacle(self, family: &Family) -> Option<String> {
        let (can, lack): (fn(&Family) -> bool, _) = match self {
            Self::FamilyDefault | Self::Suffix => return None,
            Self::Completions => (
                |family| family.infill_tokens,
                "has no infill tokens; families that have them:",
            ),
            Self::Chat => (|family| family.chat, "takes no chat; families that do:"),
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
