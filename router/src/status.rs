//! The router's own errors as they go to callers: the only place that picks a reason.
#![warn(clippy::wildcard_enum_match_arm)]

pub mod upstream;

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
    call::{CallError, CallFailure, Considered, Context, permits::QuotaExceeded},
    catalog::{ResolveError, Unusable},
    upstream::{
        UpstreamError,
        dialect::{Blamed, Rejection},
    },
};

/// When to come back where nothing tells how long it will take.
const RETRY: Duration = Duration::from_secs(1);

impl From<CallFailure> for Failure {
    fn from(CallFailure { error, context, sent }: CallFailure) -> Self {
        let is_partial = sent > 0;
        // Nothing that has begun is repeated, so nothing partial says when to.
        let may_retry = |failure: Self, delay| {
            if is_partial {
                failure
            } else {
                failure.retry_after(delay)
            }
        };
        let message = error.to_string();
        let failure = match error {
            CallError::ConfigNotLoaded => may_retry(Self::new(Reason::ConfigNotLoaded, message), RETRY),
            CallError::Resolve(error) => unresolved(&error, &context),
            CallError::Unusable { model, why, .. } => unusable(why, &model, message),
            CallError::Ejected { reason, pause, .. } => may_retry(Self::new(reason, message), pause),
            CallError::Overloaded { limit, .. } => {
                may_retry(Self::new(Reason::ModelOverloaded, message), RETRY).with(key::LIMIT, limit)
            }
            CallError::QuotaExceeded(QuotaExceeded { feature, limit }) => {
                let failure =
                    Self::new(Reason::QuotaExceeded, message.clone()).with_quota(feature.to_string(), message);
                may_retry(failure, RETRY).with(key::LIMIT, limit)
            }
            CallError::InputNotSupported(_) => {
                let subject = context.model.as_ref().map(ToString::to_string).unwrap_or_default();
                Self::new(Reason::InputNotSupported, message.clone()).with_precondition(subject, message)
            }
            CallError::DeadlineTooShort(_) => Self::new(Reason::DeadlineBudgetTooSmall, message),
            CallError::DeadlinePassed => {
                let stage = if is_partial { "stream" } else { "first_token" };
                Self::new(Reason::DeadlineExceeded, message).with(key::STAGE, stage)
            }
            CallError::CallerGone => Self::new(Reason::CallerCancelled, message),
            CallError::CallerTooSlow(_) => Self::new(Reason::ClientTooSlow, message),
            CallError::Draining => may_retry(Self::new(Reason::ServerDraining, message), RETRY),
            CallError::Upstream(UpstreamError::RateLimited(delay)) => {
                may_retry(Self::new(Reason::UpstreamRateLimited, message), delay.unwrap_or(RETRY))
            }
            CallError::Upstream(UpstreamError::Busy(status, delay)) => {
                let failure = Self::new(Reason::UpstreamServerError, message).with(key::UPSTREAM_STATUS, status);
                may_retry(failure, delay)
            }
            CallError::Upstream(error) => upstream(&error, message, context.input_field),
            CallError::Internal => Self::new(Reason::InternalError, message),
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

/// No model can be selected.
fn unresolved(error: &ResolveError, context: &Context) -> Failure {
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

/// A model that cannot be called.
fn unusable(why: Unusable, model: &ModelName, message: String) -> Failure {
    let off = |reason| Failure::new(reason, message.clone()).with_precondition(model.to_string(), message.clone());
    match why {
        Unusable::Disabled => off(Reason::ModelDisabled),
        Unusable::CredentialMissing => off(Reason::ModelCredentialMissing),
        Unusable::NotReady => Failure::new(Reason::ModelNotReady, message.clone()).retry_after(RETRY),
    }
}

/// The models that were considered, as a detail of our own.
fn candidates(considered: Vec<Considered>) -> Any {
    let candidates = considered.into_iter().map(Into::into).collect();
    Any {
        type_url: "type.googleapis.com/switchboard.router.v1.Candidates".to_owned(),
        value: router::Candidates { candidates }.encode_to_vec(),
    }
}

/// The model server's fault, or its verdict on the request; never the caller's unless the server blames the request.
fn upstream(error: &UpstreamError, message: String, input_field: &'static str) -> Failure {
    let plain = |message| Failure::new(upstream::reason(error), message);
    match error {
        UpstreamError::Dial(error) => plain(error.to_string()),
        UpstreamError::Rejected { status, rejection } => {
            rejected(*rejection, input_field).with(key::UPSTREAM_STATUS, status)
        }
        UpstreamError::Server(Some(status))
        | UpstreamError::CredentialRejected(status)
        | UpstreamError::Redirected(status)
        | UpstreamError::UnexpectedStatus(status) => plain(message).with(key::UPSTREAM_STATUS, status),
        UpstreamError::TooLarge(limit) => plain(message).with(key::LIMIT, limit),
        UpstreamError::FirstTokenTimeout(_)
        | UpstreamError::IdleTimeout(_)
        | UpstreamError::Truncated
        | UpstreamError::Server(None)
        | UpstreamError::Busy(..)
        | UpstreamError::RateLimited(_)
        | UpstreamError::NotFound
        | UpstreamError::UnexpectedContentType
        | UpstreamError::Protocol
        | UpstreamError::InvalidUtf8 => plain(message),
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
