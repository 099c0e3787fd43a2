//! Measures how slow a server is relative to the other servers of its model. Pure.
//!
//! The time to the first token depends on the prompt. So the measure is a ratio: the duration of an attempt, divided by
//! the average duration on this model for a call of that shape and size.

use std::time::Duration;

use tokio::time::Instant;

/// Bounds of a ratio: how fast and how slow a server can appear.
const RATIOS: (f64, f64) = (0.25, 8.0);
/// After this time a sample has half of its weight.
const HALF_LIFE: Duration = Duration::from_secs(10);
/// Number of size classes. A class reaches from one power of two of bytes to the next; the last one also has everything
/// larger.
const SIZES: usize = 24;
/// The minimum weight of a new sample in the average of a model.
const SHARE_MIN: f64 = 0.05;

/// How a call is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// As a stream: the time to the first token counts.
    Stream,
    /// As a whole: the time to the end counts.
    Whole,
}

/// What the expected duration of an attempt depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// How the call is answered.
    pub shape: Shape,
    /// Size of the request in bytes.
    pub bytes: usize,
}

/// The average durations of a model, by shape and size of the call.
#[derive(Debug, Default)]
pub(super) struct Expected {
    streams: [Average; SIZES],
    wholes: [Average; SIZES],
}

#[derive(Debug, Clone, Copy, Default)]
struct Average {
    seconds: f64,
    samples: u32,
}

impl Expected {
    /// Adds the duration of an answer to the average. Returns its ratio to the average before.
    pub(super) fn answered(&mut self, work: Work, took: Duration) -> f64 {
        let average = self.of(work);
        let ratio = average.ratio(took);
        average.samples = average.samples.saturating_add(1);
        let share = (1.0 / f64::from(average.samples)).max(SHARE_MIN);
        average.seconds += share * (took.as_secs_f64() - average.seconds);
        ratio
    }

    /// Returns the ratio of an attempt that waited without getting an answer. The answer would have taken longer, so
    /// the ratio is at least 1.
    pub(super) fn waited(&mut self, work: Work, waited: Duration) -> f64 {
        self.of(work).ratio(waited).max(1.0)
    }

    fn of(&mut self, work: Work) -> &mut Average {
        let sizes = match work.shape {
            Shape::Stream => &mut self.streams,
            Shape::Whole => &mut self.wholes,
        };
        let size = work.bytes.checked_ilog2().unwrap_or_default() as usize;
        &mut sizes[size.min(SIZES - 1)]
    }
}

impl Average {
    fn ratio(&self, took: Duration) -> f64 {
        if self.seconds > 0.0 {
            (took.as_secs_f64() / self.seconds).clamp(RATIOS.0, RATIOS.1)
        } else {
            1.0
        }
    }
}

/// How slow a server is: a weighted average of its ratios, in which older samples weigh less, and of one constant
/// sample of 1.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Slowness {
    sum: f64,
    weight: f64,
    newest: Option<Instant>,
}

impl Slowness {
    /// Ratio of a failed attempt: a server that fails fast must not look fast.
    pub(super) const FAILED: f64 = RATIOS.1;

    /// Adds the ratio of one attempt.
    pub(super) fn add(&mut self, ratio: f64, now: Instant) {
        let kept = self.kept(now);
        self.sum = self.sum * kept + ratio.clamp(RATIOS.0, RATIOS.1);
        self.weight = self.weight * kept + 1.0;
        self.newest = Some(now);
    }

    /// Returns the slowness at this time; 1 is the average of the model.
    pub(super) fn now(&self, now: Instant) -> f64 {
        let kept = self.kept(now);
        (self.sum * kept + 1.0) / (self.weight * kept + 1.0)
    }

    /// Returns the fraction of the samples' weight that is left at this time.
    fn kept(&self, now: Instant) -> f64 {
        let Some(newest) = self.newest else { return 0.0 };
        let age = now.saturating_duration_since(newest);
        (-age.div_duration_f64(HALF_LIFE)).exp2()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Work = Work {
        shape: Shape::Stream,
        bytes: 1000,
    };

    #[test]
    fn only_calls_of_the_same_size_and_shape_are_compared() {
        let mut expected = Expected::default();
        let second = Duration::from_secs(1);
        assert!(
            (expected.answered(SMALL, second) - 1.0).abs() < 1e-9,
            "the first sample sets the average"
        );
        let large = Work {
            bytes: 100_000,
            ..SMALL
        };
        assert!((expected.answered(large, 10 * second) - 1.0).abs() < 1e-9);
        assert!((expected.answered(SMALL, 2 * second) - 2.0).abs() < 1e-9);
        let whole = Work {
            shape: Shape::Whole,
            ..SMALL
        };
        assert!((expected.answered(whole, 10 * second) - 1.0).abs() < 1e-9);
        assert!(
            (expected.answered(
                Work {
                    bytes: usize::MAX,
                    ..SMALL
                },
                second
            ) - 1.0)
                .abs()
                < 1e-9
        );
        assert!(
            (expected.waited(SMALL, second / 10) - 1.0).abs() < 1e-9,
            "a short wait without an answer does not look fast"
        );
        assert!(expected.waited(SMALL, 3 * second) > 1.9);
    }

    #[test]
    fn slowness_follows_new_samples_within_bounds_and_forgets_old_ones() {
        let start = Instant::now();
        let mut slowness = Slowness::default();
        assert!((slowness.now(start) - 1.0).abs() < 1e-9);
        for _ in 0..100 {
            slowness.add(1000.0, start);
        }
        assert!((7.5..=8.0).contains(&slowness.now(start)));
        let later = |seconds| slowness.now(start + Duration::from_secs(seconds));
        assert!(later(10) < slowness.now(start));
        assert!(later(300) < 1.001, "{}", later(300));
        let mut fast = Slowness::default();
        for _ in 0..100 {
            fast.add(0.0, start);
        }
        assert!((0.25..0.3).contains(&fast.now(start)));
    }
}
