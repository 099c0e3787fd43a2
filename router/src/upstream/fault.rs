//! What each fault of a model server means: one table for calls, metrics, statuses, checks and probes.
//!
//! A row says everything that depends on the kind of the fault. To change what a fault means, edit its row; a new variant of
//! [`UpstreamError`] does not compile without one. The one hard idea: the router repeats a call only before its first token,
//! so `repeat` says what may follow an attempt that has failed until then. Pure.
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
    /// Where the problem lies if the request is good, as that of a check is.
    pub culprit: Culprit,
    /// How metrics and traces count the attempt.
    pub outcome: AttemptOutcome,
    /// What an administrator can do about it.
    pub remedy: &'static str,
}

/// What a fault says about the health of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// The server could not be reached: a few of these in a row take it out.
    Unreachable,
    /// The server was reached and failed: the rate of these takes it out.
    Failed,
    /// The server asks for less load. The caller is told when to repeat the call.
    Busy,
    /// Somebody has to change the configuration.
    Misconfigured,
    /// Nothing: the server answered as it should.
    Nothing,
}

/// Whether and where a call may be repeated that failed before its first token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// On another server of the model, then on another model.
    Elsewhere(RepeatCost),
    /// On the same model once it has a newer credential, else on another model: every server of this model would refuse the
    /// credential. Free. Holds the HTTP status of the refusal.
    WithNewerCredential(u16),
    /// Nowhere: another server would answer the same.
    Never,
}

/// What it costs to repeat a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RepeatCost {
    /// Nothing: the request was never written, so no server did any work for it.
    Free,
    /// One repeat from the retry budget of the model that the call was resolved to.
    Budget,
}

