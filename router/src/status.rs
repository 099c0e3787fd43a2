//! Converts the router's errors to gRPC failures: the only module of the router that picks reasons.
#![warn(clippy::wildcard_enum_match_arm)]

use std::time::Duration;

use prost::Message as _;
use prost_types::Any;
use switchboard::{
    failure::Failure,
    names::{FeatureName, ModelName},
    pb::router,
    reason::{FieldReason, Reason, key},
    violation::Violations,
};

use crate::{
    call::{CallContext, CallError, CallFailure, CallRefusal, Considered, Interruption, ServerError},
    catalog::{ResolveError, Unusable},
    permits::QuotaExceeded,
    upstream::{
        UpstreamError,
        dialect::{Blamed, Rejection},
        fault::Evidence,
    },
};

/// Retry delay sent to the caller if nothing says how long the problem will last.
const RETRY: Duration = Duration::from_secs(1);

impl From<CallFailure> for Failure {
    fn from(CallFailure { error, context, sent }: CallFailure) -> Self {
        let is_partial = sent > 0;
        let failure = match &error {
            CallError::Refused(refusal) => refused(refusal, &context),
            CallError::Interrupted(interruption) => interrupted(*interruption, is_partial),
            CallError::Upstream(error) => upstream(error, context.input_field, is_partial),
            CallError::Internal => Self::new(Reason::InternalError, error.to_string()),
        };
        let failure = match context.feature {
            Some(feature) => failure.with(key::FEATURE, feature),
            None => failure,
        };
        let failure = match context.model {
            Some(model) => failure.with(key::MODEL, model),
            None => failure,
        };
        let failure = match context.attempts {
            0 => failure,
            attempts => failure.with(key::ATTEMPTS, attempts),
        };
        if is_partial {
            failure.with(key::PARTIAL, true).with(key::TOKENS_SENT, sent)
        } else if context.considered.is_empty() {
            failure
        } else {
            failure.with_any(candidates(context.considered))
        }
    }
}

/// Failure of a call for which no model server was called.
fn refused(refusal: &CallRefusal, context: &CallContext) -> Failure {
    let message = refusal.to_string();
    match refusal {
        CallRefusal::ConfigNotLoaded => Failure::new(Reason::ConfigNotLoaded, message).retry_after(RETRY),
        CallRefusal::Resolve(error) => unresolved(error, context),
        CallRefusal::Unusable { model, why, .. } => unusable(*why, model, message),
        CallRefusal::Ejected { reason, pause, .. } => Failure::new(*reason, message).retry_after(*pause),
        CallRefusal::Overloaded { limit, .. } => Failure::new(Reason::ModelOverloaded, message)
            .retry_after(RETRY)
            .with(key::LIMIT, limit),
        CallRefusal::QuotaExceeded(QuotaExceeded { feature, limit }) => {
            Failure::new(Reason::QuotaExceeded, message.clone())
                .with_quota(feature.to_string(), message)
                .retry_after(RETRY)
                .with(key::LIMIT, limit)
        }
        CallRefusal::InputNotSupported(_) => {
            let subject = context.model.as_ref().map(ToString::to_string).unwrap_or_default();
            Failure::new(Reason::InputNotSupported, message.clone()).with_precondition(subject, message)
        }
        CallRefusal::DeadlineTooShort(_) => Failure::new(Reason::DeadlineBudgetTooSmall, message),
    }
}

/// Failure of a call that was stopped by something other than the model server.
fn interrupted(interruption: Interruption, is_partial: bool) -> Failure {
    let message = interruption.to_string();
    match interruption {
        Interruption::DeadlinePassed => {
            let stage = if is_partial { "stream" } else { "first_token" };
            Failure::new(Reason::DeadlineExceeded, message).with(key::STAGE, stage)
        }
        Interruption::CallerGone => Failure::new(Reason::CallerCancelled, message),
        Interruption::CallerTooSlow(_) => Failure::new(Reason::ClientTooSlow, message),
        Interruption::Draining => may_retry(Failure::new(Reason::ServerDraining, message), RETRY, is_partial),
    }
}

/// Adds a retry delay, unless part of the answer was already sent: such a call is not worth repeating.
fn may_retry(failure: Failure, delay: Duration, is_partial: bool) -> Failure {
    if is_partial {
        failure
    } else {
        failure.retry_after(delay)
    }
}

/// Failure of a call for which no model can be selected.
fn unresolved(error: &ResolveError, context: &CallContext) -> Failure {
    let message = error.to_string();
    let feature_off = |reason, feature: &FeatureName| {
        Failure::new(reason, message.clone())
            .with_precondition(feature.to_string(), message.clone())
            .with(key::FEATURE, feature)
    };
    match error {
        ResolveError::UnknownFeature { .. } => {
            let mut failure = Failure::new(Reason::FeatureUnknown, message.clone());
            if let Some(revision) = context.revision {
                failure = failure.with(key::REVISION, revision);
            }
            if let Some(age) = context.config_age {
                failure = failure.with(key::CONFIG_AGE, age.as_secs());
            }
            failure
        }
        ResolveError::FeatureDisabled { feature } => feature_off(Reason::FeatureDisabled, feature),
        ResolveError::FeatureUnassigned { feature } => feature_off(Reason::FeatureUnassigned, feature),
        ResolveError::FeatureVendored { feature } => feature_off(Reason::FeatureVendored, feature),
        ResolveError::InferencePaused { feature } => feature_off(Reason::InferencePaused, feature),
    }
}

