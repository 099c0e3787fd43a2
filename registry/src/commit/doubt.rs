//! When writes cannot be made: the disk is full, the database is damaged, or a commit has failed, and whether the write was
//! made is not known.
//!
//! In the last case nothing is written or published before the storage was opened again and read. What it then holds
//! decides: either the batch is there, and its writes are answered as if nothing had happened, or it never will be, and they
//! are made again.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{CommitError, Job, Writer, head, load};
use crate::{
    domain::state::State,
    store::{Kind, Storage, StoreError, WriteFailure},
};

/// Callers wait no longer for an outcome that is in doubt.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two tries to open the storage: doubled from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The doubt of one round, which may come back when the disk fails again.
#[derive(Debug)]
pub(super) struct Doubt {
    pause: Duration,
    /// When the writes that wait are told that the outcome is not known. `None`: there was no doubt yet.
    until: Option<Instant>,
}

impl Default for Doubt {
    fn default() -> Self {
        Self {
            pause: Duration::ZERO,
            until: None,
        }
    }
}

impl Doubt {
    /// How long to wait before the next try: the first is made at once.
    fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        pause
    }
}

impl<S: Storage> Writer<S> {
    /// Opens the storage again, however long that takes, and tells whether the newest batch is in it. Those of `jobs` that
    /// have waited for too long are answered; who comes with a new write meanwhile is, too, unless the first try works.
    pub(super) async fn settle(
        &mut self,
        doubt: &mut Doubt,
        jobs: &mut Vec<Box<dyn Job>>,
        cause: StoreError,
        shutdown: &CancellationToken,
    ) -> Result<bool, WriteFailure> {
        tracing::error!(
            error = &cause as &dyn std::error::Error,
            "a commit failed: the database is opened again"
        );
        self.is_able.send_replace(false);
        let until = *doubt.until.get_or_insert_with(|| Instant::now() + PATIENCE);
        let mut cause = Arc::new(cause);
        let mut is_first = true;
        loop {
            let pause = doubt.next_pause();
            let reopened = {
                let Self { store, queue, .. } = self;
                let mut reopening = pin!(async {
                    sleep(pause).await;
                    store.reopen().await
                });
                loop {
                    tokio::select! {
                        biased;
                        reopened = &mut reopening => break reopened,
                        () = shutdown.cancelled(), if !is_first => {
                            return Err(WriteFailure::OutcomeUnknown(StoreError::Closed));
                        }
                        () = sleep_until(until), if !jobs.is_empty() => {
                            jobs.drain(..).for_each(|job| job.fail(CommitError::OutcomeUnknown));
                        }
                        Some(job) = queue.recv(), if !is_first => refuse(job, &cause),
                    }
                }
            };
            let read =
                reopened.and_then(|loaded| load::state(loaded).map_err(|error| StoreError::damaged(error.to_string())));
            match read {
                Ok(state) => return self.take_over(state),
                Err(error) if error.kind() == Kind::Corrupt => {
                    self.damaged(error);
                    jobs.drain(..).for_each(|job| job.fail(CommitError::OutcomeUnknown));
                    return Ok(false);
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the database cannot be opened again yet"
                    );
                    cause = Arc::new(error);
                }
            }
            is_first = false;
        }
    }

    /// Goes on from what is stored: the state that was published, or the one that the newest batch led to.
    fn take_over(&mut self, state: State) -> Result<bool, WriteFailure> {
        let (published, stored) = (head(&self.state), head(&state));
        // What was shown stays true: a storage that is behind it, or beside it, must not be followed.
        if stored != published && stored != self.aim {
            return Err(WriteFailure::ForeignWriter(published.0));
        }
        self.state = Arc::new(state);
        let is_made = stored != published;
        if is_made {
            self.published.send_replace(Arc::clone(&self.state));
        }
        self.set_able(true);
        Ok(is_made)
    }

    /// Tries whether writes can be made again.
    pub(super) async fn probe(&mut self, shutdown: &CancellationToken) -> Result<(), WriteFailure> {
        match self.store.probe().await {
            Ok(()) => self.set_able(true),
            Err(WriteFailure::OutcomeUnknown(error)) => {
                self.settle(&mut Doubt::default(), &mut Vec::new(), error, shutdown)
                    .await?;
            }
            Err(WriteFailure::RolledBack(error)) => match error.kind() {
                Kind::Io => {
                    self.settle(&mut Doubt::default(), &mut Vec::new(), error, shutdown)
                        .await?;
                }
                Kind::Corrupt => self.damaged(error),
                Kind::Full | Kind::ReadOnly | Kind::Busy | Kind::Other => {}
            },
            Err(fatal @ WriteFailure::ForeignWriter(_)) => return Err(fatal),
        }
        Ok(())
    }

    /// From now on nothing is written: the file stays as it was found. What was published is still read and followed.
    pub(super) fn damaged(&mut self, error: StoreError) {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "the database is damaged: no more writes; reads and followers go on"
        );
        self.damage = Some(Arc::new(error));
        self.is_able.send_replace(false);
    }

    pub(super) fn set_able(&self, is_able: bool) {
        let is_changed = self
            .is_able
            .send_if_modified(|was| std::mem::replace(was, is_able) != is_able);
        if is_changed && is_able {
            tracing::info!("writes can be made again");
        } else if is_changed {
            tracing::error!("writes cannot be made; reads and followers go on");
        }
    }
}

/// Answers a write that was not begun. One with a request id may repeat what is in doubt.
fn refuse(job: Box<dyn Job>, cause: &Arc<StoreError>) {
    let is_certain = job.repeat_key().is_none() && !matches!(cause.kind(), Kind::Io | Kind::Other);
    job.fail(if is_certain {
        CommitError::Store(Arc::clone(cause))
    } else {
        CommitError::OutcomeUnknown
    });
}
