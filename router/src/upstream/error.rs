//! Why a call to a model server failed. [`super::fault`] defines what each of these errors means.
#![warn(clippy::wildcard_enum_match_arm)]

use std::time::Duration;

use super::{
    connector::DialError,
    dialect::{DialectError, Rejection},
    sse::{self, SseError},
};

/// Why a model server gave no answer, or only part of one. No error repeats any text that the server sent.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The router could not connect to the server.
    #[error(transparent)]
    Dial(DialError),
    /// The server sent no token within this time, or no answer to a probe or a check.
    #[error("the model server sent no token within {0:?}")]
    FirstTokenTimeout(Duration),
    /// The server sent no event for this time, within its answer.
    #[error("the model server sent no event for {0:?}")]
    IdleTimeout(Duration),
    /// The connection closed before the answer was complete.
    #[error("the connection to the model server closed before the answer was complete")]
    Truncated,
    /// The server failed. Holds the HTTP status, or `None` if the server reported the error without one.
    #[error("the model server failed to process the request")]
    Server(Option<u16>),
    /// The server is overloaded: it answered with this HTTP status and asks for a pause of this length.
    #[error("the model server is overloaded and asks for a pause")]
    Busy(u16, Duration),
    /// The server received too many requests. Holds the pause that it asks for, or `None` if it asks for none.
    #[error("the model server received too many requests")]
    RateLimited(Option<Duration>),
    /// The server rejected the credential, or the account has no credit. Holds the HTTP status.
    #[error("the model server rejected the credential")]
    CredentialRejected(u16),
    /// The server does not know the model or the path.
    #[error("the model server does not know the model or the path")]
    NotFound,
    /// The server rejected the request.
    #[error("the model server rejected the request")]
    Rejected {
        /// The HTTP status.
        status: u16,
        /// What the rejection is about.
        rejection: Rejection,
    },
    /// The server answered with a redirect (this HTTP status), which is never followed.
    #[error("the model server answered with a redirect, which the router does not follow")]
    Redirected(u16),
    /// The server answered with this HTTP status, which has no meaning for the router.
    #[error("the model server answered with an unexpected HTTP status")]
    UnexpectedStatus(u16),
    /// The answer has another content type than the request asked for.
    #[error("the model server answered with an unexpected content type")]
    UnexpectedContentType,
    /// The answer is malformed.
    #[error("the model server's answer is malformed")]
    Protocol,
    /// The answer is not valid UTF-8.
    #[error("the model server's answer is not valid UTF-8")]
    InvalidUtf8,
    /// The answer is larger than this many bytes.
    #[error("the model server's answer is larger than {0} bytes")]
    TooLarge(usize),
}

impl UpstreamError {
    /// Returns the HTTP status of the server's response, if the error is about one. `None` for 404 and 429 as well,
    /// because their variants stand for exactly one status.
    #[must_use]
    pub const fn http_status(&self) -> Option<u16> {
        match self {
            Self::Server(status) => *status,
            Self::Busy(status, _)
            | Self::CredentialRejected(status)
            | Self::Rejected { status, .. }
            | Self::Redirected(status)
            | Self::UnexpectedStatus(status) => Some(*status),
            Self::Dial(_)
            | Self::FirstTokenTimeout(_)
            | Self::IdleTimeout(_)
            | Self::Truncated
            | Self::RateLimited(_)
            | Self::NotFound
            | Self::UnexpectedContentType
            | Self::Protocol
            | Self::InvalidUtf8
            | Self::TooLarge(_) => None,
        }
    }

    /// Whether the server itself reported the error, as opposed to an answer that broke off or cannot be decoded.
    #[must_use]
    pub const fn is_reported(&self) -> bool {
        match self {
            Self::Server(_)
            | Self::Busy(..)
            | Self::RateLimited(_)
            | Self::CredentialRejected(_)
            | Self::NotFound
            | Self::Rejected { .. }
            | Self::Redirected(_)
            | Self::UnexpectedStatus(_) => true,
            Self::Dial(_)
            | Self::FirstTokenTimeout(_)
            | Self::IdleTimeout(_)
            | Self::Truncated
            | Self::UnexpectedContentType
            | Self::Protocol
            | Self::InvalidUtf8
            | Self::TooLarge(_) => false,
        }
    }

    /// Returns the pause that the server asks for. `None`: it asks for none.
    #[must_use]
    pub const fn pause(&self) -> Option<Duration> {
        if let Self::Busy(_, pause) | Self::RateLimited(Some(pause)) = self {
            Some(*pause)
        } else {
            None
        }
    }
}

impl From<SseError> for UpstreamError {
    fn from(error: SseError) -> Self {
        match error {
            SseError::TooLarge => Self::TooLarge(sse::EVENT_BYTES_MAX),
        }
    }
}

impl From<DialectError> for UpstreamError {
    fn from(error: DialectError) -> Self {
        match error {
            DialectError::Malformed => Self::Protocol,
            DialectError::InvalidUtf8 => Self::InvalidUtf8,
            DialectError::Reported { status, rejection } => match status {
                Some(status @ (400 | 413 | 422)) => Self::Rejected { status, rejection },
                Some(status @ (401..=403)) => Self::CredentialRejected(status),
                Some(404) => Self::NotFound,
                Some(429) => Self::RateLimited(None),
                status => Self::Server(status),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_inside_the_stream_is_treated_like_the_same_http_status() {
        let reported = |status| {
            UpstreamError::from(DialectError::Reported {
                status,
                rejection: Rejection::read(b""),
            })
        };
        assert!(matches!(reported(None), UpstreamError::Server(None)));
        assert!(matches!(reported(Some(503)), UpstreamError::Server(Some(503))));
        assert!(matches!(reported(Some(429)), UpstreamError::RateLimited(None)));
        assert!(matches!(reported(Some(401)), UpstreamError::CredentialRejected(401)));
        assert!(matches!(reported(Some(402)), UpstreamError::CredentialRejected(402)));
        assert!(matches!(reported(Some(404)), UpstreamError::NotFound));
        assert!(matches!(
            reported(Some(422)),
            UpstreamError::Rejected { status: 422, .. }
        ));
    }
}
