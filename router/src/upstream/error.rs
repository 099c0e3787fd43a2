//! Why a call to a model server failed. [`super::fault`] defines what each of these errors means.
#![warn(clippy::wildcard_enum_match_arm)]

use std::{error::Error as StdError, fmt, net::IpAddr, time::Duration};

use switchboard::{endpoint::EndpointUri, service::cause::Cause};

use super::{
    connector::DialError,
    dialect::{DialectError, Rejection},
    sse::{self, SseError},
};

/// Why a model server gave no answer, or only part of one.
///
/// No error repeats any text that the server sent. An error displays as one sentence with its cause, and has no source:
/// callers get the sentence, and nobody is shown a chain.
#[derive(Debug)]
pub enum UpstreamError {
    /// The router could not connect to the server.
    Dial(DialError),
    /// The server sent no token within this time, or no answer to a probe or a check.
    FirstTokenTimeout(Duration),
    /// The server sent no event for this time, within its answer.
    IdleTimeout(Duration),
    /// The connection broke before the answer began.
    Disconnected(Cause),
    /// The connection closed before the answer was complete.
    Truncated,
    /// The server failed. Holds the HTTP status, or `None` if the server reported the error without one.
    Server(Option<u16>),
    /// The server is overloaded: it answered with this HTTP status and asks for a pause of this length.
    Busy(u16, Duration),
    /// The server received too many requests. Holds the pause that it asks for, or `None` if it asks for none.
    RateLimited(Option<Duration>),
    /// The server rejected the credential, or the account has no credit. Holds the HTTP status.
    CredentialRejected(u16),
    /// The server does not know the model or the path.
    NotFound,
    /// The server rejected the request.
    Rejected {
        /// The HTTP status.
        status: u16,
        /// What the rejection is about.
        rejection: Rejection,
    },
    /// The server answered with a redirect (this HTTP status), which is never followed.
    Redirected(u16),
    /// The server answered with this HTTP status, which has no meaning for the router.
    UnexpectedStatus(u16),
    /// The answer has another content type than the request asked for.
    UnexpectedContentType,
    /// The answer is malformed.
    Protocol,
    /// The answer is not valid UTF-8.
    InvalidUtf8,
    /// The answer is larger than this many bytes.
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
            | Self::Disconnected(_)
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
            | Self::Disconnected(_)
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

impl UpstreamError {
    /// Displays the error with the server that it is about. `None`: the server is not known, or the reader may not see
    /// it.
    #[must_use]
    pub const fn at<'a>(&'a self, server: Option<&'a ServerLabel>) -> AtServer<'a> {
        AtServer { error: self, server }
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.at(None).fmt(f)
    }
}

impl StdError for UpstreamError {}

/// Displays an error and the server that it is about, as [`UpstreamError::at`] returns it.
#[derive(Debug, Clone, Copy)]
pub struct AtServer<'a> {
    error: &'a UpstreamError,
    server: Option<&'a ServerLabel>,
}

impl fmt::Display for AtServer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use UpstreamError as E;

        let server: &dyn fmt::Display = match &self.server {
            Some(server) => server,
            None => &"the model server",
        };
        match self.error {
            E::Dial(cause) => write!(f, "could not connect to {server}: {cause}"),
            E::FirstTokenTimeout(limit) => write!(f, "{server} sent no answer within {}", Rounded(*limit)),
            E::IdleTimeout(limit) => write!(f, "{server} sent no event for {}", Rounded(*limit)),
            E::Disconnected(cause) => write!(f, "lost the connection to {server} before it answered: {cause}"),
            E::Truncated => write!(f, "the connection to {server} closed before the answer was complete"),
            E::Server(_) => write!(f, "{server} failed to process the request"),
            E::Busy(..) => write!(f, "{server} is overloaded and asks for a pause"),
            E::RateLimited(_) => write!(f, "{server} received too many requests"),
            E::CredentialRejected(_) => write!(f, "{server} rejected the credential"),
            E::NotFound => write!(f, "{server} does not know the model or the path"),
            E::Rejected { .. } => write!(f, "{server} rejected the request"),
            E::Redirected(_) => write!(f, "{server} answered with a redirect, which the router does not follow"),
            E::UnexpectedStatus(_) => write!(f, "{server} answered with an unexpected HTTP status"),
            E::UnexpectedContentType => write!(f, "{server} answered with an unexpected content type"),
            E::Protocol => write!(f, "{server} sent a malformed answer"),
            E::InvalidUtf8 => write!(f, "{server} sent an answer that is not valid UTF-8"),
            E::TooLarge(limit) => write!(f, "{server} sent an answer of more than {limit} bytes"),
        }?;
        match self.error.http_status() {
            Some(status) => write!(f, " (HTTP status {status})"),
            None => Ok(()),
        }
    }
}

