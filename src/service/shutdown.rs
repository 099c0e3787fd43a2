//! How a service ends: what it is told, and waits that are bounded.

use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long streams may take to end once they were told to.
pub const END_TIMEOUT: Duration = Duration::from_secs(1);

/// How a service ends.
#[derive(Debug)]
pub struct Shutdown {
    /// Cancelled from outside: not serving in health, no new connections, no new calls.
    pub stop: CancellationToken,
    /// How long calls that run may go on.
    pub grace: Duration,
    /// Cancelled when `grace` is over: what still runs has to end within [`END_TIMEOUT`].
    pub end: CancellationToken,
}

impl Shutdown {
    /// A shutdown that begins when `stop` is cancelled.
    #[must_use]
    pub fn new(stop: CancellationToken, grace: Duration) -> Self {
        Self {
            stop,
            grace,
            end: CancellationToken::new(),
        }
    }
}

/// Waits until `who`, who was told to end, has `ended`; logs a warning if this takes longer than `limit`.
pub async fn end_within<T>(limit: Duration, who: &str, ended: impl Future<Output = T>) {
    if timeout(limit, ended).await.is_err() {
        tracing::warn!("{who} did not end in time");
    }
}
