//! The caller's timeout for a call, and the margin that is subtracted from it. Pure functions without I/O.
//!
//! tonic applies `grpc-timeout` only until the response's headers and ignores a malformed one, so it is parsed here.

use std::time::Duration;

use tonic::metadata::MetadataMap;

use crate::{reason::FieldReason, violation::Violations};

const HEADER: &str = "grpc-timeout";
const MARGIN_MIN: Duration = Duration::from_millis(10);
const MARGIN_MAX: Duration = Duration::from_millis(250);

/// The `grpc-timeout` is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 8 digits and a unit, one of `H`, `M`, `S`, `m`, `u`, `n`")]
struct MalformedTimeout;

/// Returns the caller's timeout for the whole call. `None`: the caller set no timeout.
///
/// # Errors
///
/// A violation if the timeout does not have the syntax of the gRPC protocol.
pub fn of(metadata: &MetadataMap) -> Result<Option<Duration>, Violations> {
    let Some(value) = metadata.get(HEADER) else {
        return Ok(None);
    };
    parse(value.as_bytes()).map(Some).map_err(|error| {
        let mut violations = Violations::new();
        violations.push(HEADER, FieldReason::ValueMalformed, error.to_string());
        violations
    })
}

/// Subtracts a margin from a caller's `timeout`: 2 % of it, but at least 10 ms and at most 250 ms. The margin lets the
/// service's own status arrive before the caller's timer fires.
#[must_use]
pub fn less_margin(timeout: Duration) -> Duration {
    timeout.saturating_sub((timeout / 50).clamp(MARGIN_MIN, MARGIN_MAX))
}

fn parse(timeout: &[u8]) -> Result<Duration, MalformedTimeout> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_parsed_with_the_syntax_of_the_protocol() {
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
    fn a_malformed_timeout_is_a_violation_and_an_absent_one_is_none() {
        let mut metadata = MetadataMap::new();
        assert_eq!(of(&metadata).unwrap(), None);
        metadata.insert(HEADER, "2S".parse().unwrap());
        assert_eq!(of(&metadata).unwrap(), Some(Duration::from_secs(2)));
        metadata.insert(HEADER, "soon".parse().unwrap());
        assert_eq!(of(&metadata).unwrap_err().as_slice()[0].field, HEADER);
    }

    #[test]
    fn less_margin_subtracts_2_percent_within_its_bounds() {
        for (timeout, left) in [(0, 0), (100, 90), (1_000, 980), (10_000, 9_800), (60_000, 59_750)] {
            let timeout = Duration::from_millis(timeout);
            assert_eq!(less_margin(timeout), Duration::from_millis(left), "{timeout:?}");
        }
    }
}
