//! Defines what each fault of a model server means: one table for calls, metrics, statuses, checks and probes.
//!
//! A row holds everything that depends on the kind of the fault. To change what a fault means, edit its row; a new
//! variant of [`UpstreamError`] does not compile without one. The one hard idea: the router repeats a call only before
//! its first token, so `repeat` says what may follow an attempt that failed before that. Pure.
#![warn(clippy::wildcard_enum_match_arm)]

use switchboard::reason::Reason;
pub use switchboard::stream::Culprit;

use super::{UpstreamError, connector::DialError, metrics::AttemptOutcome};
use crate::endpoints::Verdict;

/// A row of the table: what a fault of a model server means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamFault {
    /// The reason that callers and administrators get.
    pub reason: Reason,
    /// What the fault says about the health of the server.
    pub evidence: Evidence,
    /// Whether and where the call may be repeated.
    pub repeat: Repeat,
    /// Where the problem lies, assuming that the request itself is valid, as the request of a check is.
    pub culprit: Culprit,
    /// The outcome that metrics and traces record for the attempt.
    pub outcome: AttemptOutcome,
    /// What an administrator can do about it.
    pub remedy: &'static str,
}

/// What a fault says about the health of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// The server could not be reached. A few of these in a row take the server out.
    Unreachable,
    /// The server was reached but failed. A high rate of these takes the server out.
    Failed,
    /// The server asks for less load. The caller learns when to repeat the call.
    Busy,
    /// The configuration must be changed.
    Misconfigured,
    /// Nothing, because the server behaved correctly.
    Nothing,
}

/// Whether and where a call may be repeated that failed before its first token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// On another server of the model, or on another model if no other server is left.
    Elsewhere(RepeatCost),
    /// On the same model if it gets a newer credential, otherwise on another model: every server of this model would
    /// reject the credential. Free. Holds the HTTP status of the rejection.
    WithNewerCredential(u16),
    /// Nowhere, because another server would give the same answer.
    Never,
}

/// The cost of repeating a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepeatCost {
    /// Nothing, because the request was never sent and no server did any work for it.
    Free,
    /// One repeat from the retry budget of the model that the call was resolved to.
    Budget,
}

