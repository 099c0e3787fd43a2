//! Explains failed steps: where the problem lies, and what to do about it. Pure.

use switchboard::{endpoint::EndpointUri, reason::Reason};

use super::{Problem, models::Models};
use crate::upstream::{
    ServerLabel, UpstreamError,
    fault::{Culprit, UpstreamFault},
    model_list::ModelList,
};

/// Explains an error of the model server at `endpoint`. `has_token`: the model has an API token, whether or not it was
/// sent.
pub(super) fn upstream(error: &UpstreamError, endpoint: &EndpointUri, has_token: bool) -> Problem {
    let UpstreamFault {
        reason,
        culprit,
        remedy,
        ..
    } = error.fault();
    let remedy = if culprit == Culprit::Credential && !has_token {
        "the server requires an API token: set `api_token`"
    } else {
        remedy
    };
    Problem {
        culprit,
        reason,
        message: error.at(Some(&ServerLabel::new(endpoint, None))).to_string(),
        remedy: remedy.into(),
    }
}

/// The model has an API token, but it may not be sent to this server.
pub(super) fn dropped() -> Problem {
    Problem {
        culprit: Culprit::Credential,
        reason: Reason::ModelCredentialMissing,
        message: "the model's API token is bound to other servers: it was not sent, and calls would fail".to_owned(),
        remedy: "set `api_token` again together with the new endpoint, or to `\"\"` if the server requires none".into(),
    }
}

/// The server does not know the model under the identifier that was sent.
pub(super) fn unknown_model(identifier: &str, models: &Models) -> Problem {
    let known = match models {
        Models::Listed(listed, _) if !listed.is_empty() && !listed.has(identifier) => {
            format!("; it lists {}", listed.shown())
        }
        Models::Listed(..) | Models::Unlisted => String::new(),
    };
    Problem {
        culprit: Culprit::Configuration,
        reason: Reason::UpstreamModelNotFound,
        message: format!("the server does not know the model `{identifier}` or the path of the call{known}"),
        remedy: "set `identifier` exactly as the server spells it, and check the path of `endpoint`".into(),
    }
}

/// The model has no identifier, and the server's list does not show which of the server's models it is.
pub(super) fn several_models(listed: &ModelList) -> Problem {
    let message = if listed.is_empty() {
        "the server lists no models".to_owned()
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
        remedy: "set `identifier` exactly as the server spells it".into(),
    }
}

/// The model has neither an identifier nor a name, and the server has no model list.
pub(super) fn no_identifier() -> Problem {
    Problem {
        culprit: Culprit::Configuration,
        reason: Reason::UpstreamModelNotFound,
        message: "the model has no `identifier` and no name yet, and the server has no list of its models".to_owned(),
        remedy: "set `identifier` exactly as the server spells it".into(),
    }
}

/// Internal error in the router.
pub(super) fn internal() -> Problem {
    Problem {
        culprit: Culprit::Switchboard,
        reason: Reason::InternalError,
        message: "internal error in the router".to_owned(),
        remedy: "report this error, with the router's version".into(),
    }
}