/// The name of a server in texts: scheme, host and port, and the address if the host name has several.
///
/// It contains neither path nor query, and its length is bounded, because it is part of the messages of statuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerLabel {
    origin: Box<str>,
    address: Option<IpAddr>,
}

impl ServerLabel {
    /// The maximum number of characters of an origin. The longest host name that can be resolved has 253.
    const ORIGIN_MAX: usize = 280;

    /// Creates the label of a server. `address` is given if the endpoint's host name has several addresses.
    #[must_use]
    pub fn new(endpoint: &EndpointUri, address: Option<IpAddr>) -> Self {
        let origin: String = endpoint.origin().to_string().chars().take(Self::ORIGIN_MAX).collect();
        Self {
            origin: origin.into(),
            address,
        }
    }

    /// Returns scheme, host and port.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }
}

impl fmt::Display for ServerLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)?;
        match self.address {
            Some(address) => write!(f, " ({address})"),
            None => Ok(()),
        }
    }
}

/// Displays a duration without fractions of a millisecond.
pub(super) struct Rounded(pub(super) Duration);

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        write!(f, "{:?}", Duration::from_millis(milliseconds))
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

    #[test]
    fn an_error_names_its_server_and_its_cause_once_each() {
        let endpoint = EndpointUri::parse("https://GPU1:8443/secret-path/v1").unwrap();
        let server = ServerLabel::new(&endpoint, None);
        let (words, second) = (|words| Cause::new(words), Duration::from_secs(1));
        for (error, cause) in [
            (
                UpstreamError::Dial(DialError::Connect(words("connection refused"))),
                "connection refused",
            ),
            (
                UpstreamError::Dial(DialError::TimedOut(2 * second)),
                "timed out after 2s",
            ),
            (
                UpstreamError::Dial(DialError::Untrusted(words("the certificate has expired"))),
                "the certificate has expired",
            ),
            (
                UpstreamError::Disconnected(words("connection reset")),
                "connection reset",
            ),
            (
                UpstreamError::Server(Some(503)),
                "failed to process the request (HTTP status 503)",
            ),
            (UpstreamError::FirstTokenTimeout(second / 3), "no answer within 333ms"),
        ] {
            let shown = error.at(Some(&server)).to_string();
            for part in ["https://gpu1:8443", cause] {
                assert_eq!(shown.matches(part).count(), 1, "{shown}");
            }
            assert!(!shown.contains("secret-path"), "{shown}");
            let hidden = error.to_string();
            assert_eq!(hidden.matches("the model server").count(), 1, "{hidden}");
            assert!(!hidden.contains("gpu1"), "{hidden}");
            assert_eq!(shown.replace("https://gpu1:8443", "the model server"), hidden);
        }
    }

    #[test]
    fn the_label_of_a_server_is_bounded_and_tells_its_addresses_apart() {
        let endpoint = EndpointUri::parse("http://gpu1:8000/v1").unwrap();
        let address = Some([10, 0, 0, 2].into());
        let label = ServerLabel::new(&endpoint, address).to_string();
        assert_eq!(label, "http://gpu1:8000 (10.0.0.2)");
        let endless = EndpointUri::parse(&format!("http://{}:8000", "a".repeat(2_000))).unwrap();
        let label = ServerLabel::new(&endless, None);
        assert_eq!(label.to_string().len(), ServerLabel::ORIGIN_MAX);
    }
}