impl UpstreamError {
    /// Returns the row of the table for this error.
    #[must_use]
    pub const fn fault(&self) -> UpstreamFault {
        use Repeat::{Elsewhere, Never, WithNewerCredential};
        use RepeatCost::{Budget, Free};

        match self {
            Self::Dial(DialError::Dns(_)) => UpstreamFault {
                reason: Reason::UpstreamDnsFailed,
                evidence: Evidence::Unreachable,
                repeat: Elsewhere(Free),
                culprit: Culprit::Network,
                outcome: AttemptOutcome::Unreachable,
                remedy: "check the host name in `endpoint`, and that the router's DNS server can resolve it",
            },
            Self::Dial(DialError::Connect(_)) => UpstreamFault {
                reason: Reason::UpstreamConnectFailed,
                evidence: Evidence::Unreachable,
                repeat: Elsewhere(Free),
                culprit: Culprit::Network,
                outcome: AttemptOutcome::Unreachable,
                remedy: "check that the model server is running and listening at this address, and that no firewall \
                         blocks the connection",
            },
            Self::Dial(DialError::TimedOut(_)) => UpstreamFault {
                reason: Reason::UpstreamConnectFailed,
                evidence: Evidence::Unreachable,
                repeat: Elsewhere(Free),
                culprit: Culprit::Network,
                outcome: AttemptOutcome::Unreachable,
                remedy: "check that the host is running and that the router can reach it; `limits.connect_timeout` \
                         may be too short",
            },
            Self::Dial(DialError::Handshake(_)) => UpstreamFault {
                reason: Reason::UpstreamTlsHandshakeFailed,
                evidence: Evidence::Unreachable,
                repeat: Elsewhere(Free),
                culprit: Culprit::ModelServer,
                outcome: AttemptOutcome::Unreachable,
                remedy: "check that the server uses TLS 1.2 or newer on this port; begin `endpoint` with `http://` \
                         if the server does not use TLS",
            },
            Self::Dial(DialError::Untrusted(_)) => UpstreamFault {
                reason: Reason::UpstreamTlsUntrusted,
                evidence: Evidence::Misconfigured,
                repeat: Elsewhere(Free),
                culprit: Culprit::Configuration,
                outcome: AttemptOutcome::Unreachable,
                remedy: "give the certificate authority as `tls.ca_pem`, and `tls.server_name` if the \
                         certificate was issued for another name",
            },
            Self::FirstTokenTimeout(_) => UpstreamFault {
                reason: Reason::UpstreamFirstByteTimeout,
                evidence: Evidence::Failed,
                repeat: Elsewhere(Budget),
                culprit: Culprit::ModelServer,
                outcome: AttemptOutcome::TimedOut,
                remedy: "check that the model is loaded and the server is not overloaded, or allow the check more time",
            },
            Self::IdleTimeout(_) => UpstreamFault {
                reason: Reason::UpstreamIdleTimeout,
                evidence: Evidence::Failed,
                repeat: Elsewhere(Budget),
                culprit: Culprit::ModelServer,
                outcome: AttemptOutcome::TimedOut,
                remedy: "check that the model is loaded and the server is not overloaded, or allow the check more time",
            },
            Self::Disconnected(_) | Self::Truncated => UpstreamFault {
                reason: Reason::UpstreamStreamTruncated,
                evidence: Evidence::Failed,
                repeat: Elsewhere(Budget),
                culprit: Culprit::ModelServer,
                outcome: AttemptOutcome::Truncated,
                remedy: "find out from the server's log why it closes connections; a port that serves another \
                         protocol closes them too",
            },
            Self::Server(_) => UpstreamFault {
                reason: Reason::UpstreamServerError,
                evidence: Evidence::Failed,
                repeat: Elsewhere(Budget),
                culprit: Culprit::ModelServer,
                outcome: AttemptOutcome::Failed,
                remedy: "look at the server's log; a server that has just started may still be loading the model",
            },
            Self::Busy(..) => UpstreamFault {
                reason: Reason::UpstreamServerError,
                evidence: Evidence::Busy,
                repeat: Elsewhere(Budget),
                culprit: Culprit::ModelServer,
                outcome: AttemptOutcome::Failed,
                remedy: "look at the server's log; a server that has just started may still be loading the model",
            },
            Self::RateLimited(_) => UpstreamFault {
                reason: Reason::UpstreamRateLimited,
                evidence: Evidence::Busy,
                repeat: Elsewhere(Budget),
                culprit: Culprit::ModelServer,
                outcome: AttemptOutcome::Failed,
                remedy: "check again in a moment; if the error persists, raise the server's limit or lower \
                         `limits.max_concurrency`",
            },
            Self::CredentialRejected(status) => UpstreamFault {
                reason: Reason::UpstreamCredentialRejected,
                evidence: Evidence::Misconfigured,
                repeat: WithNewerCredential(*status),
                culprit: Culprit::Credential,
                outcome: AttemptOutcome::Refused,
                remedy: "set `api_token` to the API token that the server expects",
            },
            Self::NotFound => UpstreamFault {
                reason: Reason::UpstreamModelNotFound,
                evidence: Evidence::Misconfigured,
                repeat: Elsewhere(Budget),
                culprit: Culprit::Configuration,
                outcome: AttemptOutcome::Refused,
                remedy: "check `identifier` and the path of `endpoint`: the server does not know one of them",
            },
            Self::Rejected { .. } => UpstreamFault {
                reason: Reason::UpstreamRejectedRequest,
                evidence: Evidence::Nothing,
                repeat: Never,
                culprit: Culprit::ModelServer,
                outcome: AttemptOutcome::Refused,
                remedy: "find out from the server's log what it does not accept; the model may have the wrong \
                         `family`",
            },
            Self::Redirected(_) => UpstreamFault {
                reason: Reason::UpstreamRedirectRefused,
                evidence: Evidence::Misconfigured,
                repeat: Elsewhere(Budget),
                culprit: Culprit::Configuration,
                outcome: AttemptOutcome::Malformed,
                remedy: "set `endpoint` to the address that the server redirects to: redirects are not followed",
            },
            Self::UnexpectedContentType => UpstreamFault {
                reason: Reason::UpstreamUnexpectedContentType,
                evidence: Evidence::Misconfigured,
                repeat: Elsewhere(Budget),
                culprit: Culprit::Configuration,
                outcome: AttemptOutcome::Malformed,
                remedy: "check that `endpoint` is the base URL of an API of the model's platform, and not a web page \
                         or a proxy",
            },
            Self::UnexpectedStatus(_) => UpstreamFault {
                reason: Reason::UpstreamProtocolError,
                evidence: Evidence::Failed,
                repeat: Elsewhere(Budget),
                culprit: Culprit::Configuration,
                outcome: AttemptOutcome::Malformed,
                remedy: "check that `endpoint` is the base URL of an API of the model's platform, and not a web page \
                         or a proxy",
            },
            Self::Protocol => UpstreamFault {
                reason: Reason::UpstreamProtocolError,
                evidence: Evidence::Failed,
                repeat: Elsewhere(Budget),
                culprit: Culprit::ModelServer,
                outcome: AttemptOutcome::Malformed,
                remedy: "check that the server implements the API of the model's platform; a newer release of the \
                         server may help",
            },
            Self::InvalidUtf8 => UpstreamFault {
                reason: Reason::UpstreamInvalidUtf8,
                evidence: Evidence::Failed,
                repeat: Elsewhere(Budget),
                culprit: Culprit::ModelServer,
                outcome: AttemptOutcome::Malformed,
                remedy: "check that the server implements the API of the model's platform; a newer release of the \
                         server may help",
            },
            Self::TooLarge(_) => UpstreamFault {
                reason: Reason::UpstreamResponseTooLarge,
                evidence: Evidence::Failed,
                repeat: Elsewhere(Budget),
                culprit: Culprit::ModelServer,
                outcome: AttemptOutcome::Malformed,
                remedy: "check that the server implements the API of the model's platform; a newer release of the \
                         server may help",
            },
        }
    }

