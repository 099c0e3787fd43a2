//! Waits until a revision is in force, by what the fleet tells.

use std::{sync::Arc, time::Duration};

use tokio::{
    select,
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    Fleet,
    wait::{AwaitedRevision, InForce, Set, WaitError, WaitVerdict},
};
use crate::domain::state::State;

/// The most waits at a time. Each is told of every report, so that they are few.
const WAITS_MAX: usize = 64;

/// A wait as the fleet sees it: it tells the set what happens, and wakes who waits when that decides it.
#[derive(Debug)]
pub(super) struct Wait {
    pub(super) set: Set,
    decided: Arc<Notify>,
}

impl Wait {
    /// Lets the set know something.
    pub(super) fn tell(&mut self, tell: impl FnOnce(&mut Set)) {
        tell(&mut self.set);
        if self.set.verdict() != WaitVerdict::Waiting {
            // Kept until it is asked for, so that it cannot be missed.
            self.decided.notify_one();
        }
    }
}

/// A wait's place in the fleet, given up when dropped.
#[derive(Debug)]
struct Waiter {
    fleet: Arc<Fleet>,
    number: u64,
    decided: Arc<Notify>,
}

impl Waiter {
    fn begin(fleet: &Arc<Fleet>, mut set: Set) -> Result<Self, WaitError> {
        let mut streams = fleet.lock();
        if streams.waits.len() >= WAITS_MAX {
            return Err(WaitError::TooMany { max: WAITS_MAX });
        }
        let mut connected: Vec<_> = streams.by_router.iter().collect();
        connected.sort_by_key(|(_, connected)| connected.stream);
        for (key, connected) in connected {
            set.join(key, &connected.group, connected.mode);
            set.report(key, &connected.newest);
        }
        streams.waits_begun += 1;
        let number = streams.waits_begun;
        let decided = Arc::new(Notify::new());
        let wait = Wait {
            set,
            decided: Arc::clone(&decided),
        };
        streams.waits.insert(number, wait);
        drop(streams);
        Ok(Self {
            fleet: Arc::clone(fleet),
            number,
            decided,
        })
    }

    fn ask<T>(&self, ask: impl FnOnce(&Set) -> T) -> Option<T> {
        self.fleet.lock().waits.get(&self.number).map(|wait| ask(&wait.set))
    }

    /// What is decided, if anything is.
    fn decision(&self) -> Option<Result<InForce, WaitError>> {
        match self.ask(Set::verdict)? {
            WaitVerdict::Waiting => None,
            WaitVerdict::InForce(done) => Some(Ok(done)),
            WaitVerdict::Refused(refused) => Some(Err(WaitError::Refused(refused))),
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.fleet.lock().waits.remove(&self.number);
    }
}

impl Fleet {
    /// Waits until a revision is in force on every router, at most for `timeout`.
    ///
    /// # Errors
    ///
    /// [`WaitError`] says why it is not.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the wait.
    pub async fn wait(
        self: &Arc<Self>,
        wanted: AwaitedRevision,
        timeout: Duration,
        mut published: watch::Receiver<Arc<State>>,
        shutdown: CancellationToken,
    ) -> Result<InForce, WaitError> {
        let until = Instant::now() + timeout;
        let set = Set::new(wanted, Arc::clone(&published.borrow_and_update()))?;
        let incarnation = set.incarnation();
        let waiter = Waiter::begin(self, set)?;
        loop {
            if let Some(decision) = waiter.decision() {
                return decision;
            }
            loop {
                let present = published.borrow_and_update().items.incarnation();
                if present != incarnation {
                    return Err(WaitError::OtherIncarnation { present });
                }
                select! {
                    biased;
                    () = waiter.decided.notified() => break,
                    () = shutdown.cancelled() => return Err(WaitError::Draining),
                    () = sleep_until(until) => return Err(waiter.ask(Set::overdue).unwrap_or(WaitError::Draining)),
                    changed = published.changed() => if changed.is_err() {
                        // Nothing will ever change again: the writer has stopped.
                        return Err(WaitError::Draining);
                    },
                }
            }
        }
    }
}
