//! The database file: the only place with SQL.
//!
//! One connection reads at start and writes from then on; readers are served from memory, but for what has been, which
//! [`History`] reads through connections of its own. Whoever holds a [`Store`] holds
//! the lock file beside the database, so that no second registry writes the same file. What a resource's bytes mean is not
//! known here, only that they are the bytes that the digests were computed from.

mod error;
mod history;
mod load;
mod open;
mod requests;
mod rows;
mod verify;

use std::{fs::File, future::Future, time::SystemTime};

use sqlx::{Connection as _, SqliteConnection};
use switchboard::{digest::ChainDigest, names::Revision};

pub use self::{
    error::{Kind, StoreError},
    history::{History, PastChange, PastChanges, Query},
    load::{Loaded, StoredCredential},
    open::path_of,
};
use crate::domain::{
    actor::Actor,
    credential::Credential,
    items::{Cut, Retention},
    repeat::{Remembered, RepeatKey},
    state::Applied,
    write::OldValue,
};

/// The open database.
#[derive(Debug)]
pub struct Store {
    connection: SqliteConnection,
    head: Head,
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
    pub revisions: &'a [Applied],
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
    /// The commit failed: the revisions may be there after the next start or not. The store must not be used any more.
    #[error("commit the revisions")]
    OutcomeUnknown(#[source] StoreError),
    /// Somebody else has written to the database. Nothing was written, and the store must not be used any more.
    #[error("the database was written by another process: its head is not revision {0}")]
    ForeignWriter(Revision),
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

    /// What is remembered of an earlier write, if anything.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when it cannot be read.
    fn recall(&mut self, key: &RepeatKey) -> impl Future<Output = Result<Option<Remembered>, StoreError>> + Send;

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
        let begun = self.connection.begin_with("BEGIN IMMEDIATE").await;
        let mut transaction =
            begun.map_err(|error| WriteFailure::RolledBack(StoreError::sql("begin to write", error)))?;
        let written = rows::write(&mut transaction, self.head, batch).await;
        if let Err(failure) = written {
            // A connection that cannot even roll back is in a state that nobody knows.
            transaction
                .rollback()
                .await
                .map_err(|error| WriteFailure::OutcomeUnknown(StoreError::sql("roll back", error)))?;
            return Err(failure);
        }
        transaction
            .commit()
            .await
            .map_err(|error| WriteFailure::OutcomeUnknown(StoreError::sql("commit", error)))?;
        if let Some(last) = batch.revisions.last() {
            self.head = Head {
                revision: last.past.revision,
                chain: last.past.chain,
            };
        }
        Ok(())
    }

    async fn recall(&mut self, key: &RepeatKey) -> Result<Option<Remembered>, StoreError> {
        requests::recall(&mut self.connection, key).await
    }

    async fn values_at(&mut self, revision: Revision) -> Result<Vec<OldValue>, StoreError> {
        history::values_at(&mut self.connection, revision).await
    }

    /// What is in the write-ahead log goes to the file.
    async fn close(self) -> Result<(), StoreError> {
        self.connection
            .close()
            .await
            .map_err(|error| StoreError::sql("close the database", error))
    }
}

const fn credential_state(credential: &Credential) -> &'static str {
    match credential {
        Credential::None => "none",
        Credential::Set(_) => "set",
        Credential::Dropped => "dropped",
    }
}

/// A time as it is stored: whole microseconds.
fn micros(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
