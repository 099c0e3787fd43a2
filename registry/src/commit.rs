//! The one writer: takes queued writes, decides them, makes them durable, publishes the new state, then answers.
//!
//! Nobody sees a revision before it is durable, and nobody else writes. A caller that goes away does not interrupt its
//! write: the writer runs every round to its end. Readers never come here: they read the published state.

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

/// How many writes wait at most: four rounds. When it is full, callers wait in front of it until their deadlines.
const QUEUE: usize = 1024;

/// How many writes one round makes durable with one sync of the disk.
const ROUND: usize = 256;

/// While writes cannot be made, how often it is tried whether they can again.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// The writer. It does nothing until it runs.
#[derive(Debug)]
pub struct Writer<S = Store> {
    store: S,
    state: Arc<State>,
    retention: Retention,
    queue: mpsc::Receiver<Box<dyn Job>>,
    published: watch::Sender<Arc<State>>,
    pulse: Arc<Pulse>,
    metrics: CommitMetrics,
    /// Whether writes can be made, as far as is known.
    is_able: watch::Sender<bool>,
    /// The database is damaged: nothing is written any more.
    damage: Option<Arc<StoreError>>,
    /// The head that the newest batch leads to.
    aim: (Revision, ChainDigest),
}

/// Hands writes to the writer, and shows what it has published.
#[derive(Debug, Clone)]
pub struct Commit {
    queue: mpsc::Sender<Box<dyn Job>>,
    published: watch::Receiver<Arc<State>>,
    pulse: Arc<Pulse>,
    fingerprinter: Fingerprinter,
    metrics: CommitMetrics,
    is_able: watch::Receiver<bool>,
}

/// A write that was made, that had nothing to change, or that was only checked.
#[derive(Debug, Clone)]
pub struct Written<A> {
    /// The answer.
    pub answer: A,
    /// The revision that last changed what the write is about. 0: it was only checked.
    pub revision: Revision,
    /// The life of the store in which the revision counts.
    pub incarnation: IncarnationId,
}

/// Why a write was not made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// It cannot be made.
    #[error("refuse the write")]
    Refused(#[source] WriteError),
    /// Its request id stands for another write.
    #[error("the request id stands for another write")]
    RequestIdReused,
    /// It could not be stored.
    #[error("store the write")]
    Store(#[source] Arc<StoreError>),
    /// Whether it was stored is not known.
    #[error("whether the write was stored is not known")]
    OutcomeUnknown,
    /// The writer has ended: the registry shuts down.
    #[error("the writer has ended")]
    Ended,
}

/// Why the registry cannot begin with a database.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database cannot be used.
    #[error("open the configuration's database")]
    Store(#[from] StoreError),
    /// A resource cannot be understood.
    #[error("read `{name}` from the database")]
    Resource {
        /// Its name.
        name: String,
        /// The cause.
        source: StoredError,
    },
    /// The resources that every registry has could not be written.
    #[error("write the first revision")]
    Seed(#[source] WriteFailure),
}

impl OpenError {
    /// What kind of failure it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Resource { .. } => Kind::Corrupt,
            Self::Seed(failure) => failure.kind(),
        }
    }
}

/// Opens the database at `path`, makes a new one there if there is none, and gives every feature of the catalogue its
/// place in it. What is no longer within `retention` is cut off as writes come.
///
/// # Errors
///
/// [`OpenError`] when the database cannot be used.
pub async fn open(path: &Path, retention: Retention) -> Result<(Writer, Commit), OpenError> {
    let (store, loaded) = Store::open(path).await?;
    begin(store, loaded, retention).await
}

