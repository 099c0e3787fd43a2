//! Detects a writer that does not finish its rounds, which bookmarks report as `stalled`.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Measures how long the writer has been in its current round.
#[derive(Debug, Default)]
pub struct Pulse(Mutex<Option<Instant>>);

impl Pulse {
    /// Records that the writer begins a round.
    pub fn begin(&self) {
        self.set(Some(Instant::now()));
    }

    /// Records that the writer has finished its round.
    pub fn end(&self) {
        self.set(None);
    }

    /// Returns whether the current round has taken longer than `limit`.
    #[must_use]
    pub fn is_stalled(&self, limit: Duration) -> bool {
        let since = *self.0.lock();
        since.is_some_and(|since| since.elapsed() > limit)
    }

    fn set(&self, since: Option<Instant>) {
        *self.0.lock() = since;
    }
}
