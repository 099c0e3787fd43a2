//! The only writer: takes queued writes, decides them, makes them durable, publishes the new state, and then answers.
//!
//! A revision is durable before anything can read it, and no other task writes. Dropping a caller does not interrupt
//! its write, because the writer finishes every round. Readers do not use this module: they read the published state.

mod doubt;
mod job;
mod life;
pub(crate) mod load;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use switchboard::{
    digest::ChainDigest,
    failpoint,
    names::{CredentialId, IncarnationId, Revision},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

pub use self::life::BegunLife;
use self::{
    doubt::Doubt,
    job::{Draft, Job, Typed},
    life::LifeRequest,
};
use crate::{
    domain::{
        actor::Actor,
        items::Retention,
        life::NewLife,
        repeat::{Fingerprinter, RepeatKey},
        state::State,
        write::{Revise as _, WriteError},
    },
    pulse::Pulse,
    store::{Batch, Kind, Loaded, Storage, Store, StoreError, WriteFailure},
    telemetry::CommitMetrics,
    wire::{
        stored::StoredError,
        write::{ParsedWrite, WriteAnswer as _, WriteRequest},
    },
};

/// Maximum number of queued writes: four rounds. If the queue is full, callers wait for room until their deadlines.
const QUEUE: usize = 1024;

/// Maximum number of writes that one round makes durable with one sync to disk.
const ROUND: usize = 256;

/// While writes are not possible: how often the writer tests whether they are possible again.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// The writer. It does nothing until [`Self::run`] is called.
#[derive(Debug)]
pub struct Writer<S = Store> {
    store: S,
    state: Arc<State>,
    retention: Retention,
    queue: mpsc::Receiver<Box<dyn Job>>,
    published: watch::Sender<Arc<State>>,
    pulse: Arc<Pulse>,
    metrics: CommitMetrics,
    /// Whether writes are possible, as far as is known.
    is_able: watch::Sender<bool>,
    /// If set, the database is damaged and nothing is written any more.
    damage: Option<Arc<StoreError>>,
    /// The head that the newest batch leads to.
    aim: (Revision, ChainDigest),
}

/// Passes writes to the writer, and gives access to the published state.
#[derive(Debug, Clone)]
pub struct Commit {
    queue: mpsc::Sender<Box<dyn Job>>,
    published: watch::Receiver<Arc<State>>,
    pulse: Arc<Pulse>,
    fingerprinter: Fingerprinter,
    metrics: CommitMetrics,
    is_able: watch::Receiver<bool>,
}

/// The result of a write that was made, that had nothing to change, or that was only checked.
#[derive(Debug, Clone)]
pub struct Written<A> {
    /// The answer to the caller.
    pub answer: A,
    /// The revision that last changed the subject of the write. 0 if the write was only checked.
    pub revision: Revision,
    /// The incarnation that the revision belongs to.
    pub incarnation: IncarnationId,
}

/// Why a write was not made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// The write violates a rule.
    #[error("the write was refused")]
    Refused(#[source] WriteError),
    /// The request id belongs to another write.
    #[error("the request id was used for another write")]
    RequestIdReused,
    /// The write could not be stored.
    #[error("could not store the write")]
    Store(#[source] Arc<StoreError>),
    /// It is unknown whether the write was stored.
    #[error("it is unknown whether the write was stored")]
    OutcomeUnknown,
    /// The writer has ended because the registry shuts down.
    #[error("the writer has ended")]
    Ended,
}

/// Why the registry cannot start with a database.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database cannot be used.
    #[error("the configuration database cannot be used")]
    Store(#[from] StoreError),
    /// A stored resource cannot be read.
    #[error("could not read `{name}` from the database")]
    Resource {
        /// Name of the resource.
        name: String,
        /// The cause.
        source: StoredError,
    },
    /// The features and settings that every registry has could not be written.
    #[error("could not write the features and settings that every registry has")]
    Seed(#[source] WriteFailure),
}

impl OpenError {
    /// Returns the kind of failure.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Resource { .. } => Kind::Corrupt,
            Self::Seed(failure) => failure.kind(),
        }
    }
}

/// Opens the database at `path`, or creates it if it does not exist, and adds every feature of the catalogue that it
/// lacks. History that `retention` does not cover is cut off during later writes.
///
/// # Errors
///
/// [`OpenError`] if the database cannot be used.
pub async fn open(path: &Path, retention: Retention) -> Result<(Writer, Commit), OpenError> {
    let (store, loaded) = Store::open(path).await?;
    begin(store, loaded, retention).await
}

/// Creates the writer from the content of a storage.
///
/// # Errors
///
/// [`OpenError`] if the content cannot be read, or missing resources cannot be written.
pub async fn begin<S: Storage>(
    mut store: S,
    loaded: Loaded,
    retention: Retention,
) -> Result<(Writer<S>, Commit), OpenError> {
    let fingerprinter = loaded.fingerprinter.clone();
    let mut state = load::state(loaded)?;
    let seed = load::seed(&state);
    if !seed.is_empty() {
        let applied = state.apply(seed, Vec::new(), now());
        let batch = Batch {
            revisions: &[applied],
            actor: Actor::System,
            remembered: &[],
            cut: None,
            retention: &retention,
        };
        store.write(&batch).await.map_err(OpenError::Seed)?;
    }
    let state = Arc::new(state);
    let (sender, queue) = mpsc::channel(QUEUE);
    let (publisher, published) = watch::channel(Arc::clone(&state));
    let (able, is_able) = watch::channel(true);
    let (pulse, metrics) = (Arc::new(Pulse::default()), CommitMetrics::default());
    let commit = Commit {
        queue: sender,
        published,
        pulse: Arc::clone(&pulse),
        fingerprinter,
        metrics: metrics.clone(),
        is_able,
    };
    let writer = Writer {
        store,
        is_able: able,
        damage: None,
        aim: head(&state),
        state,
        retention,
        queue,
        published: publisher,
        pulse,
        metrics,
    };
    Ok((writer, commit))
}

impl Commit {
    /// Submits a write, or only checks it. If the write was made, it is durable and published when this returns.
    ///
    /// # Errors
    ///
    /// [`CommitError`] if the write was not made, or if that is unknown.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped early, the write is made completely or not at all.
    pub async fn submit<R: WriteRequest>(&self, asked: ParsedWrite<R>) -> Result<Written<R::Answer>, CommitError> {
        // A restore needs the storage, which only the writer can use.
        if asked.validate_only && asked.write.goes_back_to().is_none() {
            return check::<R>(&self.state(), &asked.write);
        }
        let repeat = asked.repeat.map(|(id, content)| {
            let key = RepeatKey {
                actor: Actor::Anonymous,
                method: R::METHOD,
                id,
            };
            (key, self.fingerprinter.of(&content))
        });
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Typed::<R>::new(asked.write, asked.validate_only, repeat, reply));
        self.queue.send(job).await.map_err(|_ended| CommitError::Ended)?;
        // If the writer ends in the middle of a round, it is unknown how far it got.
        answer.await.unwrap_or(Err(CommitError::OutcomeUnknown))
    }

