//! Simulated time, and who acts when.
//!
//! Two that act in the same millisecond might come in any order, so each actor has milliseconds of its own. What is woken
//! by one change at once is told apart by its actor in the history.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How many actors have milliseconds of their own.
const CLASSES: u64 = 68;

/// The clock of one run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    begin: Instant,
}

impl Clock {
    pub(crate) fn begin() -> Self {
        Self { begin: Instant::now() }
    }

    pub(crate) fn now(&self) -> Duration {
        self.begin.elapsed()
    }

    /// Waits for `duration` at least, up to the next millisecond that is the actor's own.
    pub(crate) async fn pause(&self, class: u64, duration: Duration) {
        sleep_until(self.at(class, duration)).await;
    }

    /// The moment that [`Self::pause`] waits for.
    pub(crate) fn at(&self, class: u64, duration: Duration) -> Instant {
        let wanted = u64::try_from((self.now() + duration).as_millis()).unwrap() + 1;
        let own = wanted + (class % CLASSES + CLASSES - wanted % CLASSES) % CLASSES;
        self.begin + Duration::from_millis(own)
    }
}

/// A time between the two.
pub(crate) fn between(random: &mut fastrand::Rng, min: u64, max: u64) -> Duration {
    Duration::from_millis(random.u64(min..=max))
}
