//! Limits of the calls to a model, each in its range.

use std::time::Duration;

use super::ModelPartError;

/// A count from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count<const MIN: i32, const MAX: i32>(i32);

/// A count from 1.
pub type Positive = Count<1, { i32::MAX }>;

impl<const MIN: i32, const MAX: i32> Count<MIN, MAX> {
    /// Parses a number of the range.
    ///
    /// # Errors
    ///
    /// [`ModelPartError::CountOutOfRange`] for any other.
    pub fn parse(number: i32) -> Result<Self, ModelPartError> {
        if (MIN..=MAX).contains(&number) {
            Ok(Self(number))
        } else {
            Err(ModelPartError::CountOutOfRange { min: MIN, max: MAX })
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> i32 {
        self.0
    }
}

/// A span above 0, at most `MAX` seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeout<const MAX: u64>(Duration);

impl<const MAX: u64> Timeout<MAX> {
    /// What is wrong with every other span, one that is negative included.
    pub const OUT_OF_RANGE: ModelPartError = ModelPartError::TimeoutOutOfRange { max_seconds: MAX };

    /// Parses a span of the range.
    ///
    /// # Errors
    ///
    /// [`Self::OUT_OF_RANGE`] for any other.
    pub fn parse(span: Duration) -> Result<Self, ModelPartError> {
        if span > Duration::ZERO && span <= Duration::from_secs(MAX) {
            Ok(Self(span))
        } else {
            Err(Self::OUT_OF_RANGE)
        }
    }

    /// The span.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

/// Limits of the calls to a model: only what somebody has set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Calls at a time, for each router process.
    pub max_concurrency: Option<Positive>,
    /// Calls that wait for a place, for each router process.
    pub max_queue: Option<Count<0, 10_000>>,
    /// How long a call waits for a place.
    pub queue_timeout: Option<Timeout<300>>,
    /// For name, connection and TLS handshake together.
    pub connect_timeout: Option<Timeout<60>>,
    /// Until the first token of a streamed answer.
    pub first_token_timeout: Option<Timeout<900>>,
    /// Between two events of a streamed answer.
    pub idle_timeout: Option<Timeout<900>>,
    /// The whole call.
    pub total_timeout: Option<Timeout<900>>,
    /// The most tokens of an answer.
    pub max_output_tokens: Option<Positive>,
    /// How many tokens the context holds. For information.
    pub context_tokens: Option<Positive>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_range_holds_its_edges_and_nothing_beyond() {
        for (number, is_positive, is_queue) in [
            (-1, false, false),
            (0, false, true),
            (1, true, true),
            (10_000, true, true),
            (10_001, true, false),
            (i32::MAX, true, false),
        ] {
            assert_eq!(Positive::parse(number).is_ok(), is_positive, "{number}");
            assert_eq!(Count::<0, 10_000>::parse(number).is_ok(), is_queue, "{number}");
        }
        let nanosecond = Duration::from_nanos(1);
        let longest = Duration::from_secs(60);
        for (span, is_good) in [
            (Duration::ZERO, false),
            (nanosecond, true),
            (longest, true),
            (longest + nanosecond, false),
        ] {
            assert_eq!(Timeout::<60>::parse(span).is_ok(), is_good, "{span:?}");
        }
    }

    #[test]
    fn a_refusal_says_what_would_be_right() {
        let said = |error: Result<_, ModelPartError>| error.map(|_: ()| ()).unwrap_err().to_string();
        assert_eq!(said(Positive::parse(0).map(|_| ())), "must be at least 1");
        assert_eq!(said(Count::<0, 9>::parse(10).map(|_| ())), "must be 0 to 9");
        let span = Timeout::<60>::parse(Duration::ZERO).map(|_| ());
        assert_eq!(said(span), "must be above 0 s and at most 60 s");
    }
}
