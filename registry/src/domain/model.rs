//! A self-hosted model as it was registered, in parts that are valid once they exist.

mod endpoints;
mod labels;
mod limits;
mod platform;
mod tls;

use std::collections::BTreeSet;

use switchboard::{
    catalogue::{Catalogue, Family},
    endpoint::{EndpointUri, Origin},
    names::ModelName,
    reason::FieldReason,
};

pub use self::{
    endpoints::{Endpoint, Endpoints, Weight, Zone},
    labels::Labels,
    limits::{Count, Limits, Positive, Timeout},
    platform::{ApiVersion, Identifier, Platform, Prefix},
    tls::{CaCertificates, ServerName, Tls},
};
use super::{
    credential::Credential,
    size::{NUMBERS, text},
};

/// A self-hosted model: only what somebody has set.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Its name; it never changes.
    pub name: ModelName,
    /// The name that people see.
    pub display_name: DisplayName,
    /// What kind of model it is.
    pub family: &'static Family,
    /// The kind of API that its servers speak.
    pub platform: Platform,
    /// The version of the platform's API, for platforms that want one.
    pub api_version: Option<ApiVersion>,
    /// Where it is served. None: where the platform itself is.
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

impl Model {
    /// The base URLs of its servers: those that it names, else the platform's own.
    pub fn uris(&self) -> impl Iterator<Item = &EndpointUri> {
        let named = self.endpoints.as_slice();
        let own = self.platform.own_endpoint().filter(|_| named.is_empty());
        named.iter().map(|endpoint| &endpoint.uri).chain(own)
    }

    /// The origins of its servers.
    #[must_use]
    pub fn origins(&self) -> BTreeSet<Origin> {
        self.uris().map(EndpointUri::origin).collect()
    }

    /// The most bytes that it can take when it is stored, credential reference included.
    #[must_use]
    pub fn stored_bytes_max(&self, credential: &Credential) -> usize {
        let endpoints = self.endpoints.as_slice().iter();
        let origins = match credential {
            Credential::Set(set) => set.origins.iter().map(|origin| text(&origin.to_string())).sum(),
            Credential::None | Credential::Dropped => 0,
        };
        let texts = [
            self.name.id(),
            self.display_name.as_str(),
            &self.family.machine_name,
            self.api_version.as_ref().map_or("", ApiVersion::as_str),
            self.identifier.as_ref().map_or("", Identifier::as_str),
            self.tls.ca.as_ref().map_or("", CaCertificates::as_str),
            self.tls.server_name.as_ref().map_or("", ServerName::as_str),
        ];
        let labels = self.labels.iter().map(|(key, value)| text(key) + text(value));
        NUMBERS
            + texts.into_iter().map(text).sum::<usize>()
            + endpoints
                .map(|endpoint| NUMBERS + text(endpoint.uri.as_str()) + text(endpoint.zone.as_str()))
                .sum::<usize>()
            + labels.sum::<usize>()
            + origins
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

/// Why a text or a list cannot be a part of a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelPartError {
    /// The display name has nothing but blanks.
    #[error("must not be blank")]
    DisplayNameBlank,
    /// The display name is too long.
    #[error("must have at most {} characters", DisplayName::LENGTH_MAX)]
    DisplayNameTooLong,
    /// The API version is too long.
    #[error("must have at most {} characters", ApiVersion::LENGTH_MAX)]
    ApiVersionTooLong,
    /// The API version has other characters than versions have.
    #[error("must have letters, digits, hyphens and dots only, for example `2024-10-21`")]
    ApiVersionMalformed,
    /// The identifier is too long.
    #[error("must have at most {} characters", Identifier::LENGTH_MAX)]
    IdentifierTooLong,
    /// The identifier is a prefix and nothing else.
    #[error("must have a name behind `{prefix}`")]
    IdentifierNameless {
        /// The prefix, slash included.
        prefix: &'static str,
    },
    /// The weight is out of range.
    #[error("must be 0 to {}", Weight::MAX)]
    WeightOutOfRange,
    /// The zone is too long.
    #[error("must have at most {} characters", Zone::LENGTH_MAX)]
    ZoneTooLong,
    /// The zone has a control character.
    #[error("must have no control characters")]
    ZoneMalformed,
    /// The list is too long.
    #[error("must have at most {} entries", Endpoints::COUNT_MAX)]
    EndpointCount,
    /// The server of this entry stands in the list before.
    #[error("names a server that is already in the list")]
    EndpointRepeated {
        /// The entry, from 0.
        index: usize,
    },
    /// Every weight is 0.
    #[error("must have an entry with a weight above 0; set `disabled` to take the whole model out")]
    EndpointsAllDrained,
    /// The count is out of range.
    #[error("must be {}", range(*min, *max))]
    CountOutOfRange {
        /// The smallest that it may be.
        min: i32,
        /// The largest that it may be.
        max: i32,
    },
    /// The span is out of range.
    #[error("must be above 0 s and at most {max_seconds} s")]
    TimeoutOutOfRange {
        /// The longest that it may be.
        max_seconds: u64,
    },
    /// The certificates are too long.
    #[error("must have at most {} bytes", CaCertificates::LENGTH_MAX)]
    CaTooLong,
    /// There is no certificate in the text.
    #[error("must have at least one certificate in PEM, `-----BEGIN CERTIFICATE-----`")]
    CaNone,
    /// A block is no certificate inside, or not PEM.
    #[error("has a block that is no readable certificate: the {number}. from the top")]
    CaMalformed {
        /// Which block, from 1.
        number: usize,
    },
    /// A block is something else, perhaps a private key.
    #[error("must have certificates only, but its {number}. block is something else")]
    CaForeign {
        /// Which block, from 1.
        number: usize,
    },
    /// The name cannot be that of a certificate.
    #[error("must be a DNS name or an IP address, without scheme and port")]
    ServerNameMalformed,
    /// There are too many labels.
    #[error("must have at most {} entries", Labels::COUNT_MAX)]
    LabelCount,
    /// A label's key is empty or too long.
    #[error("must have keys of 1 to {} characters, unlike `{shown}`", Labels::KEY_LENGTH_MAX)]
    LabelKeyLength {
        /// The beginning of the key.
        shown: Box<str>,
    },
    /// A label's value is too long.
    #[error(
        "must have values of at most {} characters, unlike that of `{key}`",
        Labels::VALUE_LENGTH_MAX
    )]
    LabelValueLength {
        /// The key.
        key: Box<str>,
    },
}

