//! Whether the writer finishes its rounds: what a bookmark's `stalled` tells.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Tells for how long the writer has been in its present round.
#[derive(Debug, Default)]
pub struct Pulse(Mutex<Option<Instant>>);

impl Pulse {
    /// The writer begins a round.
    pub fn begin(&self) {
        self.set(Some(Instant::now()));
    }

    /// The writer has finished its round.
    pub fn end(&self) {
        self.set(None);
    }

    /// Whether the present round has taken longer than `limit`.
    #[must_use]
    pub fn is_stalled(&self, limit: Duration) -> bool {
        let since = *self.0.lock();
        since.is_some_and(|since| since.elapsed() > limit)
    }

    fn set(&self, since: Option<Instant>) {
        *self.0.lock() = since;
    }
}
