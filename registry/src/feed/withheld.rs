//! Routers that get no configuration because their cursors contradict this registry's history. Counts them, and records
//! above which mark a new life of the store must begin so that they follow it.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use switchboard::{
    history::Cursor,
    stream::{Resume, WithheldWhy},
};
use tokio::sync::watch;

use crate::domain::life::Mark;

/// The routers that get no configuration. Their identities are known to the fleet.
#[derive(Debug)]
pub struct Withheld {
    known: Mutex<Contradicting>,
    is_accepted: watch::Sender<bool>,
}

#[derive(Debug)]
struct Contradicting {
    connected: usize,
    seen: Mark,
}

/// One connected router that gets no configuration. It is counted until this is dropped.
#[derive(Debug)]
pub(super) struct WithheldRouter(Arc<Withheld>);

impl Default for Withheld {
    fn default() -> Self {
        Self {
            known: Mutex::new(Contradicting {
                connected: 0,
                seen: Mark::NONE,
            }),
            is_accepted: watch::Sender::new(true),
        }
    }
}

impl Withheld {
    /// Counts a router that follows another history, and records the cursor that it sent.
    pub(super) fn enter(self: &Arc<Self>, why: WithheldWhy, resume: Resume) -> WithheldRouter {
        let mut known = self.lock();
        known.connected += 1;
        if let Resume::At(cursor) = resume {
            known.seen = known.seen.or_higher(mark(&cursor));
        }
        let (is_first, seen) = (known.connected == 1, known.seen);
        // Sent while the lock is held, so that it never reflects an older count.
        self.is_accepted.send_replace(false);
        drop(known);
        if is_first {
            tracing::error!(
                reason = ?why, above = %seen,
                "a router has a history that this database does not have, and keeps its last good catalog: `restore` a \
                 newer backup, or declare this database's content the newest with `accept-history`; if the registry \
                 is stopped for that, add `--above {seen}`"
            );
        }
        WithheldRouter(Arc::clone(self))
    }

    /// Returns the number of connected routers that get no configuration.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.lock().connected
    }

    /// Returns the highest incarnation number and the highest revision that such routers have sent since the registry
    /// started.
    #[must_use]
    pub fn seen(&self) -> Mark {
        self.lock().seen
    }

    /// Returns a receiver that is true while no such router is connected.
    #[must_use]
    pub fn is_accepted(&self) -> watch::Receiver<bool> {
        self.is_accepted.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Contradicting> {
        self.known.lock()
    }
}

/// Returns the cursor's mark. Numbers that are too high to belong to any history are ignored.
fn mark(cursor: &Cursor) -> Mark {
    Mark::new(cursor.incarnation.number, cursor.revision.get()).unwrap_or(Mark::NONE)
}

impl Drop for WithheldRouter {
    fn drop(&mut self) {
        let mut known = self.0.lock();
        known.connected -= 1;
        if known.connected == 0 {
            self.0.is_accepted.send_replace(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use switchboard::{history::View, names::Revision};

    use super::*;
    use crate::testing::History;

    #[test]
    fn the_history_is_accepted_while_no_router_is_withheld() {
        let withheld = Arc::new(Withheld::default());
        let is_accepted = withheld.is_accepted();
        assert!(*is_accepted.borrow());
        let places = [(); 2].map(|()| withheld.enter(WithheldWhy::Ahead, Resume::Unreadable));
        assert_eq!((*is_accepted.borrow(), withheld.connected()), (false, 2));
        drop(places);
        assert_eq!((*is_accepted.borrow(), withheld.connected()), (true, 0));
    }

    #[test]
    fn the_highest_seen_mark_is_kept_and_impossible_numbers_are_ignored() {
        let withheld = Arc::new(Withheld::default());
        let cursor = History::with_revisions(3).cursor_at(3, View::Router);
        let seen = |revision| {
            let revision = Revision::new(revision).unwrap();
            drop(withheld.enter(WithheldWhy::Ahead, Resume::At(Cursor { revision, ..cursor })));
            withheld.seen().to_string()
        };
        assert_eq!(seen(9), "2,9");
        assert_eq!(seen(5), "2,9");
        assert_eq!(seen(i64::MAX), "2,9");
    }
}
