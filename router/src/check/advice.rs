//! Whose problem a failed step is, and what to do about it. Pure.
#![warn(clippy::wildcard_enum_match_arm)]

use switchboard::reason::Reason;

use super::{Fault, Problem, models::Models};
use crate::{
    status,
    upstream::{UpstreamError, connector::DialError, model_list::ModelList},
};

/// A model server has failed a step. `has_token`: a token went along, or there is one.
pub(super) fn upstream(error: &UpstreamError, has_token: bool) -> Problem {
    let (fault, remedy) = match error {
        UpstreamError::Dial(DialError::Dns(_)) => (
            Fault::Network,
            "check the host in `endpoint`, and that the router's name service knows it",
        ),
        UpstreamError::Dial(DialError::Connect(_)) => (
            Fault::Network,
            "see whether the model server runs and listens there, and whether a firewall stands between",
        ),
        UpstreamError::Dial(DialError::TimedOut(_)) => (
            Fault::Network,
            "see whether the host is up and reachable from the router; `limits.connect_timeout` may be too short",
        ),
        UpstreamError::Dial(DialError::Untrusted(_)) => (
            Fault::Configuration,
            "give the certificate authority as `tls.ca_pem`, and `tls.server_name` if the certificate bears another name",
        ),
        UpstreamError::Dial(DialError::Handshake(_)) => (
            Fault::ModelServer,
            "see whether the server speaks TLS 1.2 or newer on this port; write `http://` if it speaks none",
        ),
        UpstreamError::FirstTokenTimeout(_) | UpstreamError::IdleTimeout(_) => (
            Fault::ModelServer,
            "see whether the model is loaded and how busy the server is, or allow the check more time",
        ),
        UpstreamError::Truncated => (
            Fault::ModelServer,
            "look into the server's log for why it closes connections; a port that speaks something else does so too",
        ),
        UpstreamError::Server(_) | UpstreamError::Busy(..) => (
            Fault::ModelServer,
            "look into the server's log; a server that has just started may still be loading the model",
        ),
        UpstreamError::RateLimited(_) => (
            Fault::ModelServer,
            "check again in a moment; if it lasts, raise the server's limit or lower `limits.max_concurrency`",
        ),
        UpstreamError::CredentialRejected(_) if has_token => (
            Fault::Credential,
            "give the API token that the server expects as `api_token`",
        ),
        UpstreamError::CredentialRejected(_) => (
            Fault::Credential,
            "the server wants an API token: give it as `api_token`",
        ),
        UpstreamError::NotFound => (
            Fault::Configuration,
            "check the path of `endpoint` and `identifier`: the server does not know one of them",
        ),
        UpstreamError::Rejected { .. } => (
            Fault::ModelServer,
            "look into the server's log for what it does not accept; the family may be the wrong one for this model",
        ),
        UpstreamError::Redirected(_) => (
            Fault::Configuration,
            "give the address that the server redirects to as `endpoint`: redirects are not followed",
        ),
        UpstreamError::UnexpectedStatus(_) | UpstreamError::UnexpectedContentType => (
            Fault::Configuration,
            "check that `endpoint` is the base of an API of the model's platform, and not a page or a proxy",
        ),
        UpstreamError::Protocol | UpstreamError::InvalidUtf8 | UpstreamError::TooLarge(_) => (
            Fault::ModelServer,
            "check that the server speaks the API of the model's platform; a newer release of it may help",
        ),
    };
    let status = match error {
        UpstreamError::Server(Some(status))
        | UpstreamError::Busy(status, _)
        | UpstreamError::CredentialRejected(status)
        | UpstreamError::Rejected { status, .. }
        | UpstreamError::Redirected(status)
        | UpstreamError::UnexpectedStatus(status) => format!(" (HTTP status {status})"),
        UpstreamError::Dial(_)
        | UpstreamError::FirstTokenTimeout(_)
        | UpstreamError::IdleTimeout(_)
        | UpstreamError::Truncated
        | UpstreamError::Server(None)
        | UpstreamError::RateLimited(_)
        | UpstreamError::NotFound
        | UpstreamError::UnexpectedContentType
        | UpstreamError::Protocol
        | UpstreamError::InvalidUtf8
        | UpstreamError::TooLarge(_) => String::new(),
    };
    let message = if let UpstreamError::Dial(error) = error {
        dialled(error)
    } else if let UpstreamError::FirstTokenTimeout(limit) = error {
        format!("no answer came within {limit:.1?}")
    } else {
        format!("{error}{status}")
    };
    Problem {
        fault,
        reason: status::upstream::reason(error),
        message,
        remedy: remedy.into(),
    }
}

fn dialled(error: &DialError) -> String {
    match error {
        DialError::Dns(_) => "the server's name cannot be resolved".to_owned(),
        DialError::Connect(_) => "nothing answers at this address".to_owned(),
        DialError::TimedOut(_) | DialError::Untrusted(_) | DialError::Handshake(_) => error.to_string(),
    }
}

/// There is a token, but not for this server.
pub(super) fn dropped() -> Problem {
    Problem {
        fault: Fault::Credential,
        reason: Reason::ModelCredentialMissing,
        message: "the model's API token is bound to other servers: it was not sent, and calls would fail".to_owned(),
        remedy: "give `api_token` again together with the new endpoint, or `\"\"` if the server wants none".into(),
    }
}

/// The server does not know the name that was asked for.
pub(super) fn unknown_model(identifier: &str, models: &Models) -> Problem {
    let known = match models {
        Models::Listed(listed, _) if !listed.is_empty() && !listed.has(identifier) => {
            format!("; it has {}", listed.shown())
        }
        Models::Listed(..) | Models::Unlisted => String::new(),
    };
    Problem {
        fault: Fault::Configuration,
        reason: Reason::UpstreamModelNotFound,
        message: format!("the server does not know the model `{identifier}`, or not the path of the call{known}"),
        remedy: "give `identifier` as the server spells it, and check the path of `endpoint`".into(),
    }
}

/// Nobody says which of the server's models it is.
pub(super) fn several_models(listed: &ModelList) -> Problem {
    let message = if listed.is_empty() {
        "the server lists no model".to_owned()
    } else {
        format!(
            "the model has no `identifier`, and the server has several models: {}",
            listed.shown()
        )
    };
    Problem {
        fault: Fault::Configuration,
        reason: Reason::UpstreamModelNotFound,
        message,
        remedy: "give `identifier` as the server spells it".into(),
    }
}

/// Nobody says what the model is called, and the server has no list.
pub(super) fn no_identifier() -> Problem {
    Problem {
        fault: Fault::Configuration,
        reason: Reason::UpstreamModelNotFound,
        message: "the model has no `identifier` and no name yet, and the server has no list of its models".to_owned(),
        remedy: "give `identifier` as the server spells it".into(),
    }
}

/// A mistake of this program.
pub(super) fn internal() -> Problem {
    Problem {
        fault: Fault::Switchboard,
        reason: Reason::InternalError,
        message: "a mistake of the router's own".to_owned(),
        remedy: "report it, with the router's release".into(),
    }
}
