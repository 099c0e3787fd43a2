//! The catalog in use: each call loads it once, and the subscription replaces it as a whole.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

use crate::catalog::Catalog;

/// The catalog in use, and when the last message from the registry arrived.
#[derive(Debug)]
pub struct Current {
    catalog: ArcSwapOption<Catalog>,
    swaps: watch::Sender<u64>,
    contact: Mutex<Option<Instant>>,
    held: AtomicUsize,
    ready: watch::Sender<bool>,
    confirmed: watch::Sender<bool>,
}

impl Default for Current {
    fn default() -> Self {
        Self {
            catalog: ArcSwapOption::empty(),
            swaps: watch::Sender::new(0),
            contact: Mutex::default(),
            held: AtomicUsize::new(0),
            ready: watch::Sender::new(false),
            confirmed: watch::Sender::new(false),
        }
    }
}

impl Current {
    /// Returns the catalog in use. `None` until the first one is available.
    #[must_use]
    pub fn load(&self) -> Option<Arc<Catalog>> {
        self.catalog.load_full()
    }

    /// Puts a catalog in use. Calls that begin from now on use it.
    pub fn swap(&self, catalog: Arc<Catalog>) {
        self.catalog.store(Some(catalog));
        self.swaps.send_modify(|swaps| *swaps += 1);
    }

    /// Waits until `find` returns a value for the catalog in use, and returns that value. It may do so at once.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn until<T>(&self, find: impl Fn(&Catalog) -> Option<T>) -> T {
        let mut swaps = self.swaps.subscribe();
        loop {
            // Marked before the catalog is loaded, so that a swap in between is noticed.
            swaps.mark_unchanged();
            if let Some(found) = self.load().and_then(|catalog| find(&catalog)) {
                return found;
            }
            // Cannot fail: `self` owns the sender.
            swaps.changed().await.ok();
        }
    }

    /// Marks the router as ready for calls: it has a catalog, and has tried at least once to fetch each credential that
    /// it needs.
    pub fn set_ready(&self) {
        self.ready.send_if_modified(|ready| !std::mem::replace(ready, true));
    }

    /// Returns a receiver that shows whether the router is ready for calls. Once true, it stays true.
    #[must_use]
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Marks the configuration in use as confirmed or sent by a registry.
    pub fn set_confirmed(&self) {
        self.confirmed
            .send_if_modified(|confirmed| !std::mem::replace(confirmed, true));
    }

    /// Returns a receiver that shows whether a registry has confirmed the configuration since the start. Once true, it
    /// stays true. A router that started from its snapshot file serves calls before that.
    #[must_use]
    pub fn confirmed(&self) -> watch::Receiver<bool> {
        self.confirmed.subscribe()
    }

    /// Sets the number of held resources: those whose newest version is not in use.
    pub fn set_held(&self, count: usize) {
        self.held.store(count, Ordering::Relaxed);
    }

    /// Returns the number of held resources: those whose newest version is not in use.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Records that a message from the registry has just arrived.
    pub fn touch(&self) {
        *self.contact.lock() = Some(Instant::now());
    }

    /// Returns the time since the last message from the registry. `None`: no message has arrived yet.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.contact.lock().map(|contact| contact.elapsed())
    }
}