fn range(min: i32, max: i32) -> String {
    if max == i32::MAX {
        format!("at least {min}")
    } else {
        format!("{min} to {max}")
    }
}

impl ModelPartError {
    /// The reason that a violation with this error has.
    #[must_use]
    pub const fn reason(&self) -> FieldReason {
        match self {
            Self::DisplayNameBlank => FieldReason::FieldRequired,
            Self::DisplayNameTooLong => FieldReason::NameTooLong,
            Self::ApiVersionTooLong
            | Self::IdentifierTooLong
            | Self::ZoneTooLong
            | Self::WeightOutOfRange
            | Self::EndpointCount
            | Self::EndpointsAllDrained
            | Self::CountOutOfRange { .. }
            | Self::TimeoutOutOfRange { .. }
            | Self::CaTooLong
            | Self::LabelCount
            | Self::LabelKeyLength { .. }
            | Self::LabelValueLength { .. } => FieldReason::ValueOutOfRange,
            Self::ApiVersionMalformed
            | Self::IdentifierNameless { .. }
            | Self::ZoneMalformed
            | Self::ServerNameMalformed => FieldReason::ValueMalformed,
            Self::EndpointRepeated { .. } => FieldReason::ValueRepeated,
            Self::CaNone | Self::CaMalformed { .. } | Self::CaForeign { .. } => FieldReason::CertificateMalformed,
        }
    }
}

/// The name that people see, as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisplayName {
    given: Box<str>,
    /// What makes it the same name to people. Kept: every write compares it with all models' names.
    folded: Box<str>,
}

impl DisplayName {
    /// The most characters that it may have.
    pub const LENGTH_MAX: usize = 255;

    /// Parses 1 to [`Self::LENGTH_MAX`] characters, one of them not a blank.
    ///
    /// # Errors
    ///
    /// [`ModelPartError`] with the cause.
    pub fn parse(text: &str) -> Result<Self, ModelPartError> {
        if text.trim().is_empty() {
            return Err(ModelPartError::DisplayNameBlank);
        }
        if text.chars().count() > Self::LENGTH_MAX {
            return Err(ModelPartError::DisplayNameTooLong);
        }
        Ok(Self {
            given: text.into(),
            folded: text.trim().to_lowercase().into(),
        })
    }

    /// The text as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.given
    }

    /// What makes it the same name to people: blanks around it and case do not count.
    #[must_use]
    pub fn folded(&self) -> &str {
        &self.folded
    }

    /// Whether both are the same name to people: blanks around it and case do not count.
    #[must_use]
    pub fn is_taken_by(&self, other: &Self) -> bool {
        self.folded == other.folded
    }

    /// The id that follows from the name, before it is known whether it is free: lower case, one hyphen for each run of
    /// other characters, at most 63 characters; `model` when nothing is left.
    ///
    /// ```
    /// use switchboard_registry::domain::model::DisplayName;
    /// assert_eq!(DisplayName::parse("Mistral 7B (GPU 1)")?.to_id(), "mistral-7b-gpu-1");
    /// assert_eq!(DisplayName::parse("模型")?.to_id(), "model");
    /// # Ok::<(), switchboard_registry::domain::model::ModelPartError>(())
    /// ```
    #[must_use]
    pub fn to_id(&self) -> String {
        let mut id = String::new();
        for letter in self.folded.chars() {
            if letter.is_ascii_lowercase() || letter.is_ascii_digit() {
                id.push(letter);
            } else if !id.is_empty() && !id.ends_with('-') {
                id.push('-');
            }
        }
        id.truncate(63);
        let id = id.trim_end_matches('-');
        if id.is_empty() { "model" } else { id }.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_follows_from_the_display_name() {
        let long = "Long ".repeat(30);
        for (text, id) in [
            ("Mistral", "mistral"),
            ("  Mistral  7B!", "mistral-7b"),
            ("a - b", "a-b"),
            ("---", "model"),
            ("Ünïcode", "n-code"),
            (
                long.as_str(),
                "long-long-long-long-long-long-long-long-long-long-long-long-lon",
            ),
        ] {
            assert_eq!(DisplayName::parse(text).unwrap().to_id(), id, "{text}");
        }
        let cut_at_a_hyphen = format!("{} x", "a".repeat(62));
        assert_eq!(DisplayName::parse(&cut_at_a_hyphen).unwrap().to_id(), "a".repeat(62));
    }

    #[test]
    fn display_names_are_the_same_without_regard_to_case_and_blanks() {
        let name = |text| DisplayName::parse(text).unwrap();
        assert!(name(" MISTRAL ").is_taken_by(&name("Mistral")));
        assert!(!name("Mistral 2").is_taken_by(&name("Mistral")));
        assert_eq!(DisplayName::parse(" \t"), Err(ModelPartError::DisplayNameBlank));
        assert!(DisplayName::parse(&"ä".repeat(255)).is_ok());
        assert_eq!(
            DisplayName::parse(&"a".repeat(256)),
            Err(ModelPartError::DisplayNameTooLong)
        );
    }
}
