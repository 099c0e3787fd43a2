//! Whose problem a failed step is, and what to do about it. Pure.

use switchboard::reason::Reason;

use super::{Problem, models::Models};
use crate::upstream::{
    UpstreamError,
    connector::DialError,
    fault::{Culprit, UpstreamFault},
    model_list::ModelList,
};

/// A model server has failed a step. `has_token`: a token was sent, or there is one.
pub(super) fn upstream(error: &UpstreamError, has_token: bool) -> Problem {
    let UpstreamFault {
        reason,
        culprit,
        remedy,
        ..
    } = error.fault();
    let remedy = if culprit == Culprit::Credential && !has_token {
        "the server wants an API token: give it as `api_token`"
    } else {
        remedy
    };
    Problem {
        culprit,
        reason,
        message: message(error),
        remedy: remedy.into(),
    }
}

fn message(error: &UpstreamError) -> String {
    if let UpstreamError::Dial(DialError::Dns(_)) = error {
        "the server's name cannot be resolved".to_owned()
    } else if let UpstreamError::Dial(DialError::Connect(_)) = error {
        "nothing answers at this address".to_owned()
    } else if let UpstreamError::FirstTokenTimeout(limit) = error {
        format!("no answer came within {limit:.1?}")
    } else if let Some(status) = error.http_status() {
        format!("{error} (HTTP status {status})")
    } else {
        error.to_string()
    }
}

/// There is a token, but not for this server.
pub(super) fn dropped() -> Problem {
    Problem {
        culprit: Culprit::Credential,
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
        culprit: Culprit::Configuration,
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
        culprit: Culprit::Configuration,
        reason: Reason::UpstreamModelNotFound,
        message,
        remedy: "give `identifier` as the server spells it".into(),
    }
}

/// Nobody says what the model is called, and the server has no list.
pub(super) fn no_identifier() -> Problem {
    Problem {
        culprit: Culprit::Configuration,
        reason: Reason::UpstreamModelNotFound,
        message: "the model has no `identifier` and no name yet, and the server has no list of its models".to_owned(),
        remedy: "give `identifier` as the server spells it".into(),
    }
}

/// A mistake of this program.
pub(super) fn internal() -> Problem {
    Problem {
        culprit: Culprit::Switchboard,
        reason: Reason::InternalError,
        message: "a mistake of the router's own".to_owned(),
        remedy: "report it, with the router's release".into(),
    }
}
