//! The reasons that go with what model servers do.
#![warn(clippy::wildcard_enum_match_arm)]

use switchboard::reason::Reason;

use crate::upstream::{UpstreamError, connector::DialError};

/// The reason that goes with what a model server did.
#[must_use]
pub const fn reason(error: &UpstreamError) -> Reason {
    match error {
        UpstreamError::Dial(DialError::Dns(_)) => Reason::UpstreamDnsFailed,
        UpstreamError::Dial(DialError::Connect(_) | DialError::TimedOut(_)) => Reason::UpstreamConnectFailed,
        UpstreamError::Dial(DialError::Untrusted(_)) => Reason::UpstreamTlsUntrusted,
        UpstreamError::Dial(DialError::Handshake(_)) => Reason::UpstreamTlsHandshakeFailed,
        UpstreamError::FirstTokenTimeout(_) => Reason::UpstreamFirstByteTimeout,
        UpstreamError::IdleTimeout(_) => Reason::UpstreamIdleTimeout,
        UpstreamError::Truncated => Reason::UpstreamStreamTruncated,
        UpstreamError::Server(_) | UpstreamError::Busy(..) => Reason::UpstreamServerError,
        UpstreamError::RateLimited(_) => Reason::UpstreamRateLimited,
        UpstreamError::CredentialRejected(_) => Reason::UpstreamCredentialRejected,
        UpstreamError::NotFound => Reason::UpstreamModelNotFound,
        UpstreamError::Rejected { .. } => Reason::UpstreamRejectedRequest,
        UpstreamError::Redirected(_) => Reason::UpstreamRedirectRefused,
        UpstreamError::UnexpectedContentType => Reason::UpstreamUnexpectedContentType,
        UpstreamError::UnexpectedStatus(_) | UpstreamError::Protocol => Reason::UpstreamProtocolError,
        UpstreamError::InvalidUtf8 => Reason::UpstreamInvalidUtf8,
        UpstreamError::TooLarge(_) => Reason::UpstreamResponseTooLarge,
    }
}
