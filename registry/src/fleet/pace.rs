//! A rate limit with bursts. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Admits one event per interval in the long run, and up to `at_once` events at once.
#[derive(Debug)]
pub(super) struct Pace {
    every: Duration,
    at_once: u32,
    /// When all admitted events would be over if each took one interval. `None`: no event was admitted yet.
    over: Option<Instant>,
}

impl Pace {
    pub(super) const fn new(every: Duration, at_once: u32) -> Self {
        Self {
            every,
            at_once,
            over: None,
        }
    }

    /// Returns whether an event may happen now, and counts it if so.
    pub(super) fn admits(&mut self, now: Instant) -> bool {
        let ahead = self
            .over
            .map_or(Duration::ZERO, |over| over.saturating_duration_since(now));
        let is_admitted = ahead + self.every <= self.every * self.at_once;
        if is_admitted {
            self.over = Some(now + ahead + self.every);
        }
        is_admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_is_admitted_at_once_and_then_one_event_per_interval() {
        let mut pace = Pace::new(SECOND, 3);
        let begin = Instant::now();
        let mut admitted = |at: Duration| (0..9).filter(|_| pace.admits(begin + at)).count();
        assert_eq!(admitted(Duration::ZERO), 3);
        assert_eq!(admitted(SECOND / 2), 0);
        assert_eq!(admitted(SECOND), 1);
        assert_eq!(admitted(SECOND * 3), 2);
        assert_eq!(admitted(SECOND * 99), 3);
    }
}
