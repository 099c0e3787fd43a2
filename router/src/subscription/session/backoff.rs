//! Waits that grow with each failure in a row, drawn anew from the whole range so that routers do not come in step.

use std::time::Duration;

/// Full jitter: each wait is drawn from zero up to a cap that doubles.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    cap: Duration,
}

impl Backoff {
    /// The first cap is `min`; no cap is above `max`.
    pub(crate) const fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, cap: min }
    }

    /// Draws the next wait.
    pub(crate) fn next(&mut self, random: &mut fastrand::Rng) -> Duration {
        let wait = up_to(self.cap, random);
        self.cap = (self.cap * 2).min(self.max);
        wait
    }

    /// Begins again at the shortest.
    pub(crate) const fn reset(&mut self) {
        self.cap = self.min;
    }
}

/// Draws a time from zero up to `max`.
pub(crate) fn up_to(max: Duration, random: &mut fastrand::Rng) -> Duration {
    max.mul_f64(random.f64())
}
