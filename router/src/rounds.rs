//! Work that comes round: each thing of a changing set again and again.
//!
//! It knows nothing of the work. How many things are worked on at a time is bounded, so that a thousand of them are no burst,
//! and no thing has two turns at a time.

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

/// The most things that are worked on at a time.
const PARALLEL: usize = 16;
/// How often it is looked what is due.
const LOOK: Duration = Duration::from_secs(1);

/// Works until `stop`: `due` tells which things are due, and is asked every second; `work` is a turn of one.
///
/// # Cancel safety
///
/// Dropped, it drops the turns that run.
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
                // A turn that panics ends alone.
                let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                if let Some(key) = running.remove(&id) {
                    held.remove(&key);
                }
            }
        }
    }
}

/// When each thing's turn is, about one interval after the last.
#[derive(Debug)]
pub struct Rounds<K> {
    interval: Duration,
    next: HashMap<K, Instant>,
}

impl<K: Clone + Eq + Hash> Rounds<K> {
    /// Rounds that take so long, a fifth more or less by chance.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            next: HashMap::new(),
        }
    }

    /// What is due of these things, each told once a round; a new one is due at once. `chance` is uniform from 0 to 1.
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
    fn a_turn_comes_again_after_the_interval_a_fifth_more_or_less() {
        let now = Instant::now();
        for (chance, seconds) in [(0.0, 8), (0.5, 10), (1.0, 12)] {
            let mut rounds = Rounds::new(INTERVAL);
            let mut due = |at| rounds.due(vec!["a"], at, || chance);
            assert_eq!(due(now), ["a"], "a new one is due at once");
            let next = now + Duration::from_secs(seconds);
            assert!(due(next - Duration::from_millis(1)).is_empty());
            assert_eq!(due(next + Duration::from_millis(1)), ["a"]);
        }
    }

    #[test]
    fn what_is_gone_has_no_turn_and_what_comes_back_is_new() {
        let now = Instant::now();
        let mut rounds = Rounds::new(INTERVAL);
        let mut due = |things: &[&'static str]| rounds.due(things.to_vec(), now, || 0.5);
        assert_eq!(due(&["a", "b"]), ["a", "b"]);
        assert_eq!(due(&["a", "b", "c"]), ["c"], "the others have had their turn");
        assert!(due(&["a"]).is_empty());
        assert_eq!(due(&["a", "b"]), ["b"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_things_have_their_turns_few_at_a_time() {
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
        assert!((5 * COUNT..=7 * COUNT).contains(&turns), "{turns} turns in a minute");
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_takes_long_or_panics_is_alone() {
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
