//! Why a call failed, and all that its caller is told of it.

use std::time::Duration;

use switchboard::{
    names::{FeatureName, ModelName, Revision},
    reason::Reason,
};

use super::{deadline, permits::QuotaExceeded};
use crate::{
    catalog::{Candidate, ResolveError, RuleId, Unusable},
    prompt::InputNotSupported,
    relay::RelayError,
    upstream::{UpstreamError, dialect::EncodeError, metrics::AttemptOutcome},
};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The router has no configuration yet.
    #[error("the router has no configuration yet")]
    ConfigNotLoaded,
    /// No model is even considered.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A model cannot be called.
    #[error("`{model}`, which answers `{feature}`, {}", unusable(*why))]
    Unusable {
        /// The feature that was asked for.
        feature: &'static FeatureName,
        /// The model.
        model: ModelName,
        /// Why it cannot be called.
        why: Unusable,
    },
    /// A model's servers take no calls for now.
    #[error("`{model}` takes no calls for now: its servers fail, or ask for less load")]
    Ejected {
        /// The model.
        model: ModelName,
        /// Why the last call of them failed.
        reason: Reason,
        /// When it may be worth another call.
        pause: Duration,
    },
    /// A model has no place for another call.
    #[error("`{model}` has as many calls as it may, and no place came free in time")]
    Overloaded {
        /// The model.
        model: ModelName,
        /// How many calls it may have.
        limit: usize,
    },
    /// The feature has as many calls as it may.
    #[error(transparent)]
    QuotaExceeded(#[from] QuotaExceeded),
    /// The selected model cannot take this kind of input.
    #[error(transparent)]
    InputNotSupported(#[from] InputNotSupported),
    /// Too little time is left to try.
    #[error(transparent)]
    DeadlineTooShort(#[from] deadline::TooShort),
    /// The deadline passed.
    #[error("the deadline passed")]
    DeadlinePassed,
    /// The caller is gone.
    #[error("the caller is gone")]
    CallerGone,
    /// The caller took nothing of the answer for this long.
    #[error("the caller took nothing of the answer for {0:?}")]
    CallerTooSlow(Duration),
    /// The router shuts down.
    #[error("the router shuts down")]
    Draining,
    /// The model server's fault, or its verdict on the request.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// A mistake of the router's own.
    #[error("a mistake of the router's own")]
    Internal,
}

const fn unusable(why: Unusable) -> &'static str {
    match why {
        Unusable::Disabled => "is disabled",
        Unusable::CredentialMissing => "lost its API token when its endpoint moved; give it again",
        Unusable::NotReady => "is not ready on this router yet",
    }
}

impl From<EncodeError> for CallError {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::NotSupported(error) => Self::InputNotSupported(error),
            EncodeError::Json(_) => Self::Internal,
        }
    }
}

impl From<RelayError> for CallError {
    fn from(error: RelayError) -> Self {
        match error {
            RelayError::Upstream(error) => Self::Upstream(error),
            RelayError::CallerTooSlow(limit) => Self::CallerTooSlow(limit),
            RelayError::CallerGone => Self::CallerGone,
        }
    }
}

/// A call that failed.
#[derive(Debug)]
pub struct CallFailure {
    /// Why.
    pub error: CallError,
    /// What the call is about.
    pub context: Context,
    /// How many pieces of the answer were sent before.
    pub sent: u64,
}

impl CallFailure {
    /// Of a call of which nothing was sent.
    #[must_use]
    pub const fn at_once(error: CallError, context: Context) -> Self {
        Self {
            error,
            context,
            sent: 0,
        }
    }
}

/// What a call is about, as far as it has come.
#[derive(Debug, Clone)]
pub struct Context {
    /// The field of the request that holds the input.
    pub input_field: &'static str,
    /// The revision of the configuration that decides. `None`: there is none yet.
    pub revision: Option<Revision>,
    /// How long ago the registry was heard last. `None`: never.
    pub config_age: Option<Duration>,
    /// The feature that was asked for, once it is known.
    pub feature: Option<&'static FeatureName>,
    /// The model, once it is selected.
    pub model: Option<ModelName>,
    /// How many attempts were made.
    pub attempts: u32,
    /// The models that were considered, where none could answer.
    pub considered: Vec<Considered>,
}

/// A model that was considered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Considered {
    /// The model.
    pub model: ModelName,
    /// The feature whose setting names it.
    pub source_feature: &'static FeatureName,
    /// The rule that names it.
    pub rule: Option<RuleId>,
    /// What became of it.
    pub outcome: Outcome,
}

impl Considered {
    /// A candidate and what became of it.
    #[must_use]
    pub fn new(candidate: &Candidate<'_>, source_feature: &'static FeatureName, outcome: Outcome) -> Self {
        Self {
            model: candidate.name.clone(),
            source_feature,
            rule: candidate.rule.cloned(),
            outcome,
        }
    }
}

/// What became of a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It answers.
    Chosen,
    /// It could answer, and is not needed.
    Standby,
    /// Its rule does not decide.
    RuleNotMatched,
    /// It was taken out of selection.
    Disabled,
    /// Its API token was dropped.
    CredentialMissing,
    /// Its servers take no calls for now.
    Ejected,
    /// It has no place for another call.
    Full,
    /// It cannot take the call or failed it, for this reason.
    Failed(String),
    /// There is no usable version of it here yet.
    NotReady,
}

impl From<&CallError> for Outcome {
    /// Of a candidate that was passed over or failed.
    fn from(error: &CallError) -> Self {
        match error {
            CallError::Unusable { why, .. } => (*why).into(),
            CallError::Ejected { .. } => Self::Ejected,
            CallError::Overloaded { .. } => Self::Full,
            CallError::Upstream(UpstreamError::Dial(error)) => Self::Failed(error.to_string()),
            CallError::ConfigNotLoaded
            | CallError::Resolve(_)
            | CallError::QuotaExceeded(_)
            | CallError::InputNotSupported(_)
            | CallError::DeadlineTooShort(_)
            | CallError::DeadlinePassed
            | CallError::CallerGone
            | CallError::CallerTooSlow(_)
            | CallError::Draining
            | CallError::Upstream(_)
            | CallError::Internal => Self::Failed(error.to_string()),
        }
    }
}

impl From<Unusable> for Outcome {
    fn from(why: Unusable) -> Self {
        match why {
            Unusable::Disabled => Self::Disabled,
            Unusable::CredentialMissing => Self::CredentialMissing,
            Unusable::NotReady => Self::NotReady,
        }
    }
}

impl Context {
    /// Of a call that has just come.
    #[must_use]
    pub const fn new(input_field: &'static str) -> Self {
        Self {
            input_field,
            revision: None,
            config_age: None,
            feature: None,
            model: None,
            attempts: 0,
            considered: Vec::new(),
        }
    }
}

impl From<&CallError> for AttemptOutcome {
    fn from(error: &CallError) -> Self {
        match error {
            CallError::Upstream(error) => error.into(),
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
            | CallError::Internal => Self::Abandoned,
        }
    }
}
