//! The database file: the only place with SQL.
//!
//! One connection reads at start and writes from then on; readers are served from memory, but for what has been, which
//! [`History`] reads through connections of its own. Whoever holds a [`Store`] holds
//! the lock file beside the database, so that no second registry writes the same file. What a resource's bytes mean is not
//! known here, only that they are the bytes that the digests were computed from.

mod copy;
mod error;
mod file;
mod history;
mod inspect;
mod load;
mod open;
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

/// The open database.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// `None`: a failure had it closed, and it is not open again yet.
    connection: Option<SqliteConnection>,
    head: Head,
    /// Contradictions were found in the file: from then on nothing is written to it, not even when it is closed.
    is_damaged: bool,
    /// Held for life: the system gives the lock back when the process ends, however it ends.
    _lock: File,
}

/// The newest revision that this store has written or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    revision: Revision,
    chain: ChainDigest,
}

/// What becomes durable together.
#[derive(Debug)]
pub struct Batch<'a> {
    /// Revisions that follow the newest one.
    pub revisions: &'a [RevisionEffect],
    /// Who made them.
    pub actor: Actor,
    /// The writes that can be repeated.
    pub remembered: &'a [Remembered],
    /// What is no longer kept of the history.
    pub cut: Option<Cut>,
    /// How much is kept.
    pub retention: &'a Retention,
}

/// Why nothing, or perhaps something, was written.
#[derive(Debug, thiserror::Error)]
pub enum WriteFailure {
    /// Nothing was written, and the store can be written again.
    #[error("roll back the revisions")]
    RolledBack(#[source] StoreError),
    /// The commit failed: the revisions may be there or not. The store has to be opened again.
    #[error("commit the revisions")]
    OutcomeUnknown(#[source] StoreError),
    /// Somebody else has written to the database, or it was exchanged. The store must not be used any more.
    #[error("the database was written by another process: its head is not revision {0}")]
    ForeignWriter(Revision),
}

impl WriteFailure {
    /// What kind of failure it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::RolledBack(error) | Self::OutcomeUnknown(error) => error.kind(),
            Self::ForeignWriter(_) => Kind::Other,
        }
    }
}

/// What the writer keeps its revisions in: the database, or what stands in for it where its faults are played through.
pub trait Storage: Send {
    /// Writes a batch, all or nothing of it; when it returns it is durable.
    ///
    /// # Errors
    ///
    /// [`WriteFailure`], which says whether the storage can still be used.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: dropped before the end, what is in memory and in the storage may differ.
    fn write(&mut self, batch: &Batch<'_>) -> impl Future<Output = Result<(), WriteFailure>> + Send;

    /// What is remembered of earlier writes under these keys.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when it cannot be read.
    fn recall(&mut self, keys: &[RepeatKey]) -> impl Future<Output = Result<Vec<Remembered>, StoreError>> + Send;

    /// Makes something durable that changes nothing, to learn whether writing works.
    ///
    /// # Errors
    ///
    /// As [`Storage::write`].
    fn probe(&mut self) -> impl Future<Output = Result<(), WriteFailure>> + Send;

    /// Opens the storage again after a failure that left the outcome of a write open, and reads it. What it returns is
    /// durable, and a write that is not in it will never be: nothing rests on a sync that has failed.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when that does not work yet: nothing else can be done with the storage until it does.
    ///
    /// # Cancel safety
    ///
    /// Dropped before the end, it can be called again.
    fn reopen(&mut self) -> impl Future<Output = Result<Loaded, StoreError>> + Send;

    /// What each resource that was changed after a revision was at it. Only for one from which all changes are kept.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when it cannot be read.
    fn values_at(&mut self, revision: Revision) -> impl Future<Output = Result<Vec<OldValue>, StoreError>> + Send;

    /// Closes the storage in order.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when that fails; nothing is lost then.
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

    /// Closed, SQLite lets go of all that it believes of the file. Opened, it sees what the system would hand to anyone,
    /// which need not be on the disk where a sync has failed: a checkpoint that leaves nothing in the log writes it
    /// again, to the database itself, and syncs that. One more commit then begins a new log, so that nothing in the old
    /// one, of which only the system's memory may have forgotten, can come back with a power cut.
    async fn reopen(&mut self) -> Result<Loaded, StoreError> {
        if let Some(connection) = self.connection.take()
            && let Err(error) = connection.close().await
        {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "the database did not close in order"
            );
        }
        let mut connection = open::connect(&self.path).await?;
        let reopened = open::read_durable(&mut connection).await;
        self.connection = Some(connection);
        let loaded = reopened.inspect_err(|error| self.note_error(error))?;
        self.head = Head::of(&loaded);
        Ok(loaded)
    }

    /// What is in the write-ahead log goes to the file, unless that is damaged.
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

/// Does `work`, which begins a transaction with its first statement, and commits it. By plain statements: a transaction of
/// the library is lost for good when SQLite has ended it by itself, as it does after some failures.
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
    let error = StoreError::sql("commit", error);
    let was_open = roll_back(connection).await?;
    // A transaction that could still be rolled back was not committed; nor was one for whose last page there was no room.
    if was_open || error.kind() == Kind::Full {
        Err(WriteFailure::RolledBack(error))
    } else {
        Err(WriteFailure::OutcomeUnknown(error))
    }
}

/// Whether there was still anything to roll back: after some failures SQLite does it by itself.
async fn roll_back(connection: &mut SqliteConnection) -> Result<bool, WriteFailure> {
    match say(connection, "ROLLBACK").await {
        Ok(()) => Ok(true),
        // It says nothing else by this code here.
        Err(error) if error::code(&error) == Some(1) => Ok(false),
        Err(error) => Err(WriteFailure::OutcomeUnknown(StoreError::sql("roll back", error))),
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

/// A time as it is stored: whole microseconds.
fn micros(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
