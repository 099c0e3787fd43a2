//! Reads past changes on request, through a connection that cannot write.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use switchboard::names::{ResourceName, Revision};
use tokio::sync::Semaphore;

use super::{StoreError, load};
use crate::domain::write::OldValue;

/// Maximum number of concurrent readers. Each has a connection and a page in memory.
const READERS: usize = 4;

/// How long a page waits for a locked database, for example during a checkpoint.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// Reads the history of a database while its writer runs.
///
/// Each page uses a connection of its own: history is requested rarely, and after a restore the file is a different
/// one.
#[derive(Debug, Clone)]
pub struct History {
    path: PathBuf,
    readers: Arc<Semaphore>,
}

/// Selects the changes to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The newest revision that may be returned.
    pub head: Revision,
    /// The last change of the previous page. `None`: this is the first page.
    pub after: Option<(Revision, ResourceName)>,
    /// If set, only changes of this resource are returned.
    pub resource: Option<ResourceName>,
    /// If set, only changes by this actor are returned.
    pub actor: Option<String>,
    /// Maximum number of changes.
    pub count: usize,
    /// Size in bytes at which the page ends: with the change whose values reach it.
    pub bytes: usize,
}

/// One change, with the values of the resource before and after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastChange {
    /// The revision that the change belongs to.
    pub revision: Revision,
    /// When the revision was committed. For display only.
    pub commit_time: SystemTime,
    /// The actor that made the change.
    pub actor: String,
    /// The resource that was changed.
    pub name: ResourceName,
    /// Value before the change. `None`: the resource did not exist.
    pub before: Option<Bytes>,
    /// Value after the change. `None`: the resource was deleted.
    pub after: Option<Bytes>,
}

/// A page of changes.
#[derive(Debug)]
pub struct PastChanges {
    /// Newest first; changes of one revision are ordered by name.
    pub changes: Vec<PastChange>,
    /// Whether more changes follow.
    pub is_cut: bool,
    /// The oldest revision whose changes are kept. `None`: no changes are kept.
    pub oldest: Option<Revision>,
}

impl History {
    /// Creates a reader for the database at `path`.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            readers: Arc::new(Semaphore::new(READERS)),
        }
    }

    /// Reads one page. Changes that were deleted in the meantime are missing from it: the list then ends earlier.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the page cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn page(&self, query: &Query) -> Result<PastChanges, StoreError> {
        // The semaphore is never closed.
        let _permit = self.readers.acquire().await;
        let mut connection = SqliteConnectOptions::new()
            .filename(&self.path)
            .read_only(true)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("trusted_schema", "OFF")
            .connect()
            .await
            .map_err(|error| StoreError::sql("open the database to read", error))?;
        let page = page(&mut connection, query).await;
        // Nothing is lost if a connection that only read fails to close.
        let _closed = connection.close().await;
        page
    }
}

/// Reads in one transaction, so that past changes and live resources are read at the same revision.
async fn page(connection: &mut SqliteConnection, query: &Query) -> Result<PastChanges, StoreError> {
    let mut transaction = connection
        .begin()
        .await
        .map_err(|error| StoreError::sql("begin a read transaction", error))?;
    let oldest = oldest(&mut transaction).await?;
    let (changes, is_cut) = changes(&mut transaction, query).await?;
    Ok(PastChanges {
        changes,
        is_cut,
        oldest,
    })
}

async fn oldest(connection: &mut SqliteConnection) -> Result<Option<Revision>, StoreError> {
    let oldest = sqlx::query_scalar!(r#"SELECT MIN(revision) AS "oldest: i64" FROM changes"#)
        .fetch_one(connection)
        .await
        .map_err(|error| StoreError::sql("read the oldest change", error))?;
    Ok(oldest.and_then(Revision::new))
}

async fn changes(connection: &mut SqliteConnection, query: &Query) -> Result<(Vec<PastChange>, bool), StoreError> {
    let failed = |error| StoreError::sql("read the history", error);
    let (from, after) = match &query.after {
        Some((revision, name)) => (revision.get(), name.to_string()),
        None => (query.head.get(), String::new()),
    };
    let from = from.min(query.head.get());
    let resource = query.resource.as_ref().map(ToString::to_string);
    let actor = query.actor.as_deref();
    // The value after a change is the value before the next change of that name or, if there is none, the live value.
    let mut rows = sqlx::query!(
        r#"SELECT c.revision, c.name, r.actor, r.commit_time, c.before_value,
            CASE WHEN c.item IS NOT NULL THEN COALESCE(
                (SELECT n.before_value FROM changes AS n
                 WHERE n.name = c.name AND n.revision > c.revision ORDER BY n.revision LIMIT 1),
                (SELECT value FROM resources AS l WHERE l.name = c.name)
            ) END AS "after_value: Vec<u8>"
         FROM changes AS c JOIN revisions AS r ON r.revision = c.revision
         WHERE c.revision <= ?1 AND (c.revision < ?1 OR c.name > ?2)
         AND (?3 IS NULL OR c.name = ?3) AND (?4 IS NULL OR r.actor = ?4)
         ORDER BY c.revision DESC, c.name"#,
        from,
        after,
        resource,
        actor
    )
    .fetch(connection);
    let mut changes = Vec::new();
    let mut bytes = 0;
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        if changes.len() == query.count || bytes >= query.bytes {
            return Ok((changes, true));
        }
        let revision = Revision::new(row.revision).ok_or_else(|| load::bad("a change"))?;
        let name = ResourceName::parse(&row.name).ok_or_else(|| load::bad("a change"))?;
        bytes += row.before_value.as_ref().map_or(0, Vec::len) + row.after_value.as_ref().map_or(0, Vec::len);
        changes.push(PastChange {
            revision,
            commit_time: load::time(row.commit_time),
            actor: row.actor,
            name,
            before: row.before_value.map(Bytes::from),
            after: row.after_value.map(Bytes::from),
        });
    }
    Ok((changes, false))
}

/// Returns the value at `revision` of each resource that was changed after it: the value before the first such change.
pub(super) async fn values_at(
    connection: &mut SqliteConnection,
    revision: Revision,
) -> Result<Vec<OldValue>, StoreError> {
    let revision = revision.get();
    // With a single MIN, SQLite takes the other columns from the row that contains the minimum.
    let rows = sqlx::query!(
        r#"SELECT name AS "name!", MIN(revision) AS "revision: i64", before_value FROM changes WHERE revision > ? GROUP BY name"#,
        revision
    )
    .fetch_all(connection)
    .await
    .map_err(|error| StoreError::sql("read an earlier state", error))?;
    let read = rows.into_iter().map(|row| {
        Some(OldValue {
            name: ResourceName::parse(&row.name)?,
            value: row.before_value.map(Bytes::from),
        })
    });
    read.collect::<Option<_>>().ok_or_else(|| load::bad("a change"))
}