/// Goes on from what a storage holds.
///
/// # Errors
///
/// [`OpenError`] when it cannot be understood, or not be seeded.
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
    /// Has a write made, or checks it. What a write that was made answers is durable and published.
    ///
    /// # Errors
    ///
    /// [`CommitError`] when it was not made, or when that is not known.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the write is made or not; it is never made in part.
    pub async fn submit<R: WriteRequest>(&self, asked: ParsedWrite<R>) -> Result<Written<R::Answer>, CommitError> {
        // What goes back needs the storage, which is the writer's.
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
        // A writer that is gone in the middle of a round cannot tell how far it came.
        answer.await.unwrap_or(Err(CommitError::OutcomeUnknown))
    }

    /// Begins a new life of the store, above the present one and above all that is known elsewhere. It is durable and
    /// published when this returns; followers of the life before are told to come back.
    ///
    /// # Errors
    ///
    /// [`CommitError`] when it was not begun, or when that is not known.
    ///
    /// # Cancel safety
    ///
    /// Dropped early, the life begins or does not.
    pub async fn begin_life(&self, new: NewLife) -> Result<BegunLife, CommitError> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(LifeRequest::new(new, reply));
        self.queue.send(job).await.map_err(|_ended| CommitError::Ended)?;
        answer.await.unwrap_or(Err(CommitError::OutcomeUnknown))
    }

    /// Shows a state, for tests of readers: its writer has ended.
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

    /// The newest published state, and a bell for the next.
    #[must_use]
    pub fn published(&self) -> watch::Receiver<Arc<State>> {
        self.published.clone()
    }

    /// The newest published state.
    #[must_use]
    pub fn state(&self) -> Arc<State> {
        Arc::clone(&self.published.borrow())
    }

    /// Whether the writer finishes its rounds.
    #[must_use]
    pub fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.pulse)
    }

    /// Whether writes can be made: false while the disk is full or fails, and once the database is damaged.
    #[must_use]
    pub fn is_able(&self) -> watch::Receiver<bool> {
        self.is_able.clone()
    }

    /// What is counted of the writer.
    #[must_use]
    pub const fn metrics(&self) -> &CommitMetrics {
        &self.metrics
    }
}

impl<S: Storage> Writer<S> {
    /// Writes until `shutdown` is cancelled; what is queued by then is still written. Essential: without it the registry
    /// cannot go on, and a new start has to read the database again.
    ///
    /// # Errors
    ///
    /// [`WriteFailure`] when what is in memory and in the database may differ.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: cancel `shutdown` and wait.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), WriteFailure> {
        let mut jobs = Vec::with_capacity(ROUND);
        loop {
            let is_probed = self.damage.is_none() && !*self.is_able.borrow();
            tokio::select! {
                // In this order, so that the same happenings lead to the same rounds.
                biased;
                taken = self.queue.recv_many(&mut jobs, ROUND) => {
                    if taken == 0 {
                        break;
                    }
                }
                // After this the queue takes nothing new, and the arm above empties it.
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
                // Also those that were refused: they may have been judged by what is now in doubt.
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
                "database was not closed in order"
            );
        }
        Ok(())
    }

    /// Makes all jobs durable together; if that fails, one by one, so that only the guilty ones fail.
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
                    // What has nothing to write proves nothing about the disk.
                    if is_written {
                        self.set_able(true);
                    }
                    answer(jobs.drain(..share));
                }
                Err(WriteFailure::OutcomeUnknown(error)) => {
                    if self.settle(&mut doubt, jobs, error, shutdown).await? {
                        // Those that have waited for too long were answered.
                        answer(jobs.drain(..share.min(jobs.len())));
                    }
                }
                Err(WriteFailure::RolledBack(error)) => match error.kind() {
                    // What the disk has got wrong once is not written to before everything was looked at again.
                    Kind::Io => {
                        self.settle(&mut doubt, jobs, error, shutdown).await?;
                    }
                    Kind::Corrupt => self.damaged(error),
                    // Who holds the database would have every single write wait for it in turn.
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

    /// Judges each job by the state that the ones before it leave, makes the revisions durable, and publishes. Tells whether
    /// there was anything to write.
    async fn attempt(&mut self, jobs: &mut [Box<dyn Job>]) -> Result<bool, WriteFailure> {
        let mut draft = Draft::new(State::clone(&self.state));
        let keys: Vec<_> = jobs.iter().filter_map(|job| job.repeat_key().cloned()).collect();
        if !keys.is_empty() {
            let known = self.store.recall(&keys).await.map_err(WriteFailure::RolledBack)?;
            known.into_iter().for_each(|write| draft.recall(write));
        }
        for job in jobs.iter_mut() {
            // Of any other revision it is known without reading that it cannot be gone back to.
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
        // What is cut off is published with what is new: readers must not miss what they are told is kept.
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

/// Answers as the write would, by one published state, and changes nothing.
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

/// The time, as exactly as it is stored: a state that is read back is the state that was written.
fn now() -> SystemTime {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let micros = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
    SystemTime::UNIX_EPOCH + Duration::from_micros(micros)
}

#[cfg(test)]
mod tests;
