//! Stores the state that the router needs after a restart in a sealed file, and loads it at the next start.
//!
//! It blocks nothing: catalogs are swapped whether or not the catalogs before them are on disk, and of the catalogs
//! that arrive during a write only the newest is written next. A file that cannot be opened or decoded is never used in
//! part and never deleted; the next good state replaces it.

mod contents;
mod file;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use switchboard::{
    history::Cursor,
    service::{chain::Chain, metrics::read_gauge},
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

pub use self::{
    contents::ContentsError,
    file::{LoadError, SnapshotFile, SnapshotPathError, SnapshotWriteError},
};
use super::{
    compile::{CredentialsById, Used},
    received::Received,
    session::Backoff,
};

/// Delay between a swap and the write. Later swaps within the delay are covered by the same write.
const DEBOUNCE: Duration = Duration::from_millis(250);
/// Time limit for reading the file. A disk that hangs must not keep the router from connecting to the registry.
const LOAD_MAX: Duration = Duration::from_secs(10);
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// The input from which the catalog in use was compiled.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The newest resources.
    pub received: Arc<Received>,
    /// The versions in use, with their credentials.
    pub used: Arc<Used>,
}

/// The content of a snapshot file.
#[derive(Debug)]
pub(super) struct Restored {
    /// Its models in use are only those that cannot be derived from the newest resources.
    pub(super) kept: Kept,
    pub(super) credentials: CredentialsById,
    /// Time since the file was written, by the wall clock. For display only.
    pub(super) age: Duration,
}

/// Metrics of the snapshot file.
#[derive(Debug, Clone, Default)]
pub struct PersistMetrics {
    failures: Counter,
    /// A point in time, and the age of the file at that time. `None`: no file was read or written yet.
    written: Arc<Mutex<Option<(Instant, Duration)>>>,
}

impl PersistMetrics {
    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "snapshot_write_failures",
            "Failed attempts to write the snapshot file",
            self.failures.clone(),
        );
        let written = Arc::clone(&self.written);
        read_gauge(
            registry,
            "snapshot_age_seconds",
            "Time since the snapshot file was last written, which happens at each change of the configuration in use",
            move || {
                let written = *written.lock();
                written.map(|(at, age)| (age + at.elapsed()).as_secs_f64())
            },
        );
    }

    fn set_age(&self, age: Duration) {
        *self.written.lock() = Some((Instant::now(), age));
    }
}

/// Writes the file whenever another catalog is in use.
pub(super) struct Persister {
    file: SnapshotFile,
    kept: watch::Receiver<Option<Kept>>,
    persisted: watch::Sender<Option<Cursor>>,
    metrics: PersistMetrics,
    /// The delay between retries. `None`: the last write succeeded.
    failing: Option<Backoff>,
    random: fastrand::Rng,
}

impl Persister {
    pub(super) fn new(
        file: SnapshotFile,
        kept: watch::Receiver<Option<Kept>>,
        persisted: watch::Sender<Option<Cursor>>,
        metrics: PersistMetrics,
    ) -> Self {
        Self {
            file,
            kept,
            persisted,
            metrics,
            failing: None,
            random: fastrand::Rng::new(),
        }
    }

    /// Loads the file of an earlier start. If that fails for any reason, the router waits for the registry instead.
    pub(super) async fn load(&self) -> Option<Restored> {
        let file = self.file.clone();
        let path = self.file.path().display();
        let Ok(loaded) = timeout(LOAD_MAX, aside(move || file.load())).await else {
            error!("the snapshot file {path} is ignored: reading it took too long");
            return None;
        };
        let restored = match loaded? {
            Ok(restored) => restored,
            Err(error) => {
                error!(error = %Chain(&error), "the snapshot file {path} is ignored");
                return None;
            }
        };
        let Some(restored) = restored else {
            info!("there is no snapshot file {path} yet");
            return None;
        };
        let cursor = *restored.kept.received.cursor();
        let revision = cursor.revision;
        info!(%revision, age_seconds = restored.age.as_secs(), "the snapshot file {path} has revision {revision}");
        self.metrics.set_age(restored.age);
        self.persisted.send_replace(Some(cursor));
        Some(restored)
    }

    /// Runs until it is cancelled, or until no further state can arrive. Then it writes the newest state if that is not
    /// on disk yet.
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        let mut due = None;
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                changed = self.kept.changed() => match changed {
                    Ok(()) => {
                        due.get_or_insert_with(|| Instant::now() + DEBOUNCE);
                    }
                    Err(_closed) => break,
                },
                () = sleep_or_never(due) => due = self.write().await,
            }
        }
        // The last swap may have happened after the loop's last check.
        if due.is_some() || self.kept.has_changed().unwrap_or_default() {
            self.write().await;
        }
    }

    /// Writes the newest state. Returns when to retry, or `None` if it succeeded.
    async fn write(&mut self) -> Option<Instant> {
        let kept = self.kept.borrow_and_update().clone()?;
        let cursor = *kept.received.cursor();
        let file = self.file.clone();
        let path = self.file.path().display();
        match aside(move || file.write(&kept)).await? {
            Ok(()) => {
                self.metrics.set_age(Duration::ZERO);
                self.persisted.send_replace(Some(cursor));
                let revision = cursor.revision;
                debug!(%revision, "revision {revision} is in the snapshot file");
                if self.failing.take().is_some() {
                    info!("the snapshot file {path} can be written again");
                }
                None
            }
            Err(error) => {
                self.metrics.failures.inc();
                let backoff = self.failing.get_or_insert_with(|| {
                    warn!(error = %Chain(&error), "could not write the snapshot file {path}: a restart would use an older state");
                    Backoff::new(RETRY_MIN, RETRY_MAX)
                });
                Some(Instant::now() + backoff.next(&mut self.random))
            }
        }
    }
}

/// Runs blocking work in a thread of its own. `None`: the work panicked.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let mut tasks = JoinSet::new();
    tasks.spawn_blocking(work);
    match tasks.join_next().await? {
        Ok(done) => Some(done),
        Err(error) => {
            error!(%error, "the work on the snapshot file panicked");
            None
        }
    }
}

async fn sleep_or_never(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}
