//! Reads a database for verification and backups, whether or not a registry runs on it, without changing the content.

use std::path::Path;

use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use switchboard::names::StoreId;

use super::{
    Loaded, StoreError,
    file::{companion, sync},
    load,
    open::{BUSY_TIMEOUT, MIGRATOR, quick_check},
    owner::{check_own, stamp},
};
use crate::domain::life::Mark;

/// The identity of a database, which can be read even if the schema is older or newer than this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatabaseIdentity {
    /// The store.
    pub store: StoreId,
    /// Its incarnation number and its newest revision.
    pub mark: Mark,
}

/// Verifies a database as a start does, but more thoroughly, and returns its content. Nothing is changed.
///
/// # Errors
///
/// [`StoreError`] if the file is not a registry's database, is damaged, cannot be read, or does not have this program's
/// schema.
pub async fn inspect(database: &Path) -> Result<Loaded, StoreError> {
    check_own(database).await?;
    let mut connection = open_unchanged(database).await?;
    // One transaction for all checks, so that they see one state even if a registry writes at the same time.
    let mut reading = connection
        .begin()
        .await
        .map_err(|error| StoreError::sql("begin a read transaction", error))?;
    check_schema(&mut reading).await?;
    integrity_check(&mut reading).await?;
    let loaded = load::load(&mut reading).await?;
    reading
        .rollback()
        .await
        .map_err(|error| StoreError::sql("end the read transaction", error))?;
    close(connection).await?;
    Ok(loaded)
}

/// Copies a database, which a registry may be running on, to a new or empty file, and syncs the copy. The copy has the
/// application id even if the database does not have it yet.
///
/// # Errors
///
/// [`StoreError`] if the file is not a registry's database or cannot be read, or the copy cannot be written.
pub async fn copy_into(database: &Path, copy: &Path) -> Result<(), StoreError> {
    check_own(database).await?;
    let mut connection = open_as_is(database).await?;
    check_schema(&mut connection).await?;
    let target = copy.to_string_lossy().into_owned();
    sqlx::query("VACUUM INTO ?")
        .bind(target)
        .execute(&mut connection)
        .await
        .map_err(|error| StoreError::sql("copy the database", error))?;
    close(connection).await?;
    let mut copied = open_as_is(copy).await?;
    stamp(&mut copied).await?;
    close(copied).await?;
    sync(copy)
}

/// Returns the identity of a database, after checking that it is whole and that its file contains everything from its
/// log.
///
/// # Errors
///
/// [`StoreError`] if the file is damaged or not a registry's database; of the kind `Busy` if another process uses it.
pub async fn settle(database: &Path) -> Result<DatabaseIdentity, StoreError> {
    check_own(database).await?;
    let mut connection = open_as_is(database).await?;
    quick_check(&mut connection).await?;
    let identity = identity(&mut connection).await.map_err(StoreError::of_schema)?;
    close(connection).await?;
    // The last process to close a database empties its log and removes it.
    if companion(database, "-wal").exists() {
        return Err(StoreError::InUse(database.to_owned()));
    }
    Ok(identity)
}

/// Opens a database for reading only. If it has no log, no process is writing to it, and SQLite must not create a log.
pub(super) async fn open_unchanged(database: &Path) -> Result<SqliteConnection, StoreError> {
    // The log is next to the file itself, whatever link leads to it.
    let file = database
        .canonicalize()
        .map_err(|source| StoreError::file(database, source))?;
    let is_logged = companion(&file, "-wal").exists();
    connect(as_is(&file).read_only(true).immutable(!is_logged)).await
}

/// Opens a database under SQLite's own locking rules, in the journal mode that the file has.
async fn open_as_is(database: &Path) -> Result<SqliteConnection, StoreError> {
    connect(as_is(database)).await
}

fn as_is(database: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(database)
        .create_if_missing(false)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("trusted_schema", "OFF")
        .pragma("cell_size_check", "ON")
}

async fn connect(options: SqliteConnectOptions) -> Result<SqliteConnection, StoreError> {
    options
        .connect()
        .await
        .map_err(|error| StoreError::sql("open the database", error))
}

async fn close(connection: SqliteConnection) -> Result<(), StoreError> {
    connection
        .close()
        .await
        .map_err(|error| StoreError::sql("close the database", error))
}

async fn check_schema(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let newest: Option<i64> = sqlx::query_scalar("SELECT MAX(version) FROM _sqlx_migrations")
        .fetch_one(connection)
        .await
        .map_err(|error| StoreError::sql("read the version of the schema", error).of_schema())?;
    let known = MIGRATOR.iter().map(|migration| migration.version).max();
    match newest {
        None => Err(StoreError::damaged("the version of the schema is missing")),
        Some(schema) if Some(schema) > known => Err(StoreError::SchemaTooNew(schema)),
        Some(schema) if Some(schema) < known => Err(StoreError::SchemaTooOld(schema)),
        Some(_) => Ok(()),
    }
}

async fn identity(connection: &mut SqliteConnection) -> Result<DatabaseIdentity, StoreError> {
    let named = sqlx::query!("SELECT store_id, incarnation_number FROM store")
        .fetch_optional(&mut *connection)
        .await
        .map_err(|error| StoreError::sql("read the store's id", error))?
        .ok_or_else(|| StoreError::damaged("the store's id is missing"))?;
    let head = sqlx::query!("SELECT revision FROM revisions ORDER BY revision DESC LIMIT 1")
        .fetch_optional(connection)
        .await
        .map_err(|error| StoreError::sql("read the newest revision", error))?;
    let read = || {
        Some(DatabaseIdentity {
            store: StoreId::parse(&named.store_id).ok()?,
            mark: Mark::new(named.incarnation_number, head.map_or(0, |head| head.revision)).ok()?,
        })
    };
    read().ok_or_else(|| StoreError::damaged("the store's id is not readable"))
}

async fn integrity_check(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let found: Vec<String> = sqlx::query_scalar("PRAGMA integrity_check(1)")
        .fetch_all(&mut *connection)
        .await
        .map_err(|error| StoreError::sql("check the database", error))?;
    if let Some(problem) = found.first().filter(|found| *found != "ok") {
        return Err(StoreError::damaged(problem));
    }
    let dangling = sqlx::query("PRAGMA foreign_key_check")
        .fetch_optional(connection)
        .await
        .map_err(|error| StoreError::sql("check the foreign keys", error))?;
    match dangling {
        None => Ok(()),
        Some(_) => Err(StoreError::damaged("a row refers to a row that does not exist")),
    }
}
