//! Writes that had a request id, with their answers.

use sqlx::SqliteConnection;
use switchboard::names::{IncarnationId, Revision};

use super::StoreError;
use crate::domain::repeat::{Fingerprint, Remembered, RepeatKey};

/// What is remembered under a key.
pub(super) async fn recall(
    connection: &mut SqliteConnection,
    key: &RepeatKey,
) -> Result<Option<Remembered>, StoreError> {
    let (actor, id) = (key.actor.as_str(), key.id.as_str());
    let row = sqlx::query!(
        "SELECT content, answer, revision, incarnation_id FROM requests
         WHERE actor = ? AND method = ? AND request_id = ?",
        actor,
        key.method,
        id
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| StoreError::sql("look up a request id", error))?;
    let Some(row) = row else {
        return Ok(None);
    };
    let read = || {
        Some(Remembered {
            key: key.clone(),
            content: Fingerprint::from_slice(&row.content)?,
            answer: row.answer.into(),
            revision: Revision::new(row.revision)?,
            incarnation: IncarnationId::parse(&row.incarnation_id).ok()?,
        })
    };
    read()
        .map(Some)
        .ok_or_else(|| StoreError::damaged("the answer to an earlier write is not readable"))
}

/// Remembers one write.
pub(super) async fn remember(connection: &mut SqliteConnection, write: &Remembered) -> Result<(), sqlx::Error> {
    let (actor, id) = (write.key.actor.as_str(), write.key.id.as_str());
    let (content, answer) = (write.content.as_bytes().as_slice(), &*write.answer);
    let (revision, incarnation) = (write.revision.get(), write.incarnation.to_string());
    sqlx::query!(
        "INSERT INTO requests (actor, method, request_id, content, answer, revision, incarnation_id)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
        actor,
        write.key.method,
        id,
        content,
        answer,
        revision,
        incarnation
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Keeps the newest `count` of them.
pub(super) async fn prune(connection: &mut SqliteConnection, count: i64) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "DELETE FROM requests WHERE sequence <= (SELECT MAX(sequence) FROM requests) - ?",
        count
    )
    .execute(connection)
    .await?;
    Ok(())
}
