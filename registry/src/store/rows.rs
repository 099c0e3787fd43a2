//! Writing revisions within a transaction.

use sqlx::SqliteConnection;
use switchboard::{failpoint, names::ModelName};

use super::{Batch, Head, StoreError, WriteFailure, credential_state, micros, requests};
use crate::domain::{
    actor::Actor,
    credential::Credential,
    items::{Cut, Item, ItemChange, Past, Tombstone},
    life::Life,
    state::Applied,
};

pub(super) async fn write(
    connection: &mut SqliteConnection,
    head: Head,
    batch: &Batch<'_>,
) -> Result<(), WriteFailure> {
    if !is_head(connection, head).await.map_err(WriteFailure::RolledBack)? {
        return Err(WriteFailure::ForeignWriter(head.revision));
    }
    for revision in batch.revisions {
        write_one(connection, revision, batch.actor)
            .await
            .map_err(|error| WriteFailure::RolledBack(StoreError::sql("write a revision", error)))?;
        failpoint::hit("commit.after-write");
    }
    remember(connection, batch)
        .await
        .map_err(|error| WriteFailure::RolledBack(StoreError::sql("remember the answers", error)))?;
    if let Some(cut) = batch.cut {
        compact(connection, cut)
            .await
            .map_err(|error| WriteFailure::RolledBack(StoreError::sql("cut off old history", error)))?;
    }
    Ok(())
}

/// Writes a page as it is.
pub(super) async fn touch(connection: &mut SqliteConnection) -> Result<(), WriteFailure> {
    sqlx::query("UPDATE store SET singleton = singleton")
        .execute(connection)
        .await
        .map_err(|error| WriteFailure::RolledBack(StoreError::sql("try to write", error)))?;
    Ok(())
}

async fn remember(connection: &mut SqliteConnection, batch: &Batch<'_>) -> Result<(), sqlx::Error> {
    if batch.remembered.is_empty() {
        return Ok(());
    }
    for write in batch.remembered {
        requests::remember(connection, write).await?;
    }
    requests::prune(connection, batch.retention.answers).await
}