    /// Begins a new life of the store, above the current one and above everything that is known elsewhere. It is
    /// durable and published when this returns. Followers of the earlier life get a goodbye and reconnect.
    ///
    /// # Errors
    ///
    /// [`CommitError`] if the life was not begun, or if that is unknown.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped early, the life may or may not begin.
    pub async fn begin_life(&self, new: NewLife) -> Result<BegunLife, CommitError> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(LifeRequest::new(new, reply));
        self.queue.send(job).await.map_err(|_ended| CommitError::Ended)?;
        answer.await.unwrap_or(Err(CommitError::OutcomeUnknown))
    }

    /// Creates a handle that only serves a published state, for tests of readers. Writes fail as if the writer had
    /// ended.
    #[cfg(test)]
    pub(crate) fn without_writer(published: watch::Receiver<Arc<State>>) -> Self {
        Self {
            queue: mpsc::channel(1).0,
            published,
            pulse: Arc::default(),
            fingerprinter: Fingerprinter::new(&[]),
            metrics: CommitMetrics::default(),
            is_able: watch::channel(false).1,
        }
    }

    /// Returns a receiver for the newest published state and those that follow.
    #[must_use]
    pub fn published(&self) -> watch::Receiver<Arc<State>> {
        self.published.clone()
    }

    /// Returns the newest published state.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.published.borrow())
    }

    /// Returns the pulse, which shows whether the writer finishes its rounds.
    #[must_use]
    pub fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.pulse)
    }

    /// Returns whether writes are possible. The value is false while the disk is full or fails, and once the database
    /// is damaged.
    #[must_use]
    pub fn is_able(&self) -> watch::Receiver<bool> {
        self.is_able.clone()
    }

    /// Returns the writer's metrics.
    #[must_use]
    pub const fn metrics(&self) -> &CommitMetrics {
        &self.metrics
    }
}

