//! Stores writes that had a request id, with their answers.

use sqlx::{Row as _, SqliteConnection, sqlite::SqliteRow};
use switchboard::names::{IncarnationId, Revision};

use super::{StoreError, script::Script};
use crate::domain::repeat::{Fingerprint, Remembered, RepeatKey};

/// Returns the earlier writes that are remembered under these keys.
pub(super) async fn recall(
    connection: &mut SqliteConnection,
    keys: &[RepeatKey],
) -> Result<Vec<Remembered>, StoreError> {
    // The index of each key is part of the query, so that each row shows which key it belongs to.
    let statement = [
        "WITH keys (position, of_actor, of_method, id) AS (VALUES ",
        "(?, ?, ?, ?)",
        ") SELECT position, content, answer, revision, incarnation_id FROM keys CROSS JOIN requests
         ON actor = of_actor AND method = of_method AND request_id = id",
    ];
    let mut script = Script::default();
    let indexed: Vec<_> = (0_u32..).zip(keys).collect();
    script.each(statement, &indexed, |values, (index, key)| {
        values
            .add(*index)
            .add(key.actor.as_str())
            .add(key.method)
            .add(key.id.as_str());
    });
    let (rows, looked_up) = script.run(connection).await;
    looked_up.map_err(|error| StoreError::sql("look up the request ids", error))?;
    rows.iter().map(|row| read(row, keys)).collect()
}

fn read(row: &SqliteRow, keys: &[RepeatKey]) -> Result<Remembered, StoreError> {
    let read = || {
        let index: u32 = row.try_get(0).ok()?;
        Some(Remembered {
            key: keys.get(usize::try_from(index).ok()?)?.clone(),
            content: Fingerprint::from_slice(row.try_get(1).ok()?)?,
            answer: row.try_get::<Vec<u8>, _>(2).ok()?.into(),
            revision: Revision::new(row.try_get(3).ok()?)?,
            incarnation: IncarnationId::parse(row.try_get(4).ok()?).ok()?,
        })
    };
    read().ok_or_else(|| StoreError::damaged("the answer to an earlier write is not readable"))
}

/// Stores these writes, and keeps the newest `count` of all stored writes.
pub(super) fn remember(script: &mut Script, writes: &[Remembered], count: i64) {
    if writes.is_empty() {
        return;
    }
    let statement = [
        "INSERT INTO requests (actor, method, request_id, content, answer, revision, incarnation_id) VALUES ",
        "(?, ?, ?, ?, ?, ?, ?)",
        "",
    ];
    script.each(statement, writes, |values, write| {
        values
            .add(write.key.actor.as_str())
            .add(write.key.method)
            .add(write.key.id.as_str())
            .add(write.content.as_bytes().as_slice())
            .add(&*write.answer)
            .add(write.revision.get())
            .add(write.incarnation.to_string());
    });
    script
        .say("DELETE FROM requests WHERE sequence <= (SELECT MAX(sequence) FROM requests) - ?")
        .add(count);
}