/// Deletes what is below a cut. Each statement goes by the primary key and touches only rows that it changes.
async fn compact(connection: &mut SqliteConnection, cut: Cut) -> Result<(), sqlx::Error> {
    let (from, floor, oldest_chain) = (cut.from.get(), cut.floor.get(), cut.oldest_chain.get());
    sqlx::query!("DELETE FROM changes WHERE revision <= ?", floor)
        .execute(&mut *connection)
        .await?;
    sqlx::query!(
        "UPDATE revisions SET config_state = NULL, router_state = NULL WHERE revision >= ? AND revision < ?",
        from,
        floor
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!("DELETE FROM revisions WHERE revision < ?", oldest_chain)
        .execute(&mut *connection)
        .await?;
    Ok(())
}

async fn is_head(connection: &mut SqliteConnection, head: Head) -> Result<bool, StoreError> {
    let stored = sqlx::query!("SELECT revision, chain FROM revisions ORDER BY revision DESC LIMIT 1")
        .fetch_optional(connection)
        .await
        .map_err(|error| StoreError::sql("read the newest revision", error))?;
    Ok(match stored {
        None => head.revision.get() == 0,
        Some(row) => row.revision == head.revision.get() && row.chain == head.chain.as_bytes(),
    })
}

async fn write_one(connection: &mut SqliteConnection, revision: &Applied, actor: Actor) -> Result<(), sqlx::Error> {
    let past = &revision.past;
    let actor = match &revision.life {
        Some(life) => {
            write_life(connection, life, past).await?;
            Actor::System
        }
        None => actor,
    };
    write_revision(connection, past, actor).await?;
    for change in &revision.changes {
        match change {
            ItemChange::Put(item) => write_item(connection, item, past).await?,
            ItemChange::Delete(tombstone) => delete_item(connection, tombstone).await?,
        }
        let before = revision.before.get(change.key());
        write_change(connection, change, before.map(AsRef::as_ref)).await?;
    }
    for (model, credential) in &revision.credentials {
        write_credential(connection, model, credential, past).await?;
    }
    Ok(())
}

/// The jump from one life to the next. The history before it is not kept: no cursor of it is ever resumed from.
async fn write_life(connection: &mut SqliteConnection, life: &Life, past: &Past) -> Result<(), sqlx::Error> {
    let (number, incarnation) = (life.incarnation.number, life.incarnation.id.to_string());
    let (store, cause, time) = (life.store.to_string(), life.cause.as_str(), micros(past.commit_time));
    let (first, parent) = (life.first.get(), life.parent.get());
    let parent_chain = life.parent_chain.as_bytes().as_slice();
    sqlx::query!("DELETE FROM changes").execute(&mut *connection).await?;
    sqlx::query!("DELETE FROM revisions").execute(&mut *connection).await?;
    sqlx::query!(
        "INSERT INTO lives
         (number, incarnation_id, store_id, first_revision, parent_revision, parent_chain, cause, begin_time)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        number,
        incarnation,
        store,
        first,
        parent,
        parent_chain,
        cause,
        time
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "UPDATE store SET store_id = ?, incarnation_number = ?, incarnation_id = ?",
        store,
        number,
        incarnation
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn write_revision(connection: &mut SqliteConnection, past: &Past, actor: Actor) -> Result<(), sqlx::Error> {
    let (revision, commit_time) = (past.revision.get(), micros(past.commit_time));
    let (chain, config, router) = (
        past.chain.as_bytes().as_slice(),
        past.config.as_bytes().as_slice(),
        past.router.as_bytes().as_slice(),
    );
    let actor = actor.as_str();
    sqlx::query!(
        "INSERT INTO revisions (revision, chain, config_state, router_state, actor, commit_time)
         VALUES (?, ?, ?, ?, ?, ?)",
        revision,
        chain,
        config,
        router,
        actor,
        commit_time
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn write_item(connection: &mut SqliteConnection, item: &Item, past: &Past) -> Result<(), sqlx::Error> {
    let (name, time) = (&*item.key, micros(past.commit_time));
    let (create_revision, revision) = (item.create_revision.get(), item.revision.get());
    let value = &*item.value;
    sqlx::query!(
        "INSERT INTO resources (name, create_revision, revision, type_url, value, create_time, update_time)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)
         ON CONFLICT (name) DO UPDATE
         SET revision = excluded.revision, value = excluded.value, update_time = excluded.update_time",
        name,
        create_revision,
        revision,
        item.type_url,
        value,
        time
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Nothing of the resource stays but the change itself, which is its tombstone.
async fn delete_item(connection: &mut SqliteConnection, tombstone: &Tombstone) -> Result<(), sqlx::Error> {
    let name = &*tombstone.key;
    sqlx::query!("DELETE FROM credentials WHERE model = ?", name)
        .execute(&mut *connection)
        .await?;
    sqlx::query!("DELETE FROM resources WHERE name = ?", name)
        .execute(connection)
        .await?;
    Ok(())
}

/// Keeps what was before with what ended it, so that each version is stored once.
async fn write_change(
    connection: &mut SqliteConnection,
    change: &ItemChange,
    before: Option<&Item>,
) -> Result<(), sqlx::Error> {
    let (revision, name) = (change.revision().get(), &**change.key());
    let digest = match change {
        ItemChange::Put(item) => Some(item.digest.as_bytes().as_slice()),
        ItemChange::Delete(_) => None,
    };
    let type_url = before.map(|item| item.type_url);
    let created = before.map(|item| item.create_revision.get());
    let changed = before.map(|item| item.revision.get());
    let value = before.map(|item| &*item.value);
    sqlx::query!(
        "INSERT INTO changes
         (revision, name, item, before_type_url, before_create_revision, before_revision, before_value)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
        revision,
        name,
        digest,
        type_url,
        created,
        changed,
        value
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn write_credential(
    connection: &mut SqliteConnection,
    model: &ModelName,
    credential: &Credential,
    past: &Past,
) -> Result<(), sqlx::Error> {
    let (model, state, time) = (
        model.to_string(),
        credential_state(credential),
        micros(past.commit_time),
    );
    let set = match credential {
        Credential::Set(set) => Some(set),
        Credential::None | Credential::Dropped => None,
    };
    let id = set.map(|set| set.id.to_string());
    let origins = set.map(|set| {
        set.origins
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" ")
    });
    let token = set.map(|set| set.token.expose());
    sqlx::query!(
        "INSERT INTO credentials (model, state, credential_id, origins, token, update_time) VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT (model) DO UPDATE
         SET state = excluded.state, credential_id = excluded.credential_id, origins = excluded.origins,
             token = excluded.token, update_time = excluded.update_time",
        model,
        state,
        id,
        origins,
        token,
        time
    )
    .execute(connection)
    .await?;
    Ok(())
}
