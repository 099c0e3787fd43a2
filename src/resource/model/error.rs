//! The error for an invalid part of a model.

use super::{ApiVersion, CaCertificates, DisplayName, Endpoints, Identifier, Labels, Weight, Zone};
use crate::reason::FieldReason;

/// Why a value is not a valid part of a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelPartError {
    /// The display name is empty or consists of white space only.
    #[error("must not be blank")]
    DisplayNameBlank,
    /// The display name is too long.
    #[error("must have at most {} characters", DisplayName::LENGTH_MAX)]
    DisplayNameTooLong,
    /// The API version is too long.
    #[error("must have at most {} characters", ApiVersion::LENGTH_MAX)]
    ApiVersionTooLong,
    /// The API version contains characters other than ASCII letters, digits, hyphens and dots.
    #[error("must contain only letters, digits, hyphens and dots, for example `2024-10-21`")]
    ApiVersionMalformed,
    /// The identifier is too long.
    #[error("must have at most {} characters", Identifier::LENGTH_MAX)]
    IdentifierTooLong,
    /// The identifier consists of a platform prefix only.
    #[error("must have a name after `{prefix}`")]
    IdentifierNameless {
        /// The prefix, with its slash.
        prefix: &'static str,
    },
    /// The weight is out of range.
    #[error("must be 0 to {}", Weight::MAX)]
    WeightOutOfRange,
    /// The zone is too long.
    #[error("must have at most {} characters", Zone::LENGTH_MAX)]
    ZoneTooLong,
    /// The zone contains a control character.
    #[error("must not contain control characters")]
    ZoneMalformed,
    /// There are too many endpoints.
    #[error("must have at most {} entries", Endpoints::COUNT_MAX)]
    EndpointCount,
    /// An earlier entry of the list names the same server.
    #[error("names a server that is already in the list")]
    EndpointRepeated {
        /// The index of the later entry, from 0.
        index: usize,
    },
    /// All endpoints have the weight 0.
    #[error("must have an entry with a weight above 0; to take the whole model out of use, set `disabled`")]
    EndpointsAllDrained,
    /// The count is out of range.
    #[error("must be {}", range(*min, *max))]
    CountOutOfRange {
        /// The minimum.
        min: i32,
        /// The maximum.
        max: i32,
    },
    /// The timeout is out of range.
    #[error("must be above 0 s and at most {max_seconds} s")]
    TimeoutOutOfRange {
        /// The maximum, in seconds.
        max_seconds: u64,
    },
    /// The certificates are too long.
    #[error("must have at most {} bytes", CaCertificates::LENGTH_MAX)]
    CaTooLong,
    /// The text contains no certificate.
    #[error("must contain at least one certificate in PEM format (`-----BEGIN CERTIFICATE-----`)")]
    CaNone,
    /// A PEM block is malformed or does not contain a readable certificate.
    #[error("must contain only readable certificates, but PEM block {number} is not readable")]
    CaMalformed {
        /// The number of the block, from 1.
        number: usize,
    },
    /// A PEM block is not a certificate; it may be a private key.
    #[error("must contain only certificates, but PEM block {number} is not a certificate")]
    CaForeign {
        /// The number of the block, from 1.
        number: usize,
    },
    /// The server name is neither a DNS name nor an IP address.
    #[error("must be a DNS name or an IP address, without scheme and port")]
    ServerNameMalformed,
    /// There are too many labels.
    #[error("must have at most {} entries", Labels::COUNT_MAX)]
    LabelCount,
    /// A label's key is empty or too long.
    #[error(
        "must have keys of 1 to {} characters, but has the key `{shown}`",
        Labels::KEY_LENGTH_MAX
    )]
    LabelKeyLength {
        /// The key, cut to the maximum length.
        shown: Box<str>,
    },
    /// A label's value is too long.
    #[error(
        "must have values of at most {} characters, but the value of `{key}` is longer",
        Labels::VALUE_LENGTH_MAX
    )]
    LabelValueLength {
        /// The key of the label.
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
    /// Returns the reason of a violation with this error.
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
