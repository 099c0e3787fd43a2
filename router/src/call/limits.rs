//! How long the parts of a call may take.

use std::time::Duration;

use crate::relay::{Patience, pending::PendingLimits};

/// How long the parts of a call may take, if the model's own limits do not say.
#[derive(Debug, Clone, Copy)]
pub struct CallLimits {
    /// The whole call, whatever its caller allows.
    pub total: Duration,
    /// From the beginning of an attempt to the first token.
    pub first_token: Duration,
    /// Between events of the model, and for the caller to take them.
    pub patience: Patience,
    /// How much of the answers waits for callers.
    pub pending: PendingLimits,
    /// For reading a body to its end after the answer, so that the connection can carry another call.
    pub drain: Duration,
}

impl Default for CallLimits {
    fn default() -> Self {
        Self {
            total: Duration::from_secs(15 * 60),
            first_token: Duration::from_secs(60),
            patience: Patience {
                idle: Duration::from_secs(30),
                slow_caller: Duration::from_secs(30),
                finish: Duration::from_millis(500),
            },
            pending: PendingLimits::default(),
            drain: Duration::from_millis(100),
        }
    }
}