impl UpstreamError {
    /// The row of the table for this error.
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
                remedy: "check the host in `endpoint`, and that the router's name service knows it",
            },
            Self::Dial(DialError::Connect(_)) => UpstreamFault {
                reason: Reason::UpstreamConnectFailed,
                evidence: Evidence::Unreachable,
                repeat: Elsewhere(Free),
                culprit: Culprit::Network,
                outcome: AttemptOutcome::Unreachable,
                remedy: "see whether the model server runs and listens there, and whether a firewall stands between",
            },
            Self::Dial(DialError::TimedOut(_)) => UpstreamFault {
                reason: Reason::UpstreamConnectFailed,
                evidence: Evidence::Unreachable,
                repeat: Elsewhere(Free),
                culprit: Culprit::Network,
                outcome: AttemptOutcome::Unreachable,
                remedy: "see whether the host is up and reachable from the router; `limits.connect_timeout` may \
                         be too short",
            },
            Self::Dial(DialError::Handshake(_)) => UpstreamFault {
                reason: Reason::UpstreamTlsHandshakeFailed,
                evidence: Evidence::Unreachable,
                repeat: Elsewhere(Free),
                culprit: Culprit::ModelServer,
                outcome: AttemptOutcome::Unreachable,
                remedy: "see whether the server speaks TLS 1.2 or newer on this port; write `http://` if it \
                         speaks none",
            },
            Self::Dial(DialError::Untrusted(_)) => UpstreamFault {
                reason: Reason::UpstreamTlsUntrusted,
                evidence: Evidence::Misconfigured,
                repeat: Elsewhere(Free),
                culprit: Culprit::Configuration,
                outcome: AttemptOutcome::Unreachable,
                remedy: "give the certificate authority as `tls.ca_pem`, and `tls.server_name` if the \
                         certificate bears another name",
            },
            Self::FirstTokenTimeout(_) => UpstreamFault {
                reason: Reason::UpstreamFirstByteTimeout,
                evidence: Evidence::Failed,
                repeat: Elsewhere(Budget),
                culprit: Culprit::ModelServer,
                outcome: AttemptOutcome::TimedOut,
                remedy: "see whether the model is loaded and how busy the server is, or allow the check more time",
            },
            Self::IdleTimeout(_) => UpstreamFault {
                reason: Reason::UpstreamIdleTimeout,
                evidence: Evidence::Failed,
                repeat: Elsewhere(Budget),
                culprit: Culprit::ModelServer,
                outcome: AttemptOutcome::TimedOut,
                remedy: "see whether the model is loaded and how busy the server is, or allow the check more time",
            },
            Self::Truncated => UpstreamFault {
                reason: Reason::UpstreamStreamTruncated,
                evidence: Evidence::Failed,
                repeat: Elsewhere(Budget),
                culprit: Culprit::ModelServer,
                outcome: AttemptOutcome::Truncated,
                remedy: "look into the server's log for why it closes connections; a port that speaks something \
                         else does so too",
            },
            Self::Server(_) => UpstreamFault {
                reason: Reason::UpstreamServerError,
                evidence: Evidence::Failed,
                repeat: Elsewhere(Budget),
                culprit: Culprit::ModelServer,
                outcome: AttemptOutcome::Failed,
                remedy: "look into the server's log; a server that has just started may still be loading the model",
            },
            Self::Busy(..) => UpstreamFault {
                reason: Reason::UpstreamServerError,
                evidence: Evidence::Busy,
                repeat: Elsewhere(Budget),
                culprit: Culprit::ModelServer,
                outcome: AttemptOutcome::Failed,
                remedy: "look into the server's log; a server that has just started may still be loading the model",
            },
            Self::RateLimited(_) => UpstreamFault {
                reason: Reason::UpstreamRateLimited,
                evidence: Evidence::Busy,
                repeat: Elsewhere(Budget),
                culprit: Culprit::ModelServer,
                outcome: AttemptOutcome::Failed,
                remedy: "check again in a moment; if it lasts, raise the server's limit or lower \
                         `limits.max_concurrency`",
            },
            Self::CredentialRejected(status) => UpstreamFault {
                reason: Reason::UpstreamCredentialRejected,
                evidence: Evidence::Misconfigured,
                repeat: WithNewerCredential(*status),
                culprit: Culprit::Credential,
                outcome: AttemptOutcome::Refused,
                remedy: "give the API token that the server expects as `api_token`",
            },
            Self::NotFound => UpstreamFault {
                reason: Reason::UpstreamModelNotFound,
                evidence: Evidence::Misconfigured,
                repeat: Elsewhere(Budget),
                culprit: Culprit::Configuration,
                outcome: AttemptOutcome::Refused,
                remedy: "check the path of `endpoint` and `identifier`: the server does not know one of them",
            },
            Self::Rejected { .. } => UpstreamFault {
                reason: Reason::UpstreamRejectedRequest,
                evidence: Evidence::Nothing,
                repeat: Never,
                culprit: Culprit::ModelServer,
                outcome: AttemptOutcome::Refused,
                remedy: "look into the server's log for what it does not accept; the family may be the wrong \
                         one for this model",
            },
            Self::Redirected(_) => UpstreamFault {
                reason: Reason::UpstreamRedirectRefused,
                evidence: Evidence::Misconfigured,
                repeat: Elsewhere(Budget),
                culprit: Culprit::Configuration,
                outcome: AttemptOutcome::Malformed,
                remedy: "give the address that the server redirects to as `endpoint`: redirects are not followed",
            },
            Self::UnexpectedContentType => UpstreamFault {
                reason: Reason::UpstreamUnexpectedContentType,
                evidence: Evidence::Misconfigured,
                repeat: Elsewhere(Budget),
                culprit: Culprit::Configuration,
                outcome: AttemptOutcome::Malformed,
                remedy: "check that `endpoint` is the base of an API of the model's platform, and not a page or \
                         a proxy",
            },
            Self::UnexpectedStatus(_) => UpstreamFault {
                reason: Reason::UpstreamProtocolError,
                evidence: Evidence::Failed,
                repeat: Elsewhere(Budget),
                culprit: Culprit::Configuration,
                outcome: AttemptOutcome::Malformed,
                remedy: "check that `endpoint` is the base of an API of the model's platform, and not a page or \
                         a proxy",
            },
            Self::Protocol => UpstreamFault {
                reason: Reason::UpstreamProtocolError,
                evidence: Evidence::Failed,
                repeat: Elsewhere(Budget),
                culprit: Culprit::ModelServer,
                outcome: AttemptOutcome::Malformed,
                remedy: "check that the server speaks the API of the model's platform; a newer release of it \
                         may help",
            },
            Self::InvalidUtf8 => UpstreamFault {
                reason: Reason::UpstreamInvalidUtf8,
                evidence: Evidence::Failed,
                repeat: Elsewhere(Budget),
                culprit: Culprit::ModelServer,
                outcome: AttemptOutcome::Malformed,
                remedy: "check that the server speaks the API of the model's platform; a newer release of it \
                         may help",
            },
            Self::TooLarge(_) => UpstreamFault {
                reason: Reason::UpstreamResponseTooLarge,
                evidence: Evidence::Failed,
                repeat: Elsewhere(Budget),
                culprit: Culprit::ModelServer,
                outcome: AttemptOutcome::Malformed,
                remedy: "check that the server speaks the API of the model's platform; a newer release of it \
                         may help",
            },
        }
    }

    /// The verdict on the server that fits the row. `None`: the fault says nothing about the server.
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
    fn a_failure_of_the_server_is_told_from_one_of_its_settings_and_from_the_callers() {
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
