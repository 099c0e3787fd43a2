//! Why a call failed, and all that its caller is told of it.

use std::time::Duration;

use switchboard::names::{FeatureName, ModelName, Revision};

use super::deadline;
use crate::{catalog::ResolveError, prompt::InputNotSupported, relay::RelayError, upstream::UpstreamError};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The router has no configuration yet.
    #[error("the router has no configuration yet")]
    ConfigNotLoaded,
    /// No model can be selected.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
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
        }
    }
}
