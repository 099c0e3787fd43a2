//! Why a value cannot be a part of a model.

use super::{ApiVersion, CaCertificates, DisplayName, Endpoints, Identifier, Labels, Weight, Zone};
use crate::reason::FieldReason;

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
