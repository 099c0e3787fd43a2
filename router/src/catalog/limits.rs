//! The limits of the calls to one model, as this router keeps them.

use std::time::Duration;

/// The most calls that may wait for a place.
pub const QUEUE_MAX: usize = 10_000;
/// How long a call waits for a place where nothing else is said.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);

/// The limits of the calls to a model. `None`: the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Calls at a time. `None`: any number.
    pub max_concurrency: Option<usize>,
    /// Calls that wait for a place.
    pub max_queue: Option<usize>,
    /// How long a call waits for a place.
    pub queue_timeout: Option<Duration>,
    /// For name, connection and TLS handshake together.
    pub connect_timeout: Option<Duration>,
    /// Until the first token.
    pub first_token_timeout: Option<Duration>,
    /// Between two events.
    pub idle_timeout: Option<Duration>,
    /// The whole call.
    pub total_timeout: Option<Duration>,
    /// The most tokens of an answer. `None`: the family's.
    pub max_output_tokens: Option<i32>,
}

impl Limits {
    /// How many calls may wait: twice as many as may run where nothing else is said.
    #[must_use]
    pub fn queue(&self) -> usize {
        let default = || self.max_concurrency.map_or(0, |running| running.saturating_mul(2));
        self.max_queue.unwrap_or_else(default).min(QUEUE_MAX)
    }

    /// How long a call waits for a place.
    #[must_use]
    pub fn queue_timeout(&self) -> Duration {
        self.queue_timeout.unwrap_or(QUEUE_TIMEOUT)
    }
}