/// Failure of a call whose model cannot be called.
fn unusable(why: Unusable, model: &ModelName, message: String) -> Failure {
    let off = |reason| Failure::new(reason, message.clone()).with_precondition(model.to_string(), message.clone());
    match why {
        Unusable::Disabled => off(Reason::ModelDisabled),
        Unusable::CredentialMissing => off(Reason::ModelCredentialMissing),
        Unusable::NotReady => Failure::new(Reason::ModelNotReady, message.clone()).retry_after(RETRY),
    }
}

/// Packs the considered models into a status detail of the type `Candidates`.
fn candidates(considered: Vec<Considered>) -> Any {
    let candidates = considered.into_iter().map(Into::into).collect();
    Any {
        type_url: "type.googleapis.com/switchboard.router.v1.Candidates".to_owned(),
        value: router::Candidates { candidates }.encode_to_vec(),
    }
}

/// Failure of a call whose model server failed or rejected the request. Only a rejected request is the caller's fault.
fn upstream(failed: &ServerError, input_field: &'static str, is_partial: bool) -> Failure {
    let error = &failed.error;
    let fault = error.fault();
    let failure = if let UpstreamError::Rejected { rejection, .. } = error {
        rejected(*rejection, input_field)
    } else {
        Failure::new(fault.reason, failed.for_caller().to_string())
    };
    let failure = match failed.server_for_caller() {
        Some(server) => failure.with(key::ENDPOINT, server.origin()),
        None => failure,
    };
    let failure = match error.http_status() {
        Some(status) => failure.with(key::UPSTREAM_STATUS, status),
        None => failure,
    };
    let failure = if let UpstreamError::TooLarge(limit) = error {
        failure.with(key::LIMIT, limit)
    } else {
        failure
    };
    if fault.evidence == Evidence::Busy {
        may_retry(failure, error.pause().unwrap_or(RETRY), is_partial)
    } else {
        failure
    }
}

fn rejected(rejection: Rejection, input_field: &'static str) -> Failure {
    let field = match rejection.blamed {
        Blamed::Input => input_field,
        Blamed::MaxOutputTokens => "options.max_output_tokens",
    };
    let (reason, description) = if rejection.is_too_long {
        (FieldReason::ContextLengthExceeded, "does not fit the model's context")
    } else {
        (
            FieldReason::UpstreamRejectedRequest,
            "is not accepted by the model server",
        )
    };
    let mut violations = Violations::new();
    violations.push(field, reason, description);
    Failure::invalid(&violations)
}

#[cfg(test)]
mod tests {
    use switchboard::{catalogue::Catalogue, endpoint::EndpointUri, service::cause::Cause};
    use tonic::Status;
    use tonic_types::StatusExt as _;

    use super::*;
    use crate::{
        call::Outcome,
        upstream::{ServerLabel, connector::DialError},
    };

    fn refused(server: Option<ServerLabel>) -> CallError {
        let error = UpstreamError::Dial(DialError::Connect(Cause::new("connection refused")));
        CallError::Upstream(ServerError { error, server })
    }

    fn endpoint(status: &Status) -> Option<String> {
        let details = status.get_error_details();
        details.error_info()?.metadata.get(key::ENDPOINT).cloned()
    }

    #[test]
    fn a_status_names_the_server_only_if_its_caller_may_see_it() {
        let uri = EndpointUri::parse("http://gpu1:8000/v1").unwrap();
        let label = ServerLabel::new(&uri, Some([10, 0, 0, 2].into()));
        let status = |server| {
            Status::from(Failure::from(CallFailure::at_once(
                refused(server),
                CallContext::new(""),
            )))
        };
        let shown = status(Some(label));
        let message = "could not connect to http://gpu1:8000 (10.0.0.2): connection refused";
        assert_eq!(
            (shown.message(), endpoint(&shown).as_deref()),
            (message, Some("http://gpu1:8000"))
        );
        let hidden = status(None);
        let message = "could not connect to the model server: connection refused";
        assert_eq!((hidden.message(), endpoint(&hidden)), (message, None));
    }

    #[test]
    fn a_status_fits_into_a_header_however_long_the_endpoints_are() {
        let uri = EndpointUri::parse(&format!("http://{}:8000/v1", "a".repeat(2_000))).unwrap();
        let error = || refused(Some(ServerLabel::new(&uri, None)));
        let model = ModelName::from_id("m").unwrap();
        let considered = (0..3).map(|_attempt| Considered {
            model: model.clone(),
            source_feature: &Catalogue::get().features()[0].name,
            rule: None,
            outcome: Outcome::from(&error()),
        });
        let context = CallContext {
            considered: considered.collect(),
            ..CallContext::new("")
        };
        let status = Status::from(Failure::from(CallFailure::at_once(error(), context)));
        assert!(status.message().len() < 350, "{}", status.message());
        assert!(status.details().len() < 2048, "{}", status.details().len());
    }
}
