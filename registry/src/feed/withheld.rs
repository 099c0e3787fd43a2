//! Routers that get no configuration, since what they have contradicts this registry's history: how many there are, and
//! above what a new life of the store has to begin so that they follow it.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use switchboard::{
    history::Cursor,
    stream::{Resume, WithheldWhy},
};
use tokio::sync::watch;

use crate::domain::life::Mark;

/// The routers that are withheld from. Who they are is known to the fleet.
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

/// One router that is withheld from, until it is dropped.
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
    /// Takes in a router that follows another history, by the cursor that it came with.
    pub(super) fn enter(self: &Arc<Self>, why: WithheldWhy, resume: Resume) -> WithheldRouter {
        let mut known = self.lock();
        known.connected += 1;
        if let Resume::At(cursor) = resume {
            known.seen = known.seen.or_higher(mark(&cursor));
        }
        let (is_first, seen) = (known.connected == 1, known.seen);
        // Within the lock, so that it never tells an older count.
        self.is_accepted.send_replace(false);
        drop(known);
        if is_first {
            tracing::error!(
                reason = ?why, above = %seen,
                "a router has a history that this database has not, and keeps its last good catalog: `restore` a backup that \
                 is newer, or declare this database's content the newest with `accept-history`; if the registry is stopped \
                 for that, add `--above {seen}`"
            );
        }
        WithheldRouter(Arc::clone(self))
    }

    /// How many are connected.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.lock().connected
    }

    /// The highest number and revision that any of them came with since the registry started.
    #[must_use]
    pub fn seen(&self) -> Mark {
        self.lock().seen
    }

    /// Whether none is connected, and a bell for when that changes.
    #[must_use]
    pub fn is_accepted(&self) -> watch::Receiver<bool> {
        self.is_accepted.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Contradicting> {
        self.known.lock()
    }
}

/// Numbers that are beyond all reason are nobody's history.
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
    fn the_history_is_accepted_while_no_router_is_withheld_from() {
        let withheld = Arc::new(Withheld::default());
        let is_accepted = withheld.is_accepted();
        assert!(*is_accepted.borrow());
        let places = [(); 2].map(|()| withheld.enter(WithheldWhy::Ahead, Resume::Unreadable));
        assert_eq!((*is_accepted.borrow(), withheld.connected()), (false, 2));
        drop(places);
        assert_eq!((*is_accepted.borrow(), withheld.connected()), (true, 0));
    }

    #[test]
    fn the_highest_that_was_seen_is_kept_and_nonsense_is_not() {
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
