//! Wakes the followers of a new state, some at a time.
//!
//! A commit is answered in the same moment in which it is published. If that woke all followers, the answers would go out
//! behind what they are sent. So followers wait for bells, a share of them for each, and a task of its own rings one bell
//! after the other: first whoever waits for an answer runs, then those of a bell, one right after the other.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    sync::watch::{self, error::RecvError},
    task::{JoinSet, yield_now},
};

use crate::domain::state::State;

/// Of a thousand followers each bell wakes no more than a thread of the runtime can queue by itself.
const BELLS: usize = 8;

/// The bells, and who rings them.
#[derive(Debug, Clone)]
pub(super) struct Bells {
    bells: Arc<[watch::Receiver<()>]>,
    next: Arc<AtomicUsize>,
    ringer: Arc<JoinSet<()>>,
}

/// The bell that one follower waits for. It tells nothing but that there is something new.
#[derive(Debug)]
pub(super) struct Bell {
    rings: watch::Receiver<()>,
    /// It rings as long as anybody waits.
    _ringer: Arc<JoinSet<()>>,
}

impl Bells {
    /// Bells that ring for each state that is published, or for several at once.
    pub(super) fn new(published: watch::Receiver<Arc<State>>) -> Self {
        let (ropes, bells): (Vec<_>, Vec<_>) = (0..BELLS).map(|_| watch::channel(())).unzip();
        let mut ringer = JoinSet::new();
        // Essential, and ends only with the writer: when it does, followers are told to come back.
        ringer.spawn(ring(published, ropes));
        Self {
            bells: bells.into(),
            next: Arc::default(),
            ringer: Arc::new(ringer),
        }
    }

    /// A bell for one more follower.
    pub(super) fn next(&self) -> Bell {
        let index = self.next.fetch_add(1, Ordering::Relaxed) % self.bells.len();
        Bell {
            rings: self.bells[index].clone(),
            _ringer: Arc::clone(&self.ringer),
        }
    }
}

impl Bell {
    /// Has it ring again only for what is published from now on.
    pub(super) fn heard(&mut self) {
        self.rings.mark_unchanged();
    }

    /// Waits until it rings.
    ///
    /// # Errors
    ///
    /// When nothing will be published any more.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it has not been heard.
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
    async fn whoever_was_answered_runs_before_those_who_follow() {
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
        // All wait.
        yield_now().await;
        published.send_replace(History::with_revisions(2).state());
        answer.send(()).unwrap();
        tasks.join_all().await;
        let order = order.lock();
        assert_eq!((order.len(), order[0]), (3 * BELLS + 1, "writer"));
    }

    #[tokio::test]
    async fn no_bell_is_left_once_nothing_will_be_published() {
        let published = watch::Sender::new(History::with_revisions(1).state());
        let mut bell = Bells::new(published.subscribe()).next();
        published.send_replace(History::with_revisions(2).state());
        bell.rung().await.unwrap();
        bell.heard();
        drop(published);
        // What has rung meanwhile is heard first.
        while bell.rung().await.is_ok() {}
    }
}
