//! Conversion of the contract's durations.

use std::time::Duration;

const NANOS: u32 = 1_000_000_000;

/// Converts a protobuf duration. `None`: it is negative, or its nanoseconds are out of range.
///
/// The conversion of `prost_types` is not used, because it panics on the smallest number of seconds.
#[must_use]
pub fn read(span: prost_types::Duration) -> Option<Duration> {
    let seconds = u64::try_from(span.seconds).ok()?;
    let nanos = u32::try_from(span.nanos).ok().filter(|nanos| *nanos < NANOS)?;
    Some(Duration::new(seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_negative_or_malformed_duration_is_refused() {
        let rows = [
            (0, 0, Some(Duration::ZERO)),
            (1, 500_000_000, Some(Duration::from_millis(1_500))),
            (i64::MAX, 999_999_999, Some(Duration::new(u64::MAX / 2, 999_999_999))),
            (0, -1, None),
            (-1, 0, None),
            (1, -1, None),
            (0, 1_000_000_000, None),
            (i64::MIN, 0, None),
            (i64::MIN, i32::MIN, None),
        ];
        for (seconds, nanos, expected) in rows {
            assert_eq!(
                read(prost_types::Duration { seconds, nanos }),
                expected,
                "{seconds} {nanos}"
            );
        }
    }
}