    /// Returns the verdict on the server that matches the row. `None`: the fault says nothing about the server.
    #[must_use]
    pub const fn verdict(&self) -> Option<Verdict> {
        let UpstreamFault { reason, evidence, .. } = self.fault();
        match evidence {
            Evidence::Unreachable => Some(Verdict::Hard(reason)),
            Evidence::Failed => Some(Verdict::Soft(reason)),
            Evidence::Busy => Some(Verdict::Busy(reason, self.pause())),
            Evidence::Misconfigured => Some(Verdict::Misconfigured(reason)),
            Evidence::Nothing => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use switchboard::reason::Reason;

    use super::*;
    use crate::upstream::dialect::{Blamed, Rejection};

    #[test]
    fn faults_of_the_server_of_its_configuration_and_of_the_caller_give_different_verdicts() {
        let rejection = Rejection {
            blamed: Blamed::Input,
            is_too_long: false,
            names_usage: false,
        };
        let second = Duration::from_secs(1);
        let rows = [
            (
                UpstreamError::Truncated,
                Some(Verdict::Soft(Reason::UpstreamStreamTruncated)),
            ),
            (
                UpstreamError::Server(Some(503)),
                Some(Verdict::Soft(Reason::UpstreamServerError)),
            ),
            (
                UpstreamError::IdleTimeout(second),
                Some(Verdict::Soft(Reason::UpstreamIdleTimeout)),
            ),
            (
                UpstreamError::Protocol,
                Some(Verdict::Soft(Reason::UpstreamProtocolError)),
            ),
            (
                UpstreamError::CredentialRejected(401),
                Some(Verdict::Misconfigured(Reason::UpstreamCredentialRejected)),
            ),
            (
                UpstreamError::NotFound,
                Some(Verdict::Misconfigured(Reason::UpstreamModelNotFound)),
            ),
            (
                UpstreamError::Redirected(302),
                Some(Verdict::Misconfigured(Reason::UpstreamRedirectRefused)),
            ),
            (
                UpstreamError::UnexpectedContentType,
                Some(Verdict::Misconfigured(Reason::UpstreamUnexpectedContentType)),
            ),
            (
                UpstreamError::RateLimited(None),
                Some(Verdict::Busy(Reason::UpstreamRateLimited, None)),
            ),
            (
                UpstreamError::Busy(503, second),
                Some(Verdict::Busy(Reason::UpstreamServerError, Some(second))),
            ),
            (UpstreamError::Rejected { status: 400, rejection }, None),
        ];
        for (error, expected) in rows {
            assert_eq!(error.verdict(), expected, "{error:?}");
        }
    }
}
