//! Waits until a revision is in force, by the events of the fleet.

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

/// Maximum number of concurrent waits. It is low because each wait processes every report.
const WAITS_MAX: usize = 64;

/// A wait as part of the fleet. It passes events to the set and wakes the waiting call once the set is decided.
#[derive(Debug)]
pub(super) struct Wait {
    pub(super) set: Set,
    decided: Arc<Notify>,
}

impl Wait {
    /// Passes an event to the set.
    pub(super) fn tell(&mut self, tell: impl FnOnce(&mut Set)) {
        tell(&mut self.set);
        if self.set.verdict() != WaitVerdict::Waiting {
            // The permit is stored until it is awaited, so that it cannot be missed.
            self.decided.notify_one();
        }
    }
}

/// The registration of a wait with the fleet. Dropping it removes the wait.
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

    /// Returns the decision, if there is one.
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
    /// Waits until a revision is in force on every router, for at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`WaitError`] if it is not in force.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the wait ends.
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
                        // The writer has stopped, so nothing will change any more.
                        return Err(WaitError::Draining);
                    },
                }
            }
        }
    }
}
