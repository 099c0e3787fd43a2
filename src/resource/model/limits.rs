//! Limits of the calls to a model, with the range of each.

use std::time::Duration;

use super::{super::fields::Fields, ModelPartError};
use crate::{duration, pb::registry};

/// The maximum number of calls that may wait for a place.
const QUEUE_MAX: i32 = 10_000;
/// How long a call waits for a place if the model does not set a timeout.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);

/// An integer from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count<const MIN: i32, const MAX: i32>(i32);

/// An integer of at least 1.
pub type Positive = Count<1, { i32::MAX }>;

impl<const MIN: i32, const MAX: i32> Count<MIN, MAX> {
    /// Parses a number from `MIN` to `MAX`.
    ///
    /// # Errors
    ///
    /// [`ModelPartError::CountOutOfRange`] for any other number.
    pub fn parse(number: i32) -> Result<Self, ModelPartError> {
        if (MIN..=MAX).contains(&number) {
            Ok(Self(number))
        } else {
            Err(ModelPartError::CountOutOfRange { min: MIN, max: MAX })
        }
    }

    /// The value as a number.
    #[must_use]
    pub const fn get(self) -> i32 {
        self.0
    }

    /// The number as a `usize`. A negative number, which is possible only with a negative `MIN`, becomes 0.
    #[must_use]
    pub fn count(self) -> usize {
        usize::try_from(self.0).unwrap_or_default()
    }
}

/// A duration above 0 and at most `MAX` seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeout<const MAX: u64>(Duration);

impl<const MAX: u64> Timeout<MAX> {
    /// The error for every other duration, including negative ones.
    pub const OUT_OF_RANGE: ModelPartError = ModelPartError::TimeoutOutOfRange { max_seconds: MAX };

    /// Converts a protobuf duration. A negative or malformed one is out of range.
    fn read(span: prost_types::Duration) -> Result<Self, ModelPartError> {
        duration::read(span).map_or(Err(Self::OUT_OF_RANGE), Self::parse)
    }

    /// Parses a duration above 0 and at most `MAX` seconds.
    ///
    /// # Errors
    ///
    /// [`Self::OUT_OF_RANGE`] for any other duration.
    pub fn parse(span: Duration) -> Result<Self, ModelPartError> {
        if span > Duration::ZERO && span <= Duration::from_secs(MAX) {
            Ok(Self(span))
        } else {
            Err(Self::OUT_OF_RANGE)
        }
    }

    /// The duration.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

/// Limits of the calls to a model. `None`: the limit is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// The maximum number of concurrent calls, for each router process.
    pub max_concurrency: Option<Positive>,
    /// The maximum number of calls that wait for a place, for each router process.
    pub max_queue: Option<Count<0, QUEUE_MAX>>,
    /// The maximum time that a call waits for a place.
    pub queue_timeout: Option<Timeout<300>>,
    /// The maximum time for name resolution, connection and TLS handshake together.
    pub connect_timeout: Option<Timeout<60>>,
    /// The maximum time until the first token of a streamed answer.
    pub first_token_timeout: Option<Timeout<900>>,
    /// The maximum time between two events of a streamed answer.
    pub idle_timeout: Option<Timeout<900>>,
    /// The maximum time for the whole call.
    pub total_timeout: Option<Timeout<900>>,
    /// The maximum length of an answer, in tokens.
    pub max_output_tokens: Option<Positive>,
    /// The size of the model's context in tokens. For information only.
    pub context_tokens: Option<Positive>,
}

impl Limits {
    /// Returns how many calls may wait for a place. The default is twice the number of concurrent calls.
    #[must_use]
    pub fn queue(&self) -> usize {
        let running = self.max_concurrency.map_or(0, Count::get);
        let default = running.saturating_mul(2).min(QUEUE_MAX);
        self.max_queue
            .map_or_else(|| usize::try_from(default).unwrap_or_default(), Count::count)
    }

    /// Returns how long a call waits for a place.
    #[must_use]
    pub fn queue_timeout(&self) -> Duration {
        self.queue_timeout.map_or(QUEUE_TIMEOUT, Timeout::get)
    }

    pub(super) fn read(wire: registry::ModelLimits, fields: &mut Fields<'_>) -> Self {
        let registry::ModelLimits {
            max_concurrency,
            max_queue,
            queue_timeout,
            connect_timeout,
            first_token_timeout,
            idle_timeout,
            total_timeout,
            max_output_tokens,
            context_tokens,
        } = wire;
        Self {
            max_concurrency: fields
                .read("limits.max_concurrency", max_concurrency, Count::parse)
                .value,
            max_queue: fields.read("limits.max_queue", max_queue, Count::parse).value,
            queue_timeout: fields.read("limits.queue_timeout", queue_timeout, Timeout::read).value,
            connect_timeout: fields
                .read("limits.connect_timeout", connect_timeout, Timeout::read)
                .value,
            first_token_timeout: fields
                .read("limits.first_token_timeout", first_token_timeout, Timeout::read)
                .value,
            idle_timeout: fields.read("limits.idle_timeout", idle_timeout, Timeout::read).value,
            total_timeout: fields.read("limits.total_timeout", total_timeout, Timeout::read).value,
            max_output_tokens: fields
                .read("limits.max_output_tokens", max_output_tokens, Count::parse)
                .value,
            context_tokens: fields.read("limits.context_tokens", context_tokens, Count::parse).value,
        }
    }

    /// Converts the limits to a message. `None`: no limit is set.
    pub(super) fn to_message(self) -> Option<registry::ModelLimits> {
        fn span<const MAX: u64>(timeout: Option<Timeout<MAX>>) -> Option<prost_types::Duration> {
            timeout.and_then(|timeout| timeout.get().try_into().ok())
        }
        let Self {
            max_concurrency,
            max_queue,
            queue_timeout,
            connect_timeout,
            first_token_timeout,
            idle_timeout,
            total_timeout,
            max_output_tokens,
            context_tokens,
        } = self;
        (self != Self::default()).then(|| registry::ModelLimits {
            max_concurrency: max_concurrency.map(Count::get),
            max_queue: max_queue.map(Count::get),
            queue_timeout: span(queue_timeout),
            connect_timeout: span(connect_timeout),
            first_token_timeout: span(first_token_timeout),
            idle_timeout: span(idle_timeout),
            total_timeout: span(total_timeout),
            max_output_tokens: max_output_tokens.map(Count::get),
            context_tokens: context_tokens.map(Count::get),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_range_includes_its_bounds_and_nothing_beyond() {
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
    fn an_error_text_names_the_valid_range() {
        let said = |error: Result<_, ModelPartError>| error.map(|_: ()| ()).unwrap_err().to_string();
        assert_eq!(said(Positive::parse(0).map(|_| ())), "must be at least 1");
        assert_eq!(said(Count::<0, 9>::parse(10).map(|_| ())), "must be 0 to 9");
        let span = Timeout::<60>::parse(Duration::ZERO).map(|_| ());
        assert_eq!(said(span), "must be above 0 s and at most 60 s");
    }
}
