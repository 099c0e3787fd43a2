//! Wakes the followers of a new state in groups.
//!
//! A write is answered at the moment when its state is published. If publishing woke all followers, the answers would
//! be sent after the followers' messages. Therefore each follower waits for one of several bells, and a separate task
//! rings one bell after the other. Callers that wait for an answer run first, and then the followers of each bell in
//! turn.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    sync::watch::{self, error::RecvError},
    task::{JoinSet, yield_now},
};

use crate::domain::state::State;

/// Number of bells. With a thousand followers, one bell wakes no more of them than a runtime thread can queue locally.
const BELLS: usize = 8;

/// The bells, and the task that rings them.
#[derive(Debug, Clone)]
pub(super) struct Bells {
    bells: Arc<[watch::Receiver<()>]>,
    next: Arc<AtomicUsize>,
    ringer: Arc<JoinSet<()>>,
}

/// The bell of one follower. It only signals that a newer state was published.
#[derive(Debug)]
pub(super) struct Bell {
    rings: watch::Receiver<()>,
    /// The task keeps ringing as long as a bell exists.
    _ringer: Arc<JoinSet<()>>,
}

impl Bells {
    /// Creates bells that ring for each published state. Several states may be combined into one ring.
    pub(super) fn new(published: watch::Receiver<Arc<State>>) -> Self {
        let (ropes, bells): (Vec<_>, Vec<_>) = (0..BELLS).map(|_| watch::channel(())).unzip();
        let mut ringer = JoinSet::new();
        // Essential, and ends only with the writer. When it ends, followers get a goodbye and reconnect.
        ringer.spawn(ring(published, ropes));
        Self {
            bells: bells.into(),
            next: Arc::default(),
            ringer: Arc::new(ringer),
        }
    }

    /// Returns a bell for one more follower.
    pub(super) fn next(&self) -> Bell {
        let index = self.next.fetch_add(1, Ordering::Relaxed) % self.bells.len();
        Bell {
            rings: self.bells[index].clone(),
            _ringer: Arc::clone(&self.ringer),
        }
    }
}

impl Bell {
    /// Marks the bell as heard: from now on it only rings for states that are published later.
    pub(super) fn heard(&mut self) {
        self.rings.mark_unchanged();
    }

    /// Waits until the bell rings.
    ///
    /// # Errors
    ///
    /// [`RecvError`] if no further state will be published.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the ring counts as not heard.
    pub(super) async fn rung(&mut self) -> Result<(), RecvError> {
        self.rings.changed().await
    }
}

async fn ring(mut published: watch::Receiver<Arc<State>>, ropes: Vec<watch::Sender<()>>) {
    while published.changed().await.is_ok() {
        for rope in &ropes {
            yield_now().await;
            rope.send_replace(());
        }
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use tokio::sync::oneshot;

    use super::*;
    use crate::testing::History;

    #[tokio::test]
    async fn an_answered_caller_runs_before_the_followers() {
        let published = watch::Sender::new(History::with_revisions(1).state());
        let bells = Bells::new(published.subscribe());
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        for _ in 0..3 * BELLS {
            let (mut bell, order) = (bells.next(), Arc::clone(&order));
            tasks.spawn(async move {
                bell.rung().await.unwrap();
                order.lock().push("follower");
            });
        }
        let (answer, answered) = oneshot::channel();
        let in_order = Arc::clone(&order);
        tasks.spawn(async move {
            answered.await.unwrap();
            in_order.lock().push("writer");
        });
        // Lets all tasks reach their wait.
        yield_now().await;
        published.send_replace(History::with_revisions(2).state());
        answer.send(()).unwrap();
        tasks.join_all().await;
        let order = order.lock();
        assert_eq!((order.len(), order[0]), (3 * BELLS + 1, "writer"));
    }

    #[tokio::test]
    async fn a_bell_fails_once_no_state_will_be_published() {
        let published = watch::Sender::new(History::with_revisions(1).state());
        let mut bell = Bells::new(published.subscribe()).next();
        published.send_replace(History::with_revisions(2).state());
        bell.rung().await.unwrap();
        bell.heard();
        drop(published);
        // A ring that came in the meantime is returned first.
        while bell.rung().await.is_ok() {}
    }
}
