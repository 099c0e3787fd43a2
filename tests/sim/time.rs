//! Simulated time, and the milliseconds in which each actor may act.
//!
//! Two actors that act in the same millisecond could run in either order, so each actor has milliseconds of its own. If
//! one change wakes several actors at once, the history distinguishes and sorts their events by actor.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Number of actors that have milliseconds of their own.
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

    /// Waits for at least `duration`, until the next millisecond that belongs to the actor.
    pub(crate) async fn pause(&self, class: u64, duration: Duration) {
        sleep_until(self.at(class, duration)).await;
    }

    /// Returns the moment that [`Self::pause`] waits for.
    pub(crate) fn at(&self, class: u64, duration: Duration) -> Instant {
        let wanted = u64::try_from((self.now() + duration).as_millis()).unwrap() + 1;
        let own = wanted + (class % CLASSES + CLASSES - wanted % CLASSES) % CLASSES;
        self.begin + Duration::from_millis(own)
    }
}

/// Draws a duration between `min` and `max` milliseconds.
pub(crate) fn between(random: &mut fastrand::Rng, min: u64, max: u64) -> Duration {
    Duration::from_millis(random.u64(min..=max))
}
