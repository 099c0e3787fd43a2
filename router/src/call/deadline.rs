//! How long a call may take. Pure.

use std::time::Duration;

use switchboard::service::deadline::less_margin;

/// The minimum time that a call needs: with less time left it is not begun.
pub const BUDGET_MIN: Duration = Duration::from_millis(100);

/// Too little time is left to begin a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the deadline leaves less than {} ms for the call", BUDGET_MIN.as_millis())]
pub struct TooShort;

/// Returns how long a call may take: its caller's `timeout` minus a margin, and at most `total`. The margin lets the
/// router's own status arrive before the caller's timer fires.
///
/// # Errors
///
/// [`TooShort`] if less than 100 ms would be left.
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
    fn a_margin_is_kept_for_the_routers_own_status() {
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
