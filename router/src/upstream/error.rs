//! Why a model server gave no answer. What each of these errors means is in [`super::fault`].
#![warn(clippy::wildcard_enum_match_arm)]

use std::time::Duration;

use super::{
    connector::DialError,
    dialect::{DialectError, Rejection},
    sse::{self, SseError},
};

/// Why a model server gave no answer, or no whole one. Repeats nothing of what it sent.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// It could not be dialled.
    #[error(transparent)]
    Dial(DialError),
    /// It took longer than this to the first token.
    #[error("no token came within {0:?}")]
    FirstTokenTimeout(Duration),
    /// It was silent for longer than this within its answer.
    #[error("no event came for {0:?}")]
    IdleTimeout(Duration),
    /// The connection ended before the answer did.
    #[error("the connection ended before the answer did")]
    Truncated,
    /// It failed, with this HTTP status if it told one.
    #[error("the model server failed")]
    Server(Option<u16>),
    /// It cannot answer now (this HTTP status), and asks to be left alone for this long.
    #[error("the model server failed and asks to be left alone for a while")]
    Busy(u16, Duration),
    /// It has too much to do, and asks to be left alone for this long.
    #[error("the model server has too much to do")]
    RateLimited(Option<Duration>),
    /// It does not accept the credential, or nobody has paid for it.
    #[error("the model server does not accept the credential")]
    CredentialRejected(u16),
    /// It does not know the model, or the path.
    #[error("the model server does not know the model or the path")]
    NotFound,
    /// It does not accept the request.
    #[error("the model server does not accept the request")]
    Rejected {
        /// The HTTP status.
        status: u16,
        /// What it is about.
        rejection: Rejection,
    },
    /// It answered with a redirect, which is never followed.
    #[error("the model server answers with a redirect, which is not followed")]
    Redirected(u16),
    /// It answered with this HTTP status, which says nothing that is known here.
    #[error("the model server answers with an unexpected HTTP status")]
    UnexpectedStatus(u16),
    /// What it sent is of another kind than was asked for.
    #[error("the model server answers with another content type than was asked for")]
    UnexpectedContentType,
    /// What it sent is malformed.
    #[error("the model server's answer is malformed")]
    Protocol,
    /// What it sent is not UTF-8.
    #[error("the model server's answer is not UTF-8")]
    InvalidUtf8,
    /// What it sent is larger than this many bytes.
    #[error("the model server's answer is larger than {0} bytes")]
    TooLarge(usize),
}

impl UpstreamError {
    /// The HTTP status of the server's response, if the error is about one. `None` for a 404 and a 429: their variants say
    /// it all.
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

    /// How long the server asks to be left alone. `None`: it did not ask.
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
            SseError::InvalidUtf8 => Self::InvalidUtf8,
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
    fn an_error_within_the_stream_means_what_the_same_status_would() {
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
