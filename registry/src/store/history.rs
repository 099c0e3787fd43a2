//! What has been: read for those who ask, through a connection that cannot write.

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

/// How many read at a time: each has a connection and a page in memory.
const READERS: usize = 4;

/// How long a page waits for a database that is held, by a checkpoint for example.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// The history of a database, beside its writer.
///
/// Each page has a connection of its own: history is asked for seldom, and after a restore the file is another one.
#[derive(Debug, Clone)]
pub struct History {
    path: PathBuf,
    readers: Arc<Semaphore>,
}

/// Which changes are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The newest revision that may be shown.
    pub head: Revision,
    /// The change that the page before ended with.
    pub after: Option<(Revision, ResourceName)>,
    /// Only changes of this resource.
    pub resource: Option<ResourceName>,
    /// Only changes that this actor made.
    pub actor: Option<String>,
    /// How many at most.
    pub count: usize,
    /// The page ends with the change by which its values have so many bytes.
    pub bytes: usize,
}

/// One change, with what was before and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastChange {
    /// The revision.
    pub revision: Revision,
    /// When it was committed. For people.
    pub commit_time: SystemTime,
    /// Who made it.
    pub actor: String,
    /// The resource.
    pub name: ResourceName,
    /// Its value before. `None`: it did not exist.
    pub before: Option<Bytes>,
    /// Its value after. `None`: it was deleted.
    pub after: Option<Bytes>,
}

/// A page of changes.
#[derive(Debug)]
pub struct PastChanges {
    /// Newest first; those of one revision by name.
    pub changes: Vec<PastChange>,
    /// Whether there are more.
    pub is_cut: bool,
    /// The oldest revision whose changes are kept. `None`: none are.
    pub oldest: Option<Revision>,
}

impl History {
    /// The history in the database at `path`.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            readers: Arc::new(Semaphore::new(READERS)),
        }
    }

    /// Reads one page. What has been cut off of the history by then is not in it: the list ends earlier.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when it cannot be read.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is changed.
    pub async fn page(&self, query: &Query) -> Result<PastChanges, StoreError> {
        // Never closed.
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
        // A connection that only read has nothing to lose.
        let _closed = connection.close().await;
        page
    }
}

/// In one transaction: what a change led to and what is live are of one moment.
async fn page(connection: &mut SqliteConnection, query: &Query) -> Result<PastChanges, StoreError> {
    let mut transaction = connection
        .begin()
        .await
        .map_err(|error| StoreError::sql("begin to read", error))?;
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
    // What a change led to is what the next one of that name ended, else what is live.
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

/// What each resource that was changed after a revision was at it: what the first change after it ended.
pub(super) async fn values_at(
    connection: &mut SqliteConnection,
    revision: Revision,
) -> Result<Vec<OldValue>, StoreError> {
    let revision = revision.get();
    // With a lone MIN the other columns are of the row that has it.
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
