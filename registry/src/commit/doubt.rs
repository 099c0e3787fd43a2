//! Handles times when writes are not possible: the disk is full, the database is damaged, or a commit has failed and it
//! is unknown whether the batch was stored.
//!
//! In the last case nothing is written or published before the storage was opened and read again. Its content decides:
//! either it contains the batch, and the writes are answered as usual, or the batch will never appear, and the writes
//! are made again.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{CommitError, Job, Writer, head, load};
use crate::{
    domain::state::State,
    store::{Kind, Storage, StoreError, WriteFailure},
};

/// Longest time that callers wait for an unknown outcome.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pause between two attempts to open the storage. It doubles from the first value up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The unknown outcome of one round. It lasts over several failures of the disk within the round.
#[derive(Debug)]
pub(super) struct Doubt {
    pause: Duration,
    /// When waiting callers get the answer that the outcome is unknown. `None`: no commit has failed yet.
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
    /// Returns the pause before the next attempt. The first attempt is made at once.
    fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        pause
    }
}

impl<S: Storage> Writer<S> {
    /// Opens the storage again, however long that takes, and returns whether it contains the newest batch. Jobs that
    /// have waited too long are answered, and so are new jobs that arrive after the first attempt has failed.
    pub(super) async fn settle(
        &mut self,
        doubt: &mut Doubt,
        jobs: &mut Vec<Box<dyn Job>>,
        cause: StoreError,
        shutdown: &CancellationToken,
    ) -> Result<bool, WriteFailure> {
        tracing::error!(
            error = &cause as &dyn std::error::Error,
            "a commit failed, opening the database again"
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
                        "could not open the database again yet"
                    );
                    cause = Arc::new(error);
                }
            }
            is_first = false;
        }
    }

    /// Continues with the stored state: either the published one, or the one that the newest batch led to.
    fn take_over(&mut self, state: State) -> Result<bool, WriteFailure> {
        let (published, stored) = (head(&self.state), head(&state));
        // Published revisions must stay valid, so a storage that lacks them or contains others must not be used.
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

    /// Tests whether writes are possible again.
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

    /// Stops all writes, so that the file stays unchanged. Published states can still be read and followed.
    pub(super) fn damaged(&mut self, error: StoreError) {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "the database is damaged: writes are refused from now on, reads and followers continue"
        );
        self.damage = Some(Arc::new(error));
        self.is_able.send_replace(false);
    }

    pub(super) fn set_able(&self, is_able: bool) {
        let is_changed = self
            .is_able
            .send_if_modified(|was| std::mem::replace(was, is_able) != is_able);
        if is_changed && is_able {
            tracing::info!("writes are possible again");
        } else if is_changed {
            tracing::error!("writes are not possible; reads and followers continue");
        }
    }
}

/// Answers a write that was not begun. Its outcome is unknown if it has a request id, because it may repeat a write in
/// doubt.
fn refuse(job: Box<dyn Job>, cause: &Arc<StoreError>) {
    let is_certain = job.repeat_key().is_none() && !matches!(cause.kind(), Kind::Io | Kind::Other);
    job.fail(if is_certain {
        CommitError::Store(Arc::clone(cause))
    } else {
        CommitError::OutcomeUnknown
    });
}
