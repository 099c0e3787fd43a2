//! Tells the registry's own databases from other files, none of which is ever opened for writing.
//!
//! The header of an SQLite file names the program that owns it by a number, the application id. A registry's database
//! from before this number was set has 0 there. It is recognized by its first migration, and gets the number at its next
//! start.

use std::{fs::File, io::Read as _, path::Path};

use sqlx::{AssertSqlSafe, Connection as _, SqliteConnection};

use super::{StoreError, error::code, inspect::open_unchanged, open::MIGRATOR};

/// The first bytes of every SQLite file.
const HEADER: &[u8] = b"SQLite format 3\0";

/// Application id of a registry's database.
const APPLICATION_ID: i32 = i32::from_be_bytes(*b"SwBd");

/// Content of a file that a registry may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// None yet: the file is empty, or a database without tables that has no owner.
    Nothing,
    /// A registry's database.
    Database,
}

/// Returns what a file contains, without changing it.
///
/// # Errors
///
/// [`StoreError::NotSqlite`] or [`StoreError::Foreign`] if the file is not for a registry to use, or another error if it
/// cannot be read.
pub(super) async fn examine(path: &Path) -> Result<Content, StoreError> {
    // SQLite itself may remove the log next to a file that is not a database.
    match &*beginning(path)? {
        [] => return Ok(Content::Nothing),
        HEADER => {}
        _ => return Err(StoreError::NotSqlite(path.to_owned())),
    }
    let mut connection = open_unchanged(path).await?;
    let content = content(path, &mut connection).await;
    connection
        .close()
        .await
        .map_err(|error| StoreError::sql("close the database", error))?;
    content
}

/// Checks that a file is a registry's database.
///
/// # Errors
///
/// Same as for a start, and [`StoreError::Empty`] if the file has no content.
pub async fn check_own(path: &Path) -> Result<(), StoreError> {
    match examine(path).await? {
        Content::Database => Ok(()),
        Content::Nothing => Err(StoreError::Empty(path.to_owned())),
    }
}

/// Sets the application id, unless it is set.
pub(super) async fn stamp(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    if application_id(connection).await? == APPLICATION_ID {
        return Ok(());
    }
    // A pragma takes no bound values.
    sqlx::query(AssertSqlSafe(format!("PRAGMA application_id = {APPLICATION_ID}")))
        .execute(connection)
        .await
        .map_err(|error| StoreError::sql("write the application id", error))?;
    Ok(())
}

fn beginning(path: &Path) -> Result<Vec<u8>, StoreError> {
    let mut begin = Vec::with_capacity(HEADER.len());
    File::open(path)
        .and_then(|file| file.take(HEADER.len() as u64).read_to_end(&mut begin))
        .map_err(|source| StoreError::file(path, source))?;
    Ok(begin)
}

async fn content(path: &Path, connection: &mut SqliteConnection) -> Result<Content, StoreError> {
    let tables: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM sqlite_schema")
        .fetch_one(&mut *connection)
        .await
        .map_err(|error| StoreError::sql("read the schema", error).of_schema())?;
    match (application_id(connection).await?, tables) {
        (APPLICATION_ID, _) => Ok(Content::Database),
        (0, 0) => Ok(Content::Nothing),
        (0, _) if has_first_migration(connection).await? => Ok(Content::Database),
        _ => Err(StoreError::Foreign(path.to_owned())),
    }
}

async fn application_id(connection: &mut SqliteConnection) -> Result<i32, StoreError> {
    sqlx::query_scalar("PRAGMA application_id")
        .fetch_one(connection)
        .await
        .map_err(|error| StoreError::sql("read the application id", error))
}

/// Returns whether the database was created by the registry's first migration. Other programs keep a table of
/// migrations under the same name.
async fn has_first_migration(connection: &mut SqliteConnection) -> Result<bool, StoreError> {
    let Some(first) = MIGRATOR.iter().min_by_key(|migration| migration.version) else {
        return Ok(false);
    };
    let checksum: Result<Option<Vec<u8>>, sqlx::Error> =
        sqlx::query_scalar("SELECT checksum FROM _sqlx_migrations WHERE version = ?")
            .bind(first.version)
            .fetch_optional(connection)
            .await;
    match checksum {
        Ok(found) => Ok(found.as_deref() == Some(&*first.checksum)),
        // There is no such table, or it has no such column.
        Err(error) if code(&error) == Some(1) => Ok(false),
        Err(error) => Err(StoreError::sql("read the migrations of the database", error)),
    }
}
