//! Default limits of a call.

use std::time::Duration;

use crate::relay::{Patience, pending::PendingLimits};

/// Default limits of a call. Where a model has limits of its own, those apply instead.
#[derive(Debug, Clone, Copy)]
pub struct CallLimits {
    /// For the whole call, even if its caller allows more time.
    pub total: Duration,
    /// From the beginning of an attempt to its first token.
    pub first_token: Duration,
    /// Between events of the model, and for the caller to read a piece.
    pub patience: Patience,
    /// Memory for answers that wait for their callers.
    pub pending: PendingLimits,
    /// For reading a response body to its end after the answer, so that the connection can be reused for another call.
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
