//! How long a call may take. Pure.
//!
//! The stack bounds only the response's headers with `grpc-timeout` and ignores one that it cannot read, so it is read here.

use std::time::Duration;

/// With less than this left a call is not begun.
pub const BUDGET_MIN: Duration = Duration::from_millis(100);
const MARGIN_MIN: Duration = Duration::from_millis(10);
const MARGIN_MAX: Duration = Duration::from_millis(250);

/// A `grpc-timeout` that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 8 digits and a unit, one of `H`, `M`, `S`, `m`, `u`, `n`")]
pub struct MalformedTimeout;

/// Too little time is left to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("less than {} ms are left of the deadline", BUDGET_MIN.as_millis())]
pub struct TooShort;

/// Reads a `grpc-timeout`.
///
/// # Errors
///
/// [`MalformedTimeout`] for anything that the gRPC protocol does not know.
pub fn parse(timeout: &[u8]) -> Result<Duration, MalformedTimeout> {
    let [digits @ .., unit] = timeout else {
        return Err(MalformedTimeout);
    };
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return Err(MalformedTimeout);
    }
    let number = digits
        .iter()
        .fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Ok(Duration::from_secs(number * 3600)),
        b'M' => Ok(Duration::from_secs(number * 60)),
        b'S' => Ok(Duration::from_secs(number)),
        b'm' => Ok(Duration::from_millis(number)),
        b'u' => Ok(Duration::from_micros(number)),
        b'n' => Ok(Duration::from_nanos(number)),
        _ => Err(MalformedTimeout),
    }
}

/// What a call may take of its caller's `timeout`, at most `total`: less a margin of 2 % (10 to 250 ms), so that our own
/// status arrives before the caller's timer fires.
///
/// # Errors
///
/// [`TooShort`] when less than 100 ms would be left.
pub fn budget(timeout: Option<Duration>, total: Duration) -> Result<Duration, TooShort> {
    let Some(timeout) = timeout else { return Ok(total) };
    let margin = (timeout / 50).clamp(MARGIN_MIN, MARGIN_MAX);
    let budget = timeout.saturating_sub(margin);
    if budget < BUDGET_MIN {
        Err(TooShort)
    } else {
        Ok(budget.min(total))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_read_as_the_protocol_spells_it() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("04m", Some(Duration::from_millis(4))),
            ("5u", Some(Duration::from_micros(5))),
            ("6n", Some(Duration::from_nanos(6))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("100000000n", None),
            ("", None),
            ("S", None),
            ("5", None),
            ("5s", None),
            ("-5S", None),
            ("+5S", None),
            ("5 S", None),
            ("5.5S", None),
            ("٣S", None),
        ] {
            assert_eq!(parse(text.as_bytes()).ok(), expected, "{text}");
        }
    }

    #[test]
    fn a_margin_is_kept_for_our_own_status() {
        let total = Duration::from_secs(900);
        for (timeout, expected) in [
            (109, Err(TooShort)),
            (110, Ok(100)),
            (1000, Ok(980)),
            (10_000, Ok(9800)),
            (60_000, Ok(59_750)),
            (3_600_000, Ok(900_000)),
            (0, Err(TooShort)),
        ] {
            assert_eq!(
                budget(Some(Duration::from_millis(timeout)), total),
                expected.map(Duration::from_millis),
                "{timeout}"
            );
        }
        assert_eq!(budget(None, total), Ok(total));
    }
}
