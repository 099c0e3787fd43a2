//! Writes a round: one statement per table, all of them in one script.

use sqlx::{Row as _, SqliteConnection, sqlite::SqliteRow};
use switchboard::failpoint;

use super::{
    Batch, Head, StoreError, WriteFailure, credential_state, micros, requests,
    round::{Live, Round},
    script::Script,
};
use crate::domain::{
    credential::ModelCredential,
    items::{Cut, Item, ItemChange, Past},
    life::Life,
};

/// Begins a transaction and writes a batch, unless the stored head differs from the one that this store wrote last.
pub(super) async fn write(
    connection: &mut SqliteConnection,
    head: Head,
    batch: &Batch<'_>,
) -> Result<(), WriteFailure> {
    let (rows, written) = script(batch).run(connection).await;
    let newest = rows.first();
    // The head is checked first: after another process has written, any statement may fail.
    if let Some(row) = newest
        && !is_head(row, head).map_err(WriteFailure::RolledBack)?
    {
        return Err(WriteFailure::ForeignWriter(head.revision));
    }
    written.map_err(|error| WriteFailure::RolledBack(StoreError::sql("write the revisions", error)))?;
    if newest.is_none() && head.revision.get() != 0 {
        return Err(WriteFailure::ForeignWriter(head.revision));
    }
    failpoint::hit("commit.after-write");
    Ok(())
}

/// Begins a transaction and rewrites a page without changing it.
pub(super) async fn touch(connection: &mut SqliteConnection) -> Result<(), WriteFailure> {
    sqlx::raw_sql("BEGIN IMMEDIATE; UPDATE store SET singleton = singleton")
        .execute(connection)
        .await
        .map_err(|error| WriteFailure::RolledBack(StoreError::sql("make a test write", error)))?;
    Ok(())
}

/// Orders the statements so that a revision is written before the rows that refer to it, and a model before its
/// credential.
fn script(batch: &Batch<'_>) -> Script {
    let round = Round::of(batch.revisions, batch.actor);
    let mut script = Script::default();
    script.say("BEGIN IMMEDIATE");
    script.say("SELECT revision, chain FROM revisions ORDER BY revision DESC LIMIT 1");
    for (life, first) in &round.lives {
        write_life(&mut script, life, first);
    }
    write_revisions(&mut script, &round);
    write_changes(&mut script, &round.changes);
    write_resources(&mut script, &round);
    write_credentials(&mut script, &round);
    requests::remember(&mut script, batch.remembered, batch.retention.answers);
    if let Some(cut) = batch.cut {
        compact(&mut script, cut);
    }
    script
}

fn is_head(row: &SqliteRow, head: Head) -> Result<bool, StoreError> {
    let read = || Ok((row.try_get::<i64, _>(0)?, row.try_get::<&[u8], _>(1)?));
    let (revision, chain) = read().map_err(|error| StoreError::sql("read the newest revision", error))?;
    Ok(revision == head.revision.get() && chain == head.chain.as_bytes())
}

