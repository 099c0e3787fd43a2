//! Why a call failed, and which facts about it the caller gets.

use std::{error::Error as StdError, fmt, time::Duration};

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
    upstream::{AtServer, ServerLabel, UpstreamError, dialect::EncodeError, metrics::AttemptOutcome},
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
    Upstream(#[from] ServerError),
    /// Internal error in the router.
    #[error("internal error in the router")]
    Internal,
}

/// An error of a model server, and the server. It displays both, as logs and administrators see them.
#[derive(Debug)]
pub struct ServerError {
    /// The error.
    pub error: UpstreamError,
    /// The server. `None`: no server was called, because one has rejected the model's credential earlier.
    pub server: Option<ServerLabel>,
}

impl ServerError {
    /// Returns the server, if the caller may see it. Every status asks this function, and nothing else decides who may
    /// see the endpoints of model servers.
    ///
    /// Today every caller may, because callers are not authenticated yet. Once they are, only the roles `admin` and
    /// `viewer` may.
    #[must_use]
    pub const fn server_for_caller(&self) -> Option<&ServerLabel> {
        self.server.as_ref()
    }

    /// Displays the error as the caller may see it.
    #[must_use]
    pub const fn for_caller(&self) -> AtServer<'_> {
        self.error.at(self.server_for_caller())
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.at(self.server.as_ref()).fmt(f)
    }
}

impl StdError for ServerError {}

/// Why no model server was called.
#[derive(Debug, thiserror::Error)]
pub enum CallRefusal {
    /// The router has no configuration yet.
    #[error("the router has no configuration yet")]
    ConfigNotLoaded,
    /// No model can be selected for the feature.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The model cannot be called.
    #[error("`{model}`, which answers `{feature}`, {}", unusable(*why))]
    Unusable {
        /// The requested feature.
        feature: &'static FeatureName,
        /// The model.
        model: ModelName,
        /// Why it cannot be called.
        why: Unusable,
    },
    /// The model's servers take no calls at the moment.
    #[error("`{model}` takes no calls at the moment: its servers are failing or have asked for less load")]
    Ejected {
        /// The model.
        model: ModelName,
        /// Why its servers take no calls.
        reason: Reason,
        /// Time after which another call may succeed.
        pause: Duration,
    },
    /// The model has no place for another call.
    #[error("`{model}` has no free place for the call within its limit of concurrent calls")]
    Overloaded {
        /// The model.
        model: ModelName,
        /// The model's limit of concurrent calls.
        limit: usize,
    },
    /// The feature has reached its limit of concurrent calls.
    #[error(transparent)]
    QuotaExceeded(#[from] QuotaExceeded),
    /// The selected model cannot take this kind of input.
    #[error(transparent)]
    InputNotSupported(#[from] InputNotSupported),
    /// The caller's deadline leaves too little time to try.
    #[error(transparent)]
    DeadlineTooShort(#[from] deadline::TooShort),
}

/// What stopped a call, other than the model server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Interruption {
    /// The deadline passed.
    #[error("the deadline passed")]
    DeadlinePassed,
    /// The caller cancelled the call or disconnected.
    #[error("the caller cancelled the call or disconnected")]
    CallerGone,
    /// The caller read nothing of the answer for this long.
    #[error("the caller read nothing of the answer for {0:?}")]
    CallerTooSlow(Duration),
    /// The router is shutting down.
    #[error("the router is shutting down")]
    Draining,
}

const fn unusable(why: Unusable) -> &'static str {
    match why {
        Unusable::Disabled => "is disabled",
        Unusable::CredentialMissing => "lost its API token when its endpoint changed; set the token again",
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

impl From<UpstreamError> for CallError {
    /// Without the server, which the end of the attempt adds.
    fn from(error: UpstreamError) -> Self {
        Self::Upstream(ServerError { error, server: None })
    }
}

impl From<RelayError> for CallError {
    fn from(error: RelayError) -> Self {
        match error {
            RelayError::Upstream(error) => error.into(),
            RelayError::CallerTooSlow(limit) => Self::Interrupted(Interruption::CallerTooSlow(limit)),
            RelayError::CallerGone => Self::Interrupted(Interruption::CallerGone),
        }
    }
}

impl From<&CallError> for AttemptOutcome {
    fn from(error: &CallError) -> Self {
        match error {
            CallError::Upstream(error) => error.error.fault().outcome,
            CallError::Refused(_) | CallError::Interrupted(_) | CallError::Internal => Self::Abandoned,
        }
    }
}

/// The failure of a call.
#[derive(Debug)]
pub struct CallFailure {
    /// Why the call failed.
    pub error: CallError,
    /// Facts about the call.
    pub context: CallContext,
    /// Number of pieces of the answer that were sent before the failure.
    pub sent: u64,
}

impl CallFailure {
    /// Creates the failure of a call of which nothing was sent.
    #[must_use]
    pub const fn at_once(error: CallError, context: CallContext) -> Self {
        Self {
            error,
            context,
            sent: 0,
        }
    }
}

/// Facts about a call, as far as they are known.
#[derive(Debug, Clone)]
pub struct CallContext {
    /// Name of the request field that holds the input.
    pub input_field: &'static str,
    /// Revision of the configuration that the call uses. `None`: the router has no configuration yet.
    pub revision: Option<Revision>,
    /// Time since the last message from the registry. `None`: no message has arrived yet.
    pub config_age: Option<Duration>,
    /// The requested feature. `None`: the name was not recognised, or not looked up yet.
    pub feature: Option<&'static FeatureName>,
    /// The model that the failure is about. `None`: no model was considered.
    pub model: Option<ModelName>,
    /// Number of attempts that were made.
    pub attempts: u32,
    /// Every candidate with its outcome. Empty if part of an answer was sent, or if no model was considered.
    pub considered: Vec<Considered>,
}

impl CallContext {
    /// Creates the context of a call that has just arrived.
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
