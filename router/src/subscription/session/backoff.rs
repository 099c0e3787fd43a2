//! Delays that grow with each failure in a row. Each is drawn from the whole range, so that routers do not retry in
//! step.

use std::time::Duration;

/// Exponential backoff with full jitter: each delay is drawn from zero up to a cap that doubles.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    cap: Duration,
}

impl Backoff {
    /// Creates a backoff whose first cap is `min` and whose last is `max`.
    pub(crate) const fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, cap: min }
    }

    /// Draws the next delay.
    pub(crate) fn next(&mut self, random: &mut fastrand::Rng) -> Duration {
        let wait = up_to(self.cap, random);
        self.cap = (self.cap * 2).min(self.max);
        wait
    }

    /// Starts again with the shortest delay.
    pub(crate) const fn reset(&mut self) {
        self.cap = self.min;
    }
}

/// Draws a delay from zero up to `max`.
pub(crate) fn up_to(max: Duration, random: &mut fastrand::Rng) -> Duration {
    max.mul_f64(random.f64())
}
