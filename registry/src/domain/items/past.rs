//! The records that are kept of past revisions, and when they are cut off.
//!
//! The *floor* is the oldest revision that deltas can be served from. From the floor on, changes, tombstones and the
//! digests of each state are kept. Below it, for ten times as many revisions, only chain digests are kept: they
//! distinguish an old cursor from a cursor of another history. Counts and bytes decide what is kept, never a clock.

use std::{collections::VecDeque, time::SystemTime};

use switchboard::{
    digest::{ChainDigest, StateDigest},
    history::View,
    names::Revision,
};

/// Maximum number of revisions that one round of writes cuts off, so that no write has to wait long.
const CUT_MAX: i64 = 1024;

/// How much of the history is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Number of revisions whose changes are kept.
    pub revisions: i64,
    /// Maximum size of these changes in bytes. If they are larger, fewer revisions are kept.
    pub change_bytes: usize,
    /// Number of answers that are kept for writes with a request id.
    pub answers: i64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            revisions: 100_000,
            change_bytes: 256 * 1024 * 1024,
            answers: 100_000,
        }
    }
}

impl Retention {
    /// Returns the number of revisions whose chain digests are kept.
    const fn chains(&self) -> i64 {
        self.revisions.saturating_mul(10)
    }
}

/// The record of a revision, against which cursors are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Past {
    /// The revision.
    pub revision: Revision,
    /// Chain digest of the history up to the revision.
    pub chain: ChainDigest,
    /// State digest of the view CONFIG.
    pub config: StateDigest,
    /// State digest of the view ROUTER.
    pub router: StateDigest,
    /// When the revision was committed. For display only.
    pub commit_time: SystemTime,
    /// Size of its changes in bytes. 0 if they are not kept.
    pub change_bytes: usize,
}

impl Past {
    /// Returns the state digest of a view.
    #[must_use]
    pub const fn state(&self, view: View) -> StateDigest {
        match view {
            View::Config => self.config,
            View::Router => self.router,
        }
    }

    /// Returns the size in bytes of the change of one name: the name, a digest, the previous value, and overhead.
    #[must_use]
    pub const fn change_bytes_of(name: &str, before: usize) -> usize {
        name.len() + before + 48
    }
}

/// Where to cut a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The floor before the cut.
    pub from: Revision,
    /// The floor after the cut.
    pub floor: Revision,
    /// The oldest revision whose chain digest is kept.
    pub oldest_chain: Revision,
}

/// The kept revisions of one incarnation, without gaps.
#[derive(Debug, Clone, Default)]
pub(super) struct Log {
    /// Chain digests of the revisions below the first of `past`, oldest first.
    chains: VecDeque<ChainDigest>,
    /// The revisions from the floor on, oldest first.
    past: VecDeque<Past>,
    /// Size of all changes of `past` in bytes.
    change_bytes: usize,
}

impl Log {
    pub(super) fn new(chains: Vec<ChainDigest>, past: Vec<Past>) -> Self {
        Self {
            change_bytes: past.iter().map(|past| past.change_bytes).sum(),
            chains: chains.into(),
            past: past.into(),
        }
    }

    /// Adds the next revision. A stored revision with the same or a higher number was rolled back before anything read
    /// it, and is replaced.
    pub(super) fn push(&mut self, next: Past) {
        while let Some(undone) = self.past.pop_back_if(|known| known.revision >= next.revision) {
            self.change_bytes -= undone.change_bytes;
        }
        self.change_bytes += next.change_bytes;
        self.past.push_back(next);
    }

    pub(super) fn past(&self, revision: Revision) -> Option<Past> {
        let floor = self.past.front()?.revision;
        let index = usize::try_from(revision.get().checked_sub(floor.get())?).ok()?;
        self.past.get(index).copied()
    }

    pub(super) fn chain(&self, revision: Revision) -> Option<ChainDigest> {
        let floor = self.past.front()?.revision;
        let Ok(below) = usize::try_from(floor.get() - revision.get()) else {
            return self.past(revision).map(|past| past.chain);
        };
        match below {
            0 => self.past.front().map(|past| past.chain),
            below => self.chains.get(self.chains.len().checked_sub(below)?).copied(),
        }
    }

