//! What the end of an attempt says: of the server, and of where the call may go better. Pure.
#![warn(clippy::wildcard_enum_match_arm)]

use super::CallError;
use crate::{
    endpoints::Verdict,
    status::upstream::reason,
    upstream::{UpstreamError, connector::DialError},
};

/// The verdict on the server that an attempt went to. `None`: it says nothing, since it ended for another cause.
pub(super) fn verdict(is_hurried: bool, error: Option<&CallError>) -> Option<Verdict> {
    match error {
        None => Some(Verdict::Answered),
        // The caller's deadline, or what is left for others, did not give it the time that its model allows.
        Some(CallError::Upstream(UpstreamError::FirstTokenTimeout(_))) if is_hurried => Some(Verdict::Late),
        Some(CallError::Upstream(error)) => of_failure(error),
        Some(
            CallError::ConfigNotLoaded
            | CallError::Resolve(_)
            | CallError::Unusable { .. }
            | CallError::Ejected { .. }
            | CallError::Overloaded { .. }
            | CallError::QuotaExceeded(_)
            | CallError::InputNotSupported(_)
            | CallError::DeadlineTooShort(_)
            | CallError::DeadlinePassed
            | CallError::CallerGone
            | CallError::CallerTooSlow(_)
            | CallError::Draining
            | CallError::Internal,
        ) => None,
    }
}

const fn of_failure(error: &UpstreamError) -> Option<Verdict> {
    let reason = reason(error);
    match error {
        UpstreamError::Dial(
            DialError::Dns(_) | DialError::Connect(_) | DialError::TimedOut(_) | DialError::Handshake(_),
        ) => Some(Verdict::Hard(reason)),
        UpstreamError::FirstTokenTimeout(_)
        | UpstreamError::IdleTimeout(_)
        | UpstreamError::Truncated
        | UpstreamError::Server(_)
        | UpstreamError::UnexpectedStatus(_)
        | UpstreamError::Protocol
        | UpstreamError::InvalidUtf8
        | UpstreamError::TooLarge(_) => Some(Verdict::Soft(reason)),
        UpstreamError::Dial(DialError::Untrusted(_))
        | UpstreamError::CredentialRejected(_)
        | UpstreamError::NotFound
        | UpstreamError::Redirected(_)
        | UpstreamError::UnexpectedContentType => Some(Verdict::Misconfigured(reason)),
        UpstreamError::RateLimited(pause) => Some(Verdict::Busy(reason, *pause)),
        UpstreamError::Busy(_, pause) => Some(Verdict::Busy(reason, Some(*pause))),
        // Its verdict on the request.
        UpstreamError::Rejected { .. } => None,
    }
}

/// Where a call that failed before its first token may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// On another server of the model, then on another model.
    Elsewhere,
    /// On the same model once it has a newer credential, else on another: every server of this one would say the same.
    WithNewerCredential(u16),
    /// Nowhere: it is not the server's fault, or not for us to repeat.
    Nowhere,
}

/// Where a call may go better is decided by whose fault it is.
pub(super) const fn repeat(error: &CallError) -> Repeat {
    let CallError::Upstream(error) = error else {
        return Repeat::Nowhere;
    };
    match error {
        UpstreamError::Dial(
            DialError::Dns(_)
            | DialError::Connect(_)
            | DialError::TimedOut(_)
            | DialError::Handshake(_)
            | DialError::Untrusted(_),
        )
        | UpstreamError::FirstTokenTimeout(_)
        | UpstreamError::IdleTimeout(_)
        | UpstreamError::Truncated
        | UpstreamError::Server(_)
        | UpstreamError::Busy(..)
        | UpstreamError::RateLimited(_)
        | UpstreamError::NotFound
        | UpstreamError::Redirected(_)
        | UpstreamError::UnexpectedStatus(_)
        | UpstreamError::UnexpectedContentType
        | UpstreamError::Protocol
        | UpstreamError::InvalidUtf8
        | UpstreamError::TooLarge(_) => Repeat::Elsewhere,
        UpstreamError::CredentialRejected(status) => Repeat::WithNewerCredential(*status),
        UpstreamError::Rejected { .. } => Repeat::Nowhere,
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
            assert_eq!(of_failure(&error), expected, "{error:?}");
        }
    }
}
