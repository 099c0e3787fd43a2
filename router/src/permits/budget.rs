//! The budget of a model for repeated calls. Without it, repeats would send several times as many requests to a server
//! that fails every call. Pure.

use std::collections::VecDeque;

use tokio::time::Instant;

/// Length of the window, in seconds.
const WINDOW: u64 = 10;
/// There is one repeat for this many calls.
const CALLS_A_REPEAT: u64 = 5;
/// The number of repeats in a window that are always allowed: one a second, for models with few calls. It is a minimum,
/// not an addition: added to the share, it would allow 1.22 requests for each call at fifty calls a second.
const REPEATS_MIN: u64 = WINDOW;
/// There is one hedge for this many calls.
const CALLS_A_HEDGE: u64 = 20;
/// The maximum credit for hedges that can be saved up, in calls.
const HEDGE_CREDIT_MAX: u64 = 10 * CALLS_A_HEDGE;

/// The calls and the repeats of one model in the last ten seconds.
#[derive(Debug)]
pub(super) struct Budget {
    begun: Instant,
    /// The seconds in which there were calls or repeats, oldest first.
    seconds: VecDeque<Second>,
    /// Credit for hedges, in calls. It starts with enough for one hedge.
    hedge_credit: u64,
}

#[derive(Debug)]
struct Second {
    number: u64,
    calls: u64,
    repeats: u64,
}

impl Budget {
    /// Creates the budget of a model that was not called yet.
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            begun: now,
            seconds: VecDeque::new(),
            hedge_credit: CALLS_A_HEDGE,
        }
    }

    /// Counts a call.
    pub(super) fn call(&mut self, now: Instant) {
        self.count(now, 1, 0);
        self.hedge_credit = (self.hedge_credit + 1).min(HEDGE_CREDIT_MAX);
    }

    /// Whether a call whose last attempt cost a server work may be repeated now. If so, the repeat is counted.
    pub(super) fn repeat(&mut self, now: Instant) -> bool {
        self.forget(now);
        let (mut calls, mut repeats) = (0, 0);
        for second in &self.seconds {
            calls += second.calls;
            repeats += second.repeats;
        }
        let may_repeat = repeats < REPEATS_MIN.max(calls / CALLS_A_REPEAT);
        if may_repeat {
            self.count(now, 0, 1);
        }
        may_repeat
    }

    /// Whether a call may have a second attempt in parallel with its first. If so, the credit is reduced.
    pub(super) const fn hedge(&mut self) -> bool {
        let Some(left) = self.hedge_credit.checked_sub(CALLS_A_HEDGE) else {
            return false;
        };
        self.hedge_credit = left;
        true
    }

    fn count(&mut self, now: Instant, calls: u64, repeats: u64) {
        let number = self.number(now);
        match self.seconds.back_mut() {
            Some(last) if last.number >= number => {
                last.calls += calls;
                last.repeats += repeats;
            }
            Some(_) | None => {
                self.forget(now);
                self.seconds.push_back(Second { number, calls, repeats });
            }
        }
    }

    fn forget(&mut self, now: Instant) {
        let number = self.number(now);
        while self
            .seconds
            .front()
            .is_some_and(|first| first.number + WINDOW <= number)
        {
            self.seconds.pop_front();
        }
    }

    fn number(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.begun).as_secs()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn if_all_calls_fail_a_fifth_of_them_is_repeated_at_most() {
        let begun = Instant::now();
        for (calls_a_second, seconds) in [(50, 1), (50, 60), (200, 7), (1000, 25)] {
            let mut budget = Budget::new(begun);
            let mut requests = 0;
            let calls = calls_a_second * seconds;
            for number in 0..calls {
                let now = begun + Duration::from_secs(1) * number / calls_a_second;
                budget.call(now);
                requests += 1;
                // A call may be tried up to two more times.
                requests += (0..2).take_while(|_| budget.repeat(now)).count();
            }
            let most = calls * 6 / 5;
            assert!(requests <= most as usize, "{requests} requests for {calls} calls");
            assert!(
                requests >= most as usize - 1,
                "the whole budget can be used: {requests} requests for {calls} calls"
            );
        }
    }

    #[test]
    fn a_model_with_few_calls_may_repeat_one_a_second() {
        let begun = Instant::now();
        let mut budget = Budget::new(begun);
        let in_window = |budget: &mut Budget, second| {
            let now = begun + Duration::from_secs(second);
            budget.call(now);
            (0..100).take_while(|_| budget.repeat(now)).count()
        };
        assert_eq!(in_window(&mut budget, 0), 10);
        assert_eq!(in_window(&mut budget, 9), 0);
        assert_eq!(in_window(&mut budget, 10), 10);
    }

    #[test]
    fn a_twentieth_of_the_calls_and_one_more_can_be_hedged() {
        let begun = Instant::now();
        let mut budget = Budget::new(begun);
        let hedged = (0..1000).filter(|_| {
            budget.call(begun);
            budget.hedge()
        });
        assert_eq!(hedged.count(), 51);
        // The credit that can be saved up is bounded.
        (0..10_000).for_each(|_| budget.call(begun));
        assert_eq!((0..100).filter(|_| budget.hedge()).count(), 10);
    }
}