    /// Returns where to cut now. `None`: nowhere. The newest revision is always kept.
    pub(super) fn due(&self, retention: &Retention) -> Option<Cut> {
        let (first, head) = (self.past.front()?, self.past.back()?.revision.get());
        let from = first.revision.get();
        let mut floor = from;
        // A follower that resumes at the floor does not need the changes of the floor itself.
        let mut bytes = self.change_bytes - first.change_bytes;
        for next in self
            .past
            .iter()
            .skip(1)
            .take(usize::try_from(CUT_MAX).unwrap_or(usize::MAX))
        {
            if head - floor <= retention.revisions && bytes <= retention.change_bytes {
                break;
            }
            floor = next.revision.get();
            bytes -= next.change_bytes;
        }
        let oldest = from - i64::try_from(self.chains.len()).unwrap_or(i64::MAX);
        let oldest_chain = (head - retention.chains()).min(oldest + CUT_MAX).min(floor).max(oldest);
        let is_due = floor > from || oldest_chain > oldest;
        let cut = Cut {
            from: first.revision,
            floor: Revision::new(floor)?,
            oldest_chain: Revision::new(oldest_chain)?,
        };
        is_due.then_some(cut)
    }

    pub(super) fn cut(&mut self, cut: Cut) {
        while let Some(old) = self.past.pop_front_if(|past| past.revision < cut.floor) {
            self.change_bytes -= old.change_bytes;
            self.chains.push_back(old.chain);
        }
        if let Some(floor) = self.past.front_mut() {
            self.change_bytes -= floor.change_bytes;
            floor.change_bytes = 0;
        }
        let kept = usize::try_from(cut.floor.get() - cut.oldest_chain.get()).unwrap_or_default();
        let surplus = self.chains.len().saturating_sub(kept);
        self.chains.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(revision: i64, change_bytes: usize) -> Past {
        let revision = Revision::new(revision).unwrap();
        Past {
            revision,
            chain: ChainDigest::NONE.extended(revision, []),
            config: StateDigest::EMPTY,
            router: StateDigest::EMPTY,
            commit_time: SystemTime::UNIX_EPOCH,
            change_bytes,
        }
    }

    fn revision(number: i64) -> Revision {
        Revision::new(number).unwrap()
    }

    fn retention(revisions: i64, change_bytes: usize) -> Retention {
        Retention {
            revisions,
            change_bytes,
            ..Retention::default()
        }
    }

    fn log(count: i64, bytes: usize) -> Log {
        Log::new(Vec::new(), (1..=count).map(|number| past(number, bytes)).collect())
    }

    #[test]
    fn the_floor_follows_the_revision_count_and_chains_are_kept_ten_times_as_long() {
        let keep = retention(3, usize::MAX);
        assert_eq!(log(4, 1).due(&keep), None, "three revisions after the floor");
        let mut log = log(4, 1);
        for number in 5..=100 {
            log.push(past(number, 1));
            let cut = log.due(&keep).unwrap();
            log.cut(cut);
            assert_eq!(cut.floor.get(), number - 3);
            assert_eq!(cut.oldest_chain.get(), (number - 30).max(1));
            assert_eq!(log.past(cut.floor).unwrap().revision, cut.floor);
            assert_eq!(log.past(revision(number - 4)), None);
            for kept in cut.oldest_chain.get()..=number {
                assert_eq!(
                    log.chain(revision(kept)),
                    Some(past(kept, 1).chain),
                    "{kept} of {number}"
                );
            }
            assert_eq!(log.chain(revision(cut.oldest_chain.get() - 1)), None);
            assert_eq!(log.due(&keep), None);
        }
    }

    #[test]
    fn the_floor_follows_the_change_bytes_and_the_newest_revision_stays() {
        let cut = log(10, 100).due(&retention(1000, 250)).unwrap();
        assert_eq!((cut.from.get(), cut.floor.get()), (1, 8));
        let cut = log(10, 100).due(&retention(1000, 0)).unwrap();
        assert_eq!(cut.floor.get(), 10);
    }

    #[test]
    fn one_cut_removes_a_limited_number_of_revisions() {
        let mut log = log(3000, 1);
        let keep = retention(1, usize::MAX);
        let mut floors = Vec::new();
        while let Some(cut) = log.due(&keep) {
            log.cut(cut);
            floors.push(cut.floor.get());
        }
        assert_eq!(floors[..2], [1025, 2049]);
        assert_eq!(log.past.front().unwrap().revision.get(), 2999);
        assert_eq!(log.chains.len(), 9);
    }

    #[test]
    fn a_rolled_back_revision_is_replaced() {
        let mut log = log(3, 10);
        log.push(past(2, 7));
        assert_eq!((log.past(revision(3)), log.change_bytes), (None, 17));
    }
}
