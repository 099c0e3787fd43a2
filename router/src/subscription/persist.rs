//! Keeps what the router would need to go on from where it is in a sealed file, and reads it back at the next start.
//!
//! It holds nothing up: catalogs are swapped whether or not their predecessors are on disk yet, and of those that come while
//! one is written only the newest is. A file that does not open is never used in part, and never deleted: the next good
//! state replaces it.

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
    file::{LoadError, SnapshotFile, SnapshotWriteError},
};
use super::{
    compile::{CredentialsById, Used},
    received::Received,
    session::Backoff,
};

/// How long after a swap the file is written: what is swapped in until then goes with it.
const DEBOUNCE: Duration = Duration::from_millis(250);
/// How long the file may take to be read. A disk that hangs must not keep the router from the registry.
const LOAD_MAX: Duration = Duration::from_secs(10);
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// What the catalog in use was compiled from.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The newest resources.
    pub received: Arc<Received>,
    /// The versions in use, with their credentials.
    pub used: Arc<Used>,
}

/// What a snapshot file gave back.
#[derive(Debug)]
pub(super) struct Restored {
    /// Of the models in use only those that do not follow from the newest resources.
    pub(super) kept: Kept,
    pub(super) credentials: CredentialsById,
    /// How long ago it was written, by the wall clock: for display only.
    pub(super) age: Duration,
}

/// What is counted of the snapshot file.
#[derive(Debug, Clone, Default)]
pub struct PersistMetrics {
    failures: Counter,
    /// A moment, and how old the file was then.
    written: Arc<Mutex<Option<(Instant, Duration)>>>,
}

impl PersistMetrics {
    /// Shows them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "snapshot_write_failures",
            "Times that the snapshot file could not be written",
            self.failures.clone(),
        );
        let written = Arc::clone(&self.written);
        read_gauge(
            registry,
            "snapshot_age_seconds",
            "How long ago the snapshot file was written, which is done at each change of the configuration in use",
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
    /// Grows while the file cannot be written.
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

    /// Reads what an earlier start has left. Whatever is wrong with it, the router then waits for the registry.
    pub(super) async fn load(&self) -> Option<Restored> {
        let file = self.file.clone();
        let path = self.file.path().display();
        let Ok(loaded) = timeout(LOAD_MAX, aside(move || file.load())).await else {
            error!("the snapshot file {path} is ignored: it was not read in time");
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

    /// Runs until it is cancelled, or nothing more can come to be in use; what is not on disk then is written last.
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
        // What was swapped in at the last moment may not have been noticed.
        if due.is_some() || self.kept.has_changed().unwrap_or_default() {
            self.write().await;
        }
    }

    /// Writes the newest, and returns when to try again.
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
                    warn!(error = %Chain(&error), "cannot write the snapshot file {path}: a restart would go on from an older state");
                    Backoff::new(RETRY_MIN, RETRY_MAX)
                });
                Some(Instant::now() + backoff.next(&mut self.random))
            }
        }
    }
}

/// Runs what waits for the disk where it holds up no task. `None`: it panicked.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let mut tasks = JoinSet::new();
    tasks.spawn_blocking(work);
    match tasks.join_next().await? {
        Ok(done) => Some(done),
        Err(error) => {
            error!(%error, "the work on the snapshot file broke off");
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
