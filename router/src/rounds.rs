//! Work that comes round: each thing of a changing set again and again, about one interval apart.
//!
//! It knows nothing of the work. Things are spread over the interval by chance, and how many are worked on at a time is
//! bounded, so that a thousand of them are no burst.

use std::{collections::HashMap, hash::Hash, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// How often it is looked which things there are.
const LOOK: Duration = Duration::from_secs(1);

/// How often each thing's turn comes, and how many are worked on at a time.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// From one turn to the next; a fifth more or less, by chance.
    pub interval: Duration,
    /// The most that are worked on at a time.
    pub parallel: usize,
}

/// Works in rounds until `stop`: `wanted` tells which things there are, and `work` is a turn of one.
///
/// # Cancel safety
///
/// Dropped, it drops the turns that run.
pub async fn run<K, F>(
    pace: Pace,
    mut wanted: impl FnMut() -> Vec<K>,
    mut work: impl FnMut(K) -> F,
    stop: CancellationToken,
) where
    K: Clone + Eq + Hash,
    F: Future<Output = ()> + Send + 'static,
{
    let mut rounds = Rounds::new(pace.interval);
    let mut turns = JoinSet::new();
    let mut look = Instant::now();
    loop {
        let now = Instant::now();
        if now >= look {
            rounds.keep(&wanted(), now);
            look = now + LOOK;
        }
        while turns.len() < pace.parallel
            && let Some(key) = rounds.next(now, fastrand::f64())
        {
            turns.spawn(work(key));
        }
        let is_full = turns.len() >= pace.parallel;
        let wake = rounds.soonest().filter(|_| !is_full).map_or(look, |due| due.min(look));
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep_until(wake) => {}
            // A turn that panics ends alone.
            Some(_) = turns.join_next() => {}
        }
    }
}

/// When the next turn of each thing is.
#[derive(Debug)]
struct Rounds<K> {
    interval: Duration,
    due: HashMap<K, Instant>,
}

impl<K: Clone + Eq + Hash> Rounds<K> {
    fn new(interval: Duration) -> Self {
        Self {
            interval,
            due: HashMap::new(),
        }
    }

    /// Takes over which things there are. A new one is due at once.
    fn keep(&mut self, wanted: &[K], now: Instant) {
        let mut due: HashMap<K, Instant> = HashMap::with_capacity(wanted.len());
        for key in wanted {
            let next = self.due.remove(key).unwrap_or(now);
            due.entry(key.clone()).or_insert(next);
        }
        self.due = due;
    }

    /// The thing that has been due for longest, whose turn comes again one interval from now. `chance` is uniform from 0
    /// to 1.
    fn next(&mut self, now: Instant, chance: f64) -> Option<K> {
        let (key, due) = self.due.iter_mut().min_by_key(|(_, due)| **due)?;
        if *due > now {
            return None;
        }
        *due = now + self.interval.mul_f64(0.2f64.mul_add(2.0 * chance - 1.0, 1.0));
        Some(key.clone())
    }

    fn soonest(&self) -> Option<Instant> {
        self.due.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use tokio::time::{sleep, timeout};

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    #[test]
    fn a_turn_comes_again_after_the_interval_a_fifth_more_or_less() {
        let now = Instant::now();
        for (chance, seconds) in [(0.0, 8), (0.5, 10), (1.0, 12)] {
            let mut rounds = Rounds::new(INTERVAL);
            rounds.keep(&["a"], now);
            assert_eq!(rounds.next(now, chance), Some("a"), "a new one is due at once");
            let next = now + Duration::from_secs(seconds);
            assert_eq!(rounds.next(next - Duration::from_millis(1), chance), None);
            assert_eq!(rounds.next(next, chance), Some("a"));
        }
    }

    #[test]
    fn who_waited_longest_is_next_and_who_is_gone_has_no_turn() {
        let now = Instant::now();
        let mut rounds = Rounds::new(INTERVAL);
        rounds.keep(&["a", "b"], now);
        let first = rounds.next(now, 0.0).unwrap();
        let second = rounds.next(now, 1.0).unwrap();
        assert_ne!(first, second);
        rounds.keep(&["a", "b", "c", "c"], now);
        assert_eq!(rounds.next(now, 0.5), Some("c"), "the others have had their turn");
        let later = now + Duration::from_secs(30);
        assert_eq!(rounds.next(later, 0.5), Some(first));
        rounds.keep(&[first], later);
        assert_eq!(rounds.next(later, 0.5), None, "the second is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_things_have_their_turns_few_at_a_time() {
        const COUNT: usize = 1000;
        let pace = Pace {
            interval: INTERVAL,
            parallel: 16,
        };
        let (turns, active, most) = <(Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let counted = (Arc::clone(&turns), Arc::clone(&most));
        let work = move |_: usize| {
            turns.fetch_add(1, Ordering::Relaxed);
            most.fetch_max(active.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            let active = Arc::clone(&active);
            async move {
                sleep(Duration::from_millis(10)).await;
                active.fetch_sub(1, Ordering::Relaxed);
            }
        };
        let rounds = run(pace, || (0..COUNT).collect(), work, CancellationToken::new());
        let minute = Duration::from_secs(60);
        timeout(minute, rounds).await.unwrap_err();
        let (turns, most) = (counted.0.load(Ordering::Relaxed), counted.1.load(Ordering::Relaxed));
        assert_eq!(most, 16);
        assert!((5 * COUNT..=7 * COUNT).contains(&turns), "{turns} turns in a minute");
    }
}
