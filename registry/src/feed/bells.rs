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
        let place = self.next.fetch_add(1, Ordering::Relaxed) % self.bells.len();
        Bell {
            rings: self.bells[place].clone(),
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
