//! Why a call failed, and what its caller learns about it.

use std::time::Duration;

use switchboard::{
    names::{FeatureName, ModelName, Revision},
    reason::Reason,
};

use super::{considered::Considered, deadline};
use crate::{
    catalog::{ResolveError, Unusable},
    permits::QuotaExceeded,
    prompt::InputNotSupported,
    relay::RelayError,
    upstream::{UpstreamError, dialect::EncodeError, metrics::AttemptOutcome},
};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No model server was called.
    #[error(transparent)]
    Refused(#[from] CallRefusal),
    /// The call was stopped by something other than the model server.
    #[error(transparent)]
    Interrupted(#[from] Interruption),
    /// The model server failed, or rejected the request.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// Internal error in the router.
    #[error("a mistake of the router's own")]
    Internal,
}

/// Why no model server was called.
#[derive(Debug, thiserror::Error)]
pub enum CallRefusal {
    /// The router has no configuration yet.
    #[error("the router has no configuration yet")]
    ConfigNotLoaded,
    /// The feature leads to no model.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The model cannot be called.
    #[error("`{model}`, which answers `{feature}`, {}", unusable(*why))]
    Unusable {
        /// The feature that was asked for.
        feature: &'static FeatureName,
        /// The model.
        model: ModelName,
        /// Why it cannot be called.
        why: Unusable,
    },
    /// The model's servers take no calls for now.
    #[error("`{model}` takes no calls for now: its servers fail, or ask for less load")]
    Ejected {
        /// The model.
        model: ModelName,
        /// Why the last call of them failed.
        reason: Reason,
        /// When it may be worth another call.
        pause: Duration,
    },
    /// The model has no place for another call.
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
    /// The caller's deadline leaves too little time to try.
    #[error(transparent)]
    DeadlineTooShort(#[from] deadline::TooShort),
}

/// What stopped a call that the model server did not end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Interruption {
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
            EncodeError::NotSupported(error) => Self::Refused(error.into()),
            EncodeError::Json(_) => Self::Internal,
        }
    }
}

impl From<RelayError> for CallError {
    fn from(error: RelayError) -> Self {
        match error {
            RelayError::Upstream(error) => Self::Upstream(error),
            RelayError::CallerTooSlow(limit) => Self::Interrupted(Interruption::CallerTooSlow(limit)),
            RelayError::CallerGone => Self::Interrupted(Interruption::CallerGone),
        }
    }
}

impl From<&CallError> for AttemptOutcome {
    fn from(error: &CallError) -> Self {
        match error {
            CallError::Upstream(error) => error.fault().outcome,
            CallError::Refused(_) | CallError::Interrupted(_) | CallError::Internal => Self::Abandoned,
        }
    }
}

/// A call that failed.
#[derive(Debug)]
pub struct CallFailure {
    /// Why.
    pub error: CallError,
    /// What the call is about.
    pub context: CallContext,
    /// How many pieces of the answer were sent before.
    pub sent: u64,
}

impl CallFailure {
    /// The failure of a call before anything was sent.
    #[must_use]
    pub const fn at_once(error: CallError, context: CallContext) -> Self {
        Self {
            error,
            context,
            sent: 0,
        }
    }
}

/// What a call is about, as far as it has come.
#[derive(Debug, Clone)]
pub struct CallContext {
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
    /// The models that were considered, if none could answer.
    pub considered: Vec<Considered>,
}

impl CallContext {
    /// The context of a call that has just arrived.
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
