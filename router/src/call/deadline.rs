//! How long a call may take. Pure.

use std::time::Duration;

use switchboard::service::deadline::less_margin;

/// With less than this left a call is not begun.
pub const BUDGET_MIN: Duration = Duration::from_millis(100);

/// Too little time is left to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("less than {} ms are left of the deadline", BUDGET_MIN.as_millis())]
pub struct TooShort;

/// What a call may take of its caller's `timeout`, at most `total`: less a margin, so that our own status arrives before
/// the caller's timer fires.
///
/// # Errors
///
/// [`TooShort`] when less than 100 ms would be left.
pub fn budget(timeout: Option<Duration>, total: Duration) -> Result<Duration, TooShort> {
    let Some(timeout) = timeout else { return Ok(total) };
    let budget = less_margin(timeout);
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