impl<S: Storage> Writer<S> {
    /// Runs until `shutdown` is cancelled, and then writes everything that is already queued. This task is essential:
    /// without it the registry cannot continue, and a restart has to read the database again.
    ///
    /// # Errors
    ///
    /// [`WriteFailure`] if memory and database may differ.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: cancel `shutdown` and wait for the end.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), WriteFailure> {
        let mut jobs = Vec::with_capacity(ROUND);
        loop {
            let is_probed = self.damage.is_none() && !*self.is_able.borrow();
            tokio::select! {
                // The order is fixed, so that the same events always lead to the same rounds.
                biased;
                taken = self.queue.recv_many(&mut jobs, ROUND) => {
                    if taken == 0 {
                        break;
                    }
                }
                // The queue then accepts no new jobs, and the branch above empties it.
                () = shutdown.cancelled(), if !self.queue.is_closed() => self.queue.close(),
                () = sleep(PROBE_EVERY), if is_probed => {}
            }
            self.pulse.begin();
            let outcome = if jobs.is_empty() && is_probed {
                self.probe(&shutdown).await
            } else {
                self.round(&mut jobs, &shutdown).await
            };
            self.pulse.end();
            if let Err(failure) = outcome {
                // Refused jobs fail as well: they may have been decided by a state that is now in doubt.
                jobs.drain(..).for_each(|job| job.fail(CommitError::OutcomeUnknown));
                self.queue.close();
                while let Ok(job) = self.queue.try_recv() {
                    job.fail(CommitError::Ended);
                }
                return Err(failure);
            }
        }
        if let Err(error) = self.store.close().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the database could not be closed properly"
            );
        }
        Ok(())
    }

    /// Makes all jobs durable together. If that fails, writes them one by one, so that only those that cause the
    /// failure fail.
    async fn round(&mut self, jobs: &mut Vec<Box<dyn Job>>, shutdown: &CancellationToken) -> Result<(), WriteFailure> {
        let mut doubt = Doubt::default();
        let mut is_together = true;
        while !jobs.is_empty() {
            if let Some(damage) = &self.damage {
                let error = CommitError::Store(Arc::clone(damage));
                jobs.drain(..).for_each(|job| job.fail(error.clone()));
                break;
            }
            let share = if is_together { jobs.len() } else { 1 };
            match self.attempt(&mut jobs[..share]).await {
                Ok(is_written) => {
                    // A round without anything to write proves nothing about the disk.
                    if is_written {
                        self.set_able(true);
                    }
                    answer(jobs.drain(..share));
                }
                Err(WriteFailure::OutcomeUnknown(error)) => {
                    if self.settle(&mut doubt, jobs, error, shutdown).await? {
                        // Jobs that have waited too long were already answered.
                        answer(jobs.drain(..share.min(jobs.len())));
                    }
                }
                Err(WriteFailure::RolledBack(error)) => match error.kind() {
                    // After an I/O error, nothing is written before the database was opened and read again.
                    Kind::Io => {
                        self.settle(&mut doubt, jobs, error, shutdown).await?;
                    }
                    Kind::Corrupt => self.damaged(error),
                    // If each job were written alone, each of them would wait for the process that holds the database.
                    Kind::Busy => fail(jobs.drain(..), error),
                    kind if share == 1 => {
                        self.set_able(!matches!(kind, Kind::Full | Kind::ReadOnly));
                        fail(jobs.drain(..1), error);
                    }
                    Kind::Full | Kind::ReadOnly | Kind::Other => is_together = false,
                },
                Err(fatal @ WriteFailure::ForeignWriter(_)) => return Err(fatal),
            }
        }
        Ok(())
    }

    /// Decides each job by the state that the earlier jobs leave, makes the revisions durable, and publishes them.
    /// Returns whether there was anything to write.
    async fn attempt(&mut self, jobs: &mut [Box<dyn Job>]) -> Result<bool, WriteFailure> {
        let mut draft = Draft::new(State::clone(&self.state));
        let keys: Vec<_> = jobs.iter().filter_map(|job| job.repeat_key().cloned()).collect();
        if !keys.is_empty() {
            let known = self.store.recall(&keys).await.map_err(WriteFailure::RolledBack)?;
            known.into_iter().for_each(|write| draft.recall(write));
        }
        for job in jobs.iter_mut() {
            // Other revisions cannot be restored, which is known without reading the storage.
            let kept = job
                .goes_back_to()
                .filter(|&revision| self.state.items.past(revision).is_some());
            if let Some(revision) = kept {
                let since = self.store.values_at(revision).await;
                job.hand_in(since.map_err(WriteFailure::RolledBack)?);
            }
        }
        let now = now();
        jobs.iter_mut().for_each(|job| job.judge(&mut draft, now));
        if draft.is_empty() {
            return Ok(false);
        }
        let is_changed = !draft.revisions.is_empty();
        let mut state = draft.state;
        // A cut is published together with the new state: readers must find everything that the state claims to keep.
        let cut = state.items.due(&self.retention).filter(|_| is_changed);
        let batch = Batch {
            revisions: &draft.revisions,
            actor: Actor::Anonymous,
            remembered: &draft.remembered,
            cut,
            retention: &self.retention,
        };
        self.aim = head(&state);
        let begun = Instant::now();
        let stored = self.store.write(&batch).await;
        self.metrics
            .count(batch.revisions.len(), begun.elapsed(), stored.is_ok());
        stored?;
        if let Some(cut) = cut {
            state.items.cut(cut);
        }
        self.state = Arc::new(state);
        failpoint::hit("commit.before-publish");
        if is_changed {
            self.published.send_replace(Arc::clone(&self.state));
        }
        failpoint::hit("commit.before-answer");
        Ok(true)
    }
}

