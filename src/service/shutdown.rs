//! The shutdown of a service: its phases, and waits with a time limit.

use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long streams may take to end after the token [`Shutdown::end`] is cancelled.
pub const END_TIMEOUT: Duration = Duration::from_secs(1);

/// The phases of a service's shutdown.
#[derive(Debug)]
pub struct Shutdown {
    /// Cancelled by the owner of the service to begin the shutdown. From then on, health reports not serving, and new
    /// connections and calls are refused.
    pub stop: CancellationToken,
    /// How long running calls may continue after [`Self::stop`].
    pub grace: Duration,
    /// Cancelled when [`Self::grace`] is over. Calls that are still running must end within [`END_TIMEOUT`].
    pub end: CancellationToken,
}

impl Shutdown {
    /// Creates a shutdown that begins when `stop` is cancelled.
    #[must_use]
    pub fn new(stop: CancellationToken, grace: Duration) -> Self {
        Self {
            stop,
            grace,
            end: CancellationToken::new(),
        }
    }
}

/// Waits until `ended` completes, for at most `limit`. If the time is over, logs a warning that names `who`.
pub async fn end_within<T>(limit: Duration, who: &str, ended: impl Future<Output = T>) {
    if timeout(limit, ended).await.is_err() {
        tracing::warn!("{who} did not stop in time");
    }
}
