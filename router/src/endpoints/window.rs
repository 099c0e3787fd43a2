//! Counts how many of the recent attempts at a server failed. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Length of the window, in seconds.
const SECONDS: usize = 30;
/// With fewer failures than this, the failure rate of a server does not count.
const FAILURES_MIN: u32 = 5;

/// The attempts of the last 30 seconds, counted for each second.
#[derive(Debug, Clone)]
pub(super) struct Window {
    tallies: [Tally; SECONDS],
    newest: Option<Instant>,
    place: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    attempts: u32,
    failures: u32,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            tallies: [Tally::default(); SECONDS],
            newest: None,
            place: 0,
        }
    }
}

impl Window {
    /// Counts an attempt.
    pub(super) fn add(&mut self, has_failed: bool, now: Instant) {
        self.advance(now);
        if let Some(tally) = self.tallies.get_mut(self.place) {
            tally.attempts += 1;
            tally.failures += u32::from(has_failed);
        }
    }

    /// Whether at least half of the attempts failed, and there were enough failures to judge by.
    pub(super) fn is_bad(&mut self, now: Instant) -> bool {
        self.advance(now);
        let sum = |count: fn(&Tally) -> u32| self.tallies.iter().map(count).sum::<u32>();
        let (attempts, failures) = (sum(|tally| tally.attempts), sum(|tally| tally.failures));
        failures >= FAILURES_MIN && 2 * failures >= attempts
    }

    /// Clears the counts of the seconds that have begun since the last call.
    fn advance(&mut self, now: Instant) {
        let newest = *self.newest.get_or_insert(now);
        let seconds = now.saturating_duration_since(newest).as_secs();
        for _ in 0..seconds.min(SECONDS as u64) {
            self.place = (self.place + 1) % SECONDS;
            if let Some(tally) = self.tallies.get_mut(self.place) {
                *tally = Tally::default();
            }
        }
        self.newest = Some(newest + Duration::from_secs(seconds));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_bad_if_five_attempts_and_half_of_those_within_30_seconds_failed() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut window = Window::default();
        for second in 0..4 {
            window.add(true, at(second));
        }
        assert!(!window.is_bad(at(4)), "four failures are too few");
        window.add(true, at(4));
        assert!(window.is_bad(at(4)));
        for _ in 0..6 {
            window.add(false, at(5));
        }
        assert!(!window.is_bad(at(5)), "5 of 11");
        window.add(true, at(6));
        assert!(window.is_bad(at(6)), "6 of 12");
        assert!(window.is_bad(at(29)));
        assert!(!window.is_bad(at(36)), "older attempts do not count");
        assert!(!window.is_bad(at(10_000)));
    }
}
