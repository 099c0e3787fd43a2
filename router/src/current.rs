//! The catalog in use: loaded once by each call, swapped whole by the subscription.

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

/// The catalog in use, and when the registry was last heard.
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
    /// The catalog in use. `None` until the first has come.
    #[must_use]
    pub fn load(&self) -> Option<Arc<Catalog>> {
        self.catalog.load_full()
    }

    /// Puts a catalog in use: calls that begin from now on see it.
    pub fn swap(&self, catalog: Arc<Catalog>) {
        self.catalog.store(Some(catalog));
        self.swaps.send_modify(|swaps| *swaps += 1);
    }

    /// Waits until the catalog in use has what is looked for, which may be now.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn until<T>(&self, find: impl Fn(&Catalog) -> Option<T>) -> T {
        let mut swaps = self.swaps.subscribe();
        loop {
            // What is swapped in from here on is noticed.
            swaps.mark_unchanged();
            if let Some(found) = self.load().and_then(|catalog| find(&catalog)) {
                return found;
            }
            // The other end is as old as this.
            swaps.changed().await.ok();
        }
    }

    /// Says that the router may take calls: it has a catalog, and has tried once for each credential that it needs.
    pub fn set_ready(&self) {
        self.ready.send_if_modified(|ready| !std::mem::replace(ready, true));
    }

    /// Whether the router may take calls; once true it stays so.
    #[must_use]
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Says that a registry has confirmed the configuration in use, or has sent it.
    pub fn set_confirmed(&self) {
        self.confirmed
            .send_if_modified(|confirmed| !std::mem::replace(confirmed, true));
    }

    /// Whether a registry has confirmed the configuration since the start; once true it stays so. A router that began with
    /// its snapshot file serves before.
    #[must_use]
    pub fn confirmed(&self) -> watch::Receiver<bool> {
        self.confirmed.subscribe()
    }

    /// Notes how many resources are not in use at their newest version.
    pub fn set_held(&self, count: usize) {
        self.held.store(count, Ordering::Relaxed);
    }

    /// How many resources are not in use at their newest version.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Notes that the registry was heard just now.
    pub fn touch(&self) {
        *self.contact.lock() = Some(Instant::now());
    }

    /// How long ago the registry was heard last. `None`: never.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.contact.lock().map(|contact| contact.elapsed())
    }
}
