//! The database file. This is the only module that contains SQL.
//!
//! One connection reads everything at start and writes from then on. Readers are served from memory, except for past
//! changes, which [`History`] reads through connections of its own. The owner of a [`Store`] holds the lock file next
//! to the database, so that no second registry writes to the same file. This module does not know what a resource's
//! bytes mean, only that the digests were computed from them.

mod copy;
mod error;
mod file;
mod history;
mod inspect;
mod load;
mod open;
mod owner;
mod requests;
mod round;
mod rows;
mod script;
mod swap;
mod verify;

use std::{fs::File, future::Future, path::PathBuf, time::SystemTime};

use sqlx::{Connection as _, SqliteConnection};
use switchboard::{digest::ChainDigest, failpoint, names::Revision};

pub use self::{
    error::{Kind, StoreError},
    file::{LockedDatabase, companion, create_new, hold, remove, sync},
    history::{History, PastChange, PastChanges, Query},
    inspect::{DatabaseIdentity, copy_into, inspect, settle},
    load::{Loaded, StoredCredential},
    open::path_of,
    owner::check_own,
    swap::{folder_of, swap_in},
};
use crate::domain::{
    actor::Actor,
    credential::ModelCredential,
    items::{Cut, Retention},
    repeat::{Remembered, RepeatKey},
    state::RevisionEffect,
    write::OldValue,
};

/// The open database, which holds its lock file.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// `None` after a failure closed the connection, until it is opened again.
    connection: Option<SqliteConnection>,
    head: Head,
    /// Whether contradictions were found in the file. If so, nothing is written to it any more, not even on close.
    is_damaged: bool,
    /// Held as long as the store exists. The operating system releases the lock when the process ends for any reason.
    _lock: File,
}

/// The newest revision that this store has written or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    revision: Revision,
    chain: ChainDigest,
}

/// Writes that become durable together.
#[derive(Debug)]
pub struct Batch<'a> {
    /// Revisions that follow the newest stored one.
    pub revisions: &'a [RevisionEffect],
    /// The actor that made them.
    pub actor: Actor,
    /// Writes with a request id, which can be repeated.
    pub remembered: &'a [Remembered],
    /// The part of the history to delete. `None`: nothing is deleted.
    pub cut: Option<Cut>,
    /// How much of the history is kept.
    pub retention: &'a Retention,
}

/// Why a batch was not written, or perhaps not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteFailure {
    /// Nothing was written. The store can still be written to.
    #[error("the revisions were rolled back")]
    RolledBack(#[source] StoreError),
    /// The commit failed, and the revisions may or may not be stored. The store has to be opened again.
    #[error("the revisions may or may not have been committed")]
    OutcomeUnknown(#[source] StoreError),
    /// Another process has written to the database, or the file was replaced. The store must not be used any more.
    #[error("the database was written by another process: its head is not revision {0}")]
    ForeignWriter(Revision),
}

impl WriteFailure {
    /// Returns the kind of failure.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::RolledBack(error) | Self::OutcomeUnknown(error) => error.kind(),
            Self::ForeignWriter(_) => Kind::Other,
        }
    }
}

