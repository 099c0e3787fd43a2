//! What is being sent, kept for all who need the same: recent deltas, and the snapshots and long deltas under way.
//!
//! Whatever followers do, it holds a bounded number of each. Of what takes many messages, readers have no more than a
//! claim: one that is too slow finds that it is gone. Each has at least [`READ_WITHIN`] to read; until then others wait.

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

/// How many snapshots and crowded deltas start at a time, so that a storm of followers is served in turns and not all at a
/// crawl.
pub const STARTS: usize = 64;

/// How many different snapshots are kept, and how many different deltas of several messages before these are crowded.
pub const RUNS_KEPT: usize = 4;

/// How long a snapshot counts as starting, and a run that is read is kept whatever comes.
pub const READ_WITHIN: Duration = Duration::from_secs(5);

/// How many deltas of a single message are kept, and how many bytes of them.
const RECENT_MAX: usize = 64;
const RECENT_BYTES_MAX: usize = 1024 * 1024;

/// The place of all shared messages of a feed.
#[derive(Debug)]
pub struct Shelf {
    kept: Mutex<ShelvedRun>,
    starts: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct ShelvedRun {
    /// Newest last.
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

/// Runs of several messages, oldest first, with the time when each was begun.
#[derive(Debug, Default)]
struct Runs(Vec<(Instant, Arc<Run>)>);

/// What a follower gets.
#[derive(Debug)]
pub enum Share {
    /// All in this message.
    Single(Bytes),
    /// The messages of this run, as long as it is kept.
    Several(Weak<Run>),
    /// Nothing without a [`Start`]: many are being sent deltas of their own.
    Crowded,
    /// Nothing yet: as many as may be are being read. To be asked for again at this time.
    Busy(Instant),
}

/// The right to begin a snapshot, or a delta where they are crowded.
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
    /// Waits, in turn, until one more may begin.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it loses its turn.
    pub async fn start(&self) -> Start {
        // It is never closed: a failure would mean that no limit is left to keep.
        let permit = Arc::clone(&self.starts).acquire_owned().await.ok();
        Start {
            _permit: permit,
            until: Instant::now() + READ_WITHIN,
        }
    }

    /// A snapshot that shows the revision `needed` or a later one, for whoever has a [`Start`].
    pub fn snapshot(&self, view: View, needed: Revision, newest: &Arc<State>, now: Instant) -> Share {
        let mut kept = self.lock();
        // One from which deltas no longer go on is of no use.
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

    /// What has changed after `from` up to `newest`, which must remember that far back.
    pub fn delta(&self, view: View, from: Revision, newest: &Arc<State>, now: Instant) -> Share {
        match self.delta_among(RUNS_KEPT, view, from, newest, now) {
            Share::Busy(_) => Share::Crowded,
            share => share,
        }
    }

    /// The same for whoever has a [`Start`], so that each who has one finds a place.
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

    /// Makes room for one more among so many. One that nobody reads goes first, else the oldest that has had its time; when
    /// none has, the error says when one will have.
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
    /// Waits until it is to be given back, read or not.
    pub async fn over(&self) {
        sleep_until(self.until).await;
    }
}

#[cfg(test)]
mod tests;