/// Writes the jump from one life to the next. The earlier history is deleted: no stream is ever resumed from it.
fn write_life(script: &mut Script, life: &Life, first: &Past) {
    let (number, incarnation) = (life.incarnation.number, life.incarnation.id.to_string());
    let store = life.store.to_string();
    script.say("DELETE FROM changes");
    script.say("DELETE FROM revisions");
    script
        .say(
            "INSERT INTO lives
             (number, incarnation_id, store_id, first_revision, parent_revision, parent_chain, cause, begin_time)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .add(number)
        .add(&incarnation)
        .add(&store)
        .add(life.first.get())
        .add(life.parent.get())
        .add(life.parent_chain.as_bytes().as_slice())
        .add(life.cause.as_str())
        .add(micros(first.commit_time));
    script
        .say("UPDATE store SET store_id = ?, incarnation_number = ?, incarnation_id = ?")
        .add(store)
        .add(number)
        .add(incarnation);
}

fn write_revisions(script: &mut Script, round: &Round<'_>) {
    let statement = [
        "INSERT INTO revisions (revision, chain, config_state, router_state, actor, commit_time) VALUES ",
        "(?, ?, ?, ?, ?, ?)",
        "",
    ];
    script.each(statement, &round.revisions, |values, (past, actor)| {
        values
            .add(past.revision.get())
            .add(past.chain.as_bytes().as_slice())
            .add(past.config.as_bytes().as_slice())
            .add(past.router.as_bytes().as_slice())
            .add(actor.as_str())
            .add(micros(past.commit_time));
    });
}

/// Stores the previous value together with the change that replaced it, so that each version is stored once.
fn write_changes(script: &mut Script, changes: &[(&ItemChange, Option<&Item>)]) {
    let statement = [
        "INSERT INTO changes
         (revision, name, item, before_type_url, before_create_revision, before_revision, before_value) VALUES ",
        "(?, ?, ?, ?, ?, ?, ?)",
        "",
    ];
    script.each(statement, changes, |values, (change, before)| {
        let digest = match change {
            ItemChange::Put(item) => Some(item.digest.as_bytes().as_slice()),
            ItemChange::Delete(_) => None,
        };
        values
            .add(change.revision().get())
            .add(&**change.key())
            .add(digest)
            .add(before.map(|item| item.type_url))
            .add(before.map(|item| item.create_revision.get()))
            .add(before.map(|item| item.revision.get()))
            .add(before.map(|item| &*item.value));
    });
}

fn write_resources(script: &mut Script, round: &Round<'_>) {
    let deleted: Vec<&str> = round.deleted.iter().copied().collect();
    // Nothing of a deleted resource remains except the change itself, which is its tombstone.
    for before in [
        "DELETE FROM credentials WHERE model IN (",
        "DELETE FROM resources WHERE name IN (",
    ] {
        script.each([before, "?", ")"], &deleted, |values, &name| {
            values.add(name);
        });
    }
    let statement = [
        "INSERT INTO resources (name, create_revision, revision, type_url, value, create_time, update_time) VALUES ",
        "(?, ?, ?, ?, ?, ?, ?)",
        " ON CONFLICT (name) DO UPDATE
         SET revision = excluded.revision, value = excluded.value, update_time = excluded.update_time",
    ];
    let live: Vec<&Live<'_>> = round.live.values().collect();
    script.each(statement, &live, |values, live| {
        let item = live.item;
        values
            .add(&*item.key)
            .add(item.create_revision.get())
            .add(item.revision.get())
            .add(item.type_url)
            .add(&*item.value)
            .add(micros(live.create_time))
            .add(micros(live.update_time));
    });
}

fn write_credentials(script: &mut Script, round: &Round<'_>) {
    let statement = [
        "INSERT INTO credentials (model, state, credential_id, origins, token, update_time) VALUES ",
        "(?, ?, ?, ?, ?, ?)",
        " ON CONFLICT (model) DO UPDATE
         SET state = excluded.state, credential_id = excluded.credential_id, origins = excluded.origins,
             token = excluded.token, update_time = excluded.update_time",
    ];
    let touched: Vec<_> = round.credentials.iter().collect();
    script.each(statement, &touched, |values, (model, (credential, time))| {
        let set = match credential {
            ModelCredential::Set(set) => Some(set),
            ModelCredential::None | ModelCredential::Dropped => None,
        };
        let origins = set.map(|set| {
            let origins = set.origins.iter().map(ToString::to_string);
            origins.collect::<Vec<_>>().join(" ")
        });
        values
            .add(*model)
            .add(credential_state(credential))
            .add(set.map(|set| set.id.to_string()))
            .add(origins)
            .add(set.map(|set| set.token.expose()))
            .add(micros(*time));
    });
}

/// Deletes everything below a cut. Each statement uses the primary key and touches only rows that it changes.
fn compact(script: &mut Script, cut: Cut) {
    script
        .say("DELETE FROM changes WHERE revision <= ?")
        .add(cut.floor.get());
    script
        .say("UPDATE revisions SET config_state = NULL, router_state = NULL WHERE revision >= ? AND revision < ?")
        .add(cut.from.get())
        .add(cut.floor.get());
    script
        .say("DELETE FROM revisions WHERE revision < ?")
        .add(cut.oldest_chain.get());
}
