//! Periodic work: runs an operation again and again for every key of a changing set.
//!
//! It does not know what the operation does. The number of concurrent runs is bounded, so that a thousand keys do not
//! cause a burst, and a key never has two runs at the same time.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::Hash,
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// The maximum number of concurrent runs.
const PARALLEL: usize = 16;
/// How often the loop asks which keys are due.
const LOOK: Duration = Duration::from_secs(1);

/// Runs until `stop` is cancelled. `due` returns the keys that are due and is called every second; `work` is one run
/// for a key.
///
/// # Cancel safety
///
/// Dropping the future aborts the active runs.
pub async fn run<K, F>(mut due: impl FnMut(Instant) -> Vec<K>, mut work: impl FnMut(K) -> F, stop: CancellationToken)
where
    K: Clone + Eq + Hash,
    F: Future<Output = ()> + Send + 'static,
{
    let (mut waiting, mut running, mut held) = (VecDeque::new(), HashMap::new(), HashSet::new());
    let mut turns = JoinSet::new();
    let mut look = Instant::now();
    loop {
        let now = Instant::now();
        if now >= look {
            waiting.extend(due(now).into_iter().filter(|key| held.insert(key.clone())));
            look = now + LOOK;
        }
        while turns.len() < PARALLEL
            && let Some(key) = waiting.pop_front()
        {
            let turn = turns.spawn(work(key.clone()));
            running.insert(turn.id(), key);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep_until(look) => {}
            Some(ended) = turns.join_next_with_id() => {
                // A run that panics does not affect the others.
                let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                if let Some(key) = running.remove(&id) {
                    held.remove(&key);
                }
            }
        }
    }
}

/// When each key is due next: about one interval after its last run.
#[derive(Debug)]
pub struct Rounds<K> {
    interval: Duration,
    next: HashMap<K, Instant>,
}

impl<K: Clone + Eq + Hash> Rounds<K> {
    /// Creates a schedule with this interval, to which each run adds a random deviation of up to 20 percent.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            next: HashMap::new(),
        }
    }

    /// Returns those of `things` that are due and schedules their next run; a new key is due at once. `chance` returns
    /// a uniform value from 0 to 1.
    pub fn due(&mut self, things: Vec<K>, now: Instant, mut chance: impl FnMut() -> f64) -> Vec<K> {
        let mut next = HashMap::with_capacity(things.len());
        let mut due = Vec::new();
        for key in things {
            let mut at = self.next.remove(&key).unwrap_or(now);
            if at <= now {
                at = now + self.interval.mul_f64(0.4f64.mul_add(chance(), 0.8));
                due.push(key.clone());
            }
            next.insert(key, at);
        }
        self.next = next;
        due
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
    fn a_key_is_due_again_after_the_interval_plus_or_minus_20_percent() {
        let now = Instant::now();
        for (chance, seconds) in [(0.0, 8), (0.5, 10), (1.0, 12)] {
            let mut rounds = Rounds::new(INTERVAL);
            let mut due = |at| rounds.due(vec!["a"], at, || chance);
            assert_eq!(due(now), ["a"], "a new key is due at once");
            let next = now + Duration::from_secs(seconds);
            assert!(due(next - Duration::from_millis(1)).is_empty());
            assert_eq!(due(next + Duration::from_millis(1)), ["a"]);
        }
    }

    #[test]
    fn a_removed_key_is_not_due_and_a_key_that_returns_counts_as_new() {
        let now = Instant::now();
        let mut rounds = Rounds::new(INTERVAL);
        let mut due = |things: &[&'static str]| rounds.due(things.to_vec(), now, || 0.5);
        assert_eq!(due(&["a", "b"]), ["a", "b"]);
        assert_eq!(due(&["a", "b", "c"]), ["c"], "the other keys have already run");
        assert!(due(&["a"]).is_empty());
        assert_eq!(due(&["a", "b"]), ["b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_keys_run_with_bounded_concurrency() {
        const COUNT: usize = 1000;
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
        let mut rounds = Rounds::new(INTERVAL);
        let due = |now| rounds.due((0..COUNT).collect(), now, fastrand::f64);
        let minute = Duration::from_secs(60);
        timeout(minute, run(due, work, CancellationToken::new()))
            .await
            .unwrap_err();
        let (turns, most) = (counted.0.load(Ordering::Relaxed), counted.1.load(Ordering::Relaxed));
        assert_eq!(most, PARALLEL);
        assert!((5 * COUNT..=7 * COUNT).contains(&turns), "{turns} runs in a minute");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_or_panicking_run_does_not_affect_other_keys() {
        let turns = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&turns);
        let work = move |is_slow: bool| {
            turns.fetch_add(1, Ordering::Relaxed);
            async move {
                if is_slow {
                    std::future::pending::<()>().await;
                } else {
                    panic!("on purpose");
                }
            }
        };
        // Both are always due.
        let rounds = run(|_| vec![true, false], work, CancellationToken::new());
        timeout(Duration::from_millis(9500), rounds).await.unwrap_err();
        assert_eq!(counted.load(Ordering::Relaxed), 1 + 10);
    }
}
