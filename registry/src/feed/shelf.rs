//! Keeps messages for all followers that need the same ones: recent deltas, and the snapshots and long deltas that are
//! being sent.
//!
//! The number of each kind is bounded, whatever followers do. Readers of a run of several messages only hold a weak
//! reference: a reader that is too slow finds that the run was dropped. A run is kept for at least [`READ_WITHIN`];
//! until then, followers that need another one wait.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use switchboard::{history::View, names::Revision};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until},
};

use super::run::Run;
use crate::domain::state::State;

/// Maximum number of snapshots and crowded deltas that are starting at the same time, so that a rush of followers is
/// served in turns instead of slowly all at once.
pub const STARTS: usize = 64;

/// Number of different snapshots that are kept, and number of different deltas of several messages that are kept before
/// deltas count as crowded.
pub const RUNS_KEPT: usize = 4;

/// How long a snapshot counts as starting, and how long a run that has readers is kept in any case.
pub const READ_WITHIN: Duration = Duration::from_secs(5);

/// Maximum number and maximum total bytes of the deltas of a single message that are kept.
const RECENT_MAX: usize = 64;
const RECENT_BYTES_MAX: usize = 1024 * 1024;

/// Keeps the shared messages of a feed.
#[derive(Debug)]
pub struct Shelf {
    kept: Mutex<ShelvedRun>,
    starts: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct ShelvedRun {
    /// Ordered from oldest to newest.
    recent: VecDeque<Recent>,
    recent_bytes: usize,
    deltas: Runs,
    snapshots: Runs,
}

/// A delta of a single message.
#[derive(Debug)]
struct Recent {
    view: View,
    from: Revision,
    to: Revision,
    bytes: Bytes,
}

/// Runs of several messages with their start times, oldest first.
#[derive(Debug, Default)]
struct Runs(Vec<(Instant, Arc<Run>)>);

/// The shelf's answer to a follower.
#[derive(Debug)]
pub enum Share {
    /// This single message contains everything.
    Single(Bytes),
    /// The messages of this run, as long as it is kept.
    Several(Weak<Run>),
    /// The follower needs a [`Start`] first, because many different deltas are being sent.
    Crowded,
    /// All slots are taken by runs that are being read. Ask again at this time.
    Busy(Instant),
}

/// The right to begin a snapshot, or a delta while these are crowded.
#[derive(Debug)]
pub struct Start {
    _permit: Option<OwnedSemaphorePermit>,
    until: Instant,
}

impl Default for Shelf {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            starts: Arc::new(Semaphore::new(STARTS)),
        }
    }
}

impl Shelf {
    /// Waits for a turn to begin a run.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, it loses its place in the queue.
    pub async fn start(&self) -> Start {
        // The semaphore is never closed, and an error would only mean that no limit applies.
        let permit = Arc::clone(&self.starts).acquire_owned().await.ok();
        Start {
            _permit: permit,
            until: Instant::now() + READ_WITHIN,
        }
    }

    /// Returns a snapshot of the revision `needed` or a later one. The caller must hold a [`Start`].
    pub fn snapshot(&self, view: View, needed: Revision, newest: &Arc<State>, now: Instant) -> Share {
        let mut kept = self.lock();
        // A snapshot below the floor is useless, because no delta can follow it.
        let needed = needed.max(newest.items.oldest_resumable());
        let is_it = |run: &Run| run.view() == view && run.to().revision >= needed;
        match kept.snapshots.find(is_it) {
            Some(run) => Share::Several(run),
            None => match kept.snapshots.make_room(RUNS_KEPT, now) {
                Ok(()) => kept.snapshots.keep(Run::snapshot(newest, view), now),
                Err(until) => Share::Busy(until),
            },
        }
    }

    /// Returns a delta from `from` to `newest`, which must still have all changes after `from`.
    pub fn delta(&self, view: View, from: Revision, newest: &Arc<State>, now: Instant) -> Share {
        match self.delta_among(RUNS_KEPT, view, from, newest, now) {
            Share::Busy(_) => Share::Crowded,
            share => share,
        }
    }

    /// Like [`Self::delta`], for a caller that holds a [`Start`]. There is a slot for every `Start`.
    pub fn crowded_delta(&self, view: View, from: Revision, newest: &Arc<State>, now: Instant) -> Share {
        self.delta_among(RUNS_KEPT + STARTS, view, from, newest, now)
    }

    fn delta_among(&self, places: usize, view: View, from: Revision, newest: &Arc<State>, now: Instant) -> Share {
        let to = newest.items.revision();
        let mut kept = self.lock();
        if let Some(bytes) = kept.find_recent(view, from, to) {
            return Share::Single(bytes);
        }
        let is_it = |run: &Run| run.view() == view && run.from() == Some(from) && run.to().revision == to;
        if let Some(run) = kept.deltas.find(is_it) {
            return Share::Several(run);
        }
        let run = Run::delta(newest, view, from);
        match run.message(0) {
            Some(only) if only.is_last => {
                let bytes = only.bytes;
                kept.keep_recent(Recent {
                    view,
                    from,
                    to,
                    bytes: bytes.clone(),
                });
                Share::Single(bytes)
            }
            Some(_) | None => match kept.deltas.make_room(places, now) {
                Ok(()) => kept.deltas.keep(run, now),
                Err(until) => Share::Busy(until),
            },
        }
    }

    fn lock(&self) -> MutexGuard<'_, ShelvedRun> {
        self.kept.lock()
    }
}

impl ShelvedRun {
    fn find_recent(&self, view: View, from: Revision, to: Revision) -> Option<Bytes> {
        let mut newest_first = self.recent.iter().rev();
        newest_first
            .find(|recent| recent.view == view && recent.from == from && recent.to == to)
            .map(|recent| recent.bytes.clone())
    }

    fn keep_recent(&mut self, recent: Recent) {
        self.recent_bytes += recent.bytes.len();
        self.recent.push_back(recent);
        while (self.recent.len() > RECENT_MAX || self.recent_bytes > RECENT_BYTES_MAX)
            && let Some(oldest) = self.recent.pop_front()
        {
            self.recent_bytes -= oldest.bytes.len();
        }
    }
}

impl Runs {
    fn find(&self, is_it: impl Fn(&Run) -> bool) -> Option<Weak<Run>> {
        let mut newest_first = self.0.iter().rev();
        newest_first
            .find(|(_, run)| is_it(run))
            .map(|(_, run)| Arc::downgrade(run))
    }

    /// Makes room for one more run among `places` slots. Removes a run without readers or, if there is none, the oldest
    /// run if it was kept for its full time. Otherwise the error is the time when the oldest run may be removed.
    fn make_room(&mut self, places: usize, now: Instant) -> Result<(), Instant> {
        if self.0.len() < places {
            return Ok(());
        }
        let unread = self.0.iter().position(|(_, run)| Arc::weak_count(run) == 0);
        let oldest_ends = self.0.first().map_or(now, |(begun, _)| *begun + READ_WITHIN);
        match unread {
            Some(index) => drop(self.0.remove(index)),
            None if oldest_ends <= now => drop(self.0.remove(0)),
            None => return Err(oldest_ends),
        }
        Ok(())
    }

    fn keep(&mut self, run: Run, now: Instant) -> Share {
        let run = Arc::new(run);
        let claim = Arc::downgrade(&run);
        self.0.push((now, run));
        Share::Several(claim)
    }
}

impl Start {
    /// Waits until the turn has to be given back, whether or not the run was read.
    pub async fn over(&self) {
        sleep_until(self.until).await;
    }
}

#[cfg(test)]
mod tests;