fn head(state: &State) -> (Revision, ChainDigest) {
    (state.items.revision(), state.items.head().chain)
}

/// Returns the answer that the write would get in a published state, and changes nothing.
fn check<R: WriteRequest>(published: &State, write: &R::Write) -> Result<Written<R::Answer>, CommitError> {
    let plan = write
        .plan(published, CredentialId::random())
        .map_err(CommitError::Refused)?;
    let mut state = published.clone();
    state.preview(plan.changes, &plan.deleted, now());
    let outcome = R::Write::outcome(&state, &plan.subject);
    Ok(Written {
        answer: outcome
            .map(|outcome| R::answer(&outcome))
            .unwrap_or_default()
            .into_checked(),
        revision: Revision::ZERO,
        incarnation: published.items.incarnation().id,
    })
}

fn fail(jobs: impl Iterator<Item = Box<dyn Job>>, error: StoreError) {
    let error = CommitError::Store(Arc::new(error));
    jobs.for_each(|job| job.fail(error.clone()));
}

fn answer(jobs: impl Iterator<Item = Box<dyn Job>>) {
    jobs.for_each(Job::answer);
}

/// Returns the time in the precision in which it is stored, so that a state that is read back equals the written one.
fn now() -> SystemTime {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let micros = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
    SystemTime::UNIX_EPOCH + Duration::from_micros(micros)
}

#[cfg(test)]
mod tests;