/// The storage of the writer's revisions: the database, or a fake that simulates the database's failures.
pub trait Storage: Send {
    /// Writes a batch completely or not at all. When this returns `Ok`, the batch is durable.
    ///
    /// # Errors
    ///
    /// [`WriteFailure`] tells whether the storage can still be used.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: if the future is dropped, memory and storage may differ.
    fn write(&mut self, batch: &Batch<'_>) -> impl Future<Output = Result<(), WriteFailure>> + Send;

    /// Returns the earlier writes that are remembered under these keys.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if they cannot be read.
    fn recall(&mut self, keys: &[RepeatKey]) -> impl Future<Output = Result<Vec<Remembered>, StoreError>> + Send;

    /// Commits a transaction that changes nothing, to find out whether writing works.
    ///
    /// # Errors
    ///
    /// Same as [`Storage::write`].
    fn probe(&mut self) -> impl Future<Output = Result<(), WriteFailure>> + Send;

    /// Opens the storage again after a write with an unknown outcome, and reads it. Everything that is returned is
    /// durable, and a write that is missing from it will never appear later: the result does not depend on a sync that
    /// has failed.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if that does not work yet. Until it does, the storage cannot be used for anything else.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the method can be called again.
    fn reopen(&mut self) -> impl Future<Output = Result<Loaded, StoreError>> + Send;

    /// Returns the value at `revision` of each resource that was changed after it. All changes after `revision` must
    /// still be kept.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the values cannot be read.
    fn values_at(&mut self, revision: Revision) -> impl Future<Output = Result<Vec<OldValue>, StoreError>> + Send;

    /// Closes the storage properly.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if that fails. Nothing is lost in this case.
    fn close(self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

impl Storage for Store {
    async fn write(&mut self, batch: &Batch<'_>) -> Result<(), WriteFailure> {
        let head = self.head;
        let written = transact(
            self.connection().map_err(WriteFailure::RolledBack)?,
            async |connection| rows::write(connection, head, batch).await,
        )
        .await;
        self.note(&written);
        written?;
        if let Some(last) = batch.revisions.last() {
            self.head = Head {
                revision: last.past.revision,
                chain: last.past.chain,
            };
        }
        Ok(())
    }

    async fn recall(&mut self, keys: &[RepeatKey]) -> Result<Vec<Remembered>, StoreError> {
        let recalled = requests::recall(self.connection()?, keys).await;
        if let Err(error) = &recalled {
            self.note_error(error);
        }
        recalled
    }

    async fn values_at(&mut self, revision: Revision) -> Result<Vec<OldValue>, StoreError> {
        let values = history::values_at(self.connection()?, revision).await;
        if let Err(error) = &values {
            self.note_error(error);
        }
        values
    }

    async fn probe(&mut self) -> Result<(), WriteFailure> {
        let probed = transact(self.connection().map_err(WriteFailure::RolledBack)?, rows::touch).await;
        self.note(&probed);
        probed
    }

    /// Closing makes SQLite drop everything that it has cached of the file. After opening, SQLite sees the operating
    /// system's view of the file, which may not be on disk if a sync has failed. A checkpoint that empties the log
    /// therefore writes the content again, to the database file itself, and syncs it. One more commit then starts a new
    /// log. Otherwise entries of the old log, which may have been removed only in the system's memory, could come back
    /// after a power cut.
    async fn reopen(&mut self) -> Result<Loaded, StoreError> {
        if let Some(connection) = self.connection.take()
            && let Err(error) = connection.close().await
        {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "the database could not be closed properly"
            );
        }
        let mut connection = open::connect(&self.path).await?;
        let reopened = open::read_durable(&mut connection).await;
        self.connection = Some(connection);
        let loaded = reopened.inspect_err(|error| self.note_error(error))?;
        self.head = Head::of(&loaded);
        Ok(loaded)
    }

    /// Moves the content of the write-ahead log to the database file, unless that is damaged.
    async fn close(mut self) -> Result<(), StoreError> {
        match self.connection.take() {
            Some(connection) if self.is_damaged => open::leave(connection),
            Some(connection) => connection
                .close()
                .await
                .map_err(|error| StoreError::sql("close the database", error))?,
            None => {}
        }
        Ok(())
    }
}

impl Store {
    fn connection(&mut self) -> Result<&mut SqliteConnection, StoreError> {
        self.connection.as_mut().ok_or(StoreError::Closed)
    }

    fn note(&mut self, outcome: &Result<(), WriteFailure>) {
        if let Err(WriteFailure::RolledBack(error) | WriteFailure::OutcomeUnknown(error)) = outcome {
            self.note_error(error);
        }
    }

    fn note_error(&mut self, error: &StoreError) {
        self.is_damaged |= error.kind() == Kind::Corrupt;
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if self.is_damaged
            && let Some(connection) = self.connection.take()
        {
            open::leave(connection);
        }
    }
}

impl Head {
    fn of(loaded: &Loaded) -> Self {
        Self {
            revision: loaded.items.revision(),
            chain: loaded.items.head().chain,
        }
    }
}

/// Runs `work`, whose first statement begins a transaction, and commits it.
///
/// Uses plain statements, because a transaction object of sqlx becomes unusable when SQLite ends the transaction by
/// itself, as it does after some failures.
async fn transact(
    connection: &mut SqliteConnection,
    work: impl AsyncFnOnce(&mut SqliteConnection) -> Result<(), WriteFailure>,
) -> Result<(), WriteFailure> {
    failpoint::hit("commit.before-begin");
    if let Err(failure) = work(connection).await {
        roll_back(connection).await?;
        return Err(failure);
    }
    failpoint::hit("commit.before-commit");
    let Err(error) = say(connection, "COMMIT").await else {
        failpoint::hit("commit.after-commit");
        return Ok(());
    };
    let error = StoreError::sql("commit the transaction", error);
    let was_open = roll_back(connection).await?;
    // A transaction that could still be rolled back was not committed, nor was one whose last page did not fit on the
    // disk.
    if was_open || error.kind() == Kind::Full {
        Err(WriteFailure::RolledBack(error))
    } else {
        Err(WriteFailure::OutcomeUnknown(error))
    }
}

/// Rolls back. Returns whether a transaction was still open: after some failures SQLite rolls back by itself.
async fn roll_back(connection: &mut SqliteConnection) -> Result<bool, WriteFailure> {
    match say(connection, "ROLLBACK").await {
        Ok(()) => Ok(true),
        // Here, this code only means that no transaction is open.
        Err(error) if error::code(&error) == Some(1) => Ok(false),
        Err(error) => Err(WriteFailure::OutcomeUnknown(StoreError::sql(
            "roll back the transaction",
            error,
        ))),
    }
}

async fn say(connection: &mut SqliteConnection, sql: &'static str) -> Result<(), sqlx::Error> {
    sqlx::query(sql).execute(connection).await.map(drop)
}

const fn credential_state(credential: &ModelCredential) -> &'static str {
    match credential {
        ModelCredential::None => "none",
        ModelCredential::Set(_) => "set",
        ModelCredential::Dropped => "dropped",
    }
}

/// Returns a time in its stored form: whole microseconds since the Unix epoch.
fn micros(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
