//! Plays many seeds. Each run has a runtime of its own, so that several runs can be played in parallel.

use std::{
    cell::Cell,
    panic::{self, AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use crate::{
    check::{self, Violation},
    history::History,
    world::{Plan, play},
};

/// How many runs are played in parallel.
const THREADS: usize = 2;

thread_local! {
    /// Number of panics on this thread. A panic in a task is caught by the runtime, so only this counter shows it.
    static PANICS: Cell<usize> = const { Cell::new(0) };
}

/// Installs a panic hook that counts panics and then calls the previous hook.
pub(crate) fn count_panics() {
    let say = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        PANICS.set(PANICS.get() + 1);
        say(info);
    }));
}

/// Plays a run. Returns `None` if any part of it has panicked.
pub(crate) fn run(plan: Plan) -> Option<History> {
    let before = PANICS.get();
    let history = catch_unwind(AssertUnwindSafe(|| play(plan))).ok();
    history.filter(|_| PANICS.get() == before)
}

/// Plays a run without planted defects and returns its violations as text, or `None` if it has none.
pub(crate) fn judge(seed: u64) -> Option<String> {
    let violations: Vec<Violation> = match run(Plan { seed, mutant: None }) {
        Some(history) => check::all(&history),
        None => return Some("a part of the run has panicked".to_owned()),
    };
    (!violations.is_empty()).then(|| format!("{violations:#?}"))
}

/// Applies `look` to the first `count` seeds and returns its results in the order of the seeds.
pub(crate) fn each<T: Send>(count: u64, look: impl Fn(u64) -> Option<T> + Sync) -> Vec<(u64, T)> {
    let next = AtomicU64::new(0);
    let work = || {
        let seeds = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
        let seeds = seeds.take_while(|seed| *seed < count);
        seeds.filter_map(|seed| Some((seed, look(seed)?))).collect::<Vec<_>>()
    };
    let mut seen: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    seen.sort_by_key(|(seed, _)| *seed);
    seen
}
