//! Reads the whole content of the database at start.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, SystemTime},
};

use futures_util::TryStreamExt as _;
use sqlx::SqliteConnection;
use switchboard::{
    digest::{ChainDigest, ItemDigest, ItemParts, StateDigest},
    endpoint::Origin,
    history::Incarnation,
    names::{CredentialId, IncarnationId, ModelName, ResourceName, Revision, StoreId},
    secret::ApiToken,
};

use super::{
    StoreError,
    verify::{self, StoredChange},
};
use crate::domain::{
    credential::{ModelCredential, SetCredential},
    items::{Item, Items, Past},
    life::Beginning,
    repeat::Fingerprinter,
    state::{Record, type_url},
};

/// The content of a store.
#[derive(Debug)]
pub struct Loaded {
    /// The resources as bytes, and the digests of their history. Both are verified.
    pub items: Items,
    /// The revisions and times of each resource.
    pub records: HashMap<ResourceName, Record>,
    /// The credential of each model for which one was ever set, cleared or dropped.
    pub credentials: BTreeMap<ModelName, StoredCredential>,
    /// Computes fingerprints of requests, with the key of this store.
    pub fingerprinter: Fingerprinter,
}

/// A credential as it is stored.
#[derive(Debug, Clone)]
pub struct StoredCredential {
    /// The credential.
    pub credential: ModelCredential,
    /// When it was set, cleared or dropped.
    pub update_time: SystemTime,
}

/// Reads the whole store and verifies that its parts are consistent.
pub(super) async fn load(connection: &mut SqliteConnection) -> Result<Loaded, StoreError> {
    let (store, incarnation, fingerprinter) = identity(connection).await?;
    let beginning = beginning(connection, store, incarnation).await?;
    let mut past = revisions(connection).await?;
    let chains = chains(connection, past.first().map(|floor| floor.revision)).await?;
    let changes = changes(connection).await?;
    for change in &changes {
        let index = past.binary_search_by_key(&change.revision, |past| past.revision);
        if let Some(past) = index.ok().and_then(|index| past.get_mut(index)) {
            past.change_bytes += Past::change_bytes_of(&change.name, change.before_bytes);
        }
    }
    let mut live = Vec::new();
    let mut records = HashMap::new();
    for (item, record) in resources(connection).await? {
        records.insert(item.name.clone(), record);
        live.push(item);
    }
    let deleted = verify::verify(&beginning, &past, &changes, &live)?;
    Ok(Loaded {
        items: Items::restored(store, incarnation, chains, past, live, deleted),
        records,
        credentials: credentials(connection).await?,
        fingerprinter,
    })
}

async fn identity(connection: &mut SqliteConnection) -> Result<(StoreId, Incarnation, Fingerprinter), StoreError> {
    let row = sqlx::query!("SELECT store_id, incarnation_number, incarnation_id, request_key FROM store")
        .fetch_optional(connection)
        .await
        .map_err(|error| StoreError::sql("read the store's id", error))?
        .ok_or_else(|| bad("the store's id"))?;
    let incarnation = Incarnation {
        number: row.incarnation_number,
        id: IncarnationId::parse(&row.incarnation_id).map_err(|_error| bad("the incarnation's id"))?,
    };
    let store = StoreId::parse(&row.store_id).map_err(|_error| bad("the store's id"))?;
    let key = row.request_key.ok_or_else(|| bad("the key of the request ids"))?;
    Ok((store, incarnation, Fingerprinter::new(&key)))
}

/// Reads where the history of the current life begins: at a recorded jump, except for the first life.
async fn beginning(
    connection: &mut SqliteConnection,
    store: StoreId,
    incarnation: Incarnation,
) -> Result<Beginning, StoreError> {
    let row = sqlx::query!(
        "SELECT number, incarnation_id, store_id, first_revision, parent_chain FROM lives ORDER BY number DESC LIMIT 1"
    )
    .fetch_optional(connection)
    .await
    .map_err(|error| StoreError::sql("read the life of the store", error))?;
    if row.is_none() && incarnation.number == 1 {
        return Ok(Beginning::of_store(store, incarnation));
    }
    let read = || {
        let row = row.filter(|row| row.number == incarnation.number)?;
        let store = StoreId::parse(&row.store_id).ok().filter(|&id| id == store)?;
        let id = IncarnationId::parse(&row.incarnation_id).ok();
        let id = id.filter(|&id| id == incarnation.id)?;
        let parent = ChainDigest::from_slice(&row.parent_chain)?;
        Some(Beginning {
            first: Revision::new(row.first_revision)?,
            chain: ChainDigest::of_life(parent, store, incarnation.number, id),
        })
    };
    read().ok_or_else(|| bad("the life of the store"))
}

/// Reads the revisions from the floor on.
async fn revisions(connection: &mut SqliteConnection) -> Result<Vec<Past>, StoreError> {
    let rows = sqlx::query!(
        "SELECT revision, chain, config_state, router_state, commit_time FROM revisions
         WHERE config_state IS NOT NULL ORDER BY revision"
    )
    .fetch_all(connection)
    .await
    .map_err(|error| StoreError::sql("read the revisions", error))?;
    let read = rows.into_iter().map(|row| {
        Some(Past {
            revision: Revision::new(row.revision)?,
            chain: ChainDigest::from_slice(&row.chain)?,
            config: StateDigest::from_slice(&row.config_state?)?,
            router: StateDigest::from_slice(&row.router_state?)?,
            commit_time: time(row.commit_time),
            change_bytes: 0,
        })
    });
    read.collect::<Option<_>>().ok_or_else(|| bad("a revision"))
}

/// Reads the chain digests of the revisions directly below the floor. Nothing else is kept of these revisions, of which
/// there may be a million.
async fn chains(connection: &mut SqliteConnection, floor: Option<Revision>) -> Result<Vec<ChainDigest>, StoreError> {
    let failed = |error| StoreError::sql("read the older revisions", error);
    let mut rows = sqlx::query!("SELECT revision, chain FROM revisions WHERE config_state IS NULL ORDER BY revision")
        .fetch(connection);
    let mut chains = Vec::new();
    let mut next = None;
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        if next.is_some_and(|next| next != row.revision) {
            break;
        }
        next = Some(row.revision + 1);
        chains.push(ChainDigest::from_slice(&row.chain).ok_or_else(|| bad("a revision"))?);
    }
    match next {
        Some(next) if floor.map(Revision::get) != Some(next) => {
            Err(StoreError::damaged(format!("revision {next} is missing")))
        }
        _ => Ok(chains),
    }
}

/// Hashes the old values while reading and does not keep them: they may take more memory than all live resources.
async fn changes(connection: &mut SqliteConnection) -> Result<Vec<StoredChange>, StoreError> {
    let failed = |error| StoreError::sql("read the changes", error);
    let mut rows = sqlx::query!(
        "SELECT revision, name, item, before_type_url, before_create_revision, before_revision, before_value
         FROM changes ORDER BY revision, name"
    )
    .fetch(connection);
    let mut changes = Vec::new();
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        let before_bytes = row.before_value.as_ref().map_or(0, Vec::len);
        let read = || {
            let before = match (row.before_value, row.before_type_url) {
                (Some(value), Some(type_url)) => Some(ItemDigest::of(&ItemParts {
                    name: &row.name,
                    create_revision: Revision::new(row.before_create_revision?)?,
                    revision: Revision::new(row.before_revision?)?,
                    type_url: &type_url,
                    value: &value,
                    requires: &[],
                })),
                _ => None,
            };
            let item = match row.item {
                Some(digest) => Some(ItemDigest::from_slice(&digest)?),
                None => None,
            };
            Some(StoredChange {
                revision: Revision::new(row.revision)?,
                name: row.name,
                item,
                before,
                before_bytes,
            })
        };
        changes.push(read().ok_or_else(|| bad("a change"))?);
    }
    Ok(changes)
}

async fn resources(connection: &mut SqliteConnection) -> Result<Vec<(Item, Record)>, StoreError> {
    let rows = sqlx::query!(
        "SELECT name, create_revision, revision, type_url, value, create_time, update_time FROM resources ORDER BY name"
    )
    .fetch_all(connection)
    .await
    .map_err(|error| StoreError::sql("read the resources", error))?;
    let read = rows.into_iter().map(|row| {
        let name = ResourceName::parse(&row.name).ok_or_else(|| bad("the name of a resource"))?;
        let type_url = type_url(&name);
        let revisions = Revision::new(row.create_revision).zip(Revision::new(row.revision));
        let Some((create_revision, revision)) = revisions.filter(|_| row.type_url == type_url) else {
            return Err(bad(&format!("`{name}`")));
        };
        let record = Record {
            create_revision,
            revision,
            create_time: time(row.create_time),
            update_time: time(row.update_time),
        };
        let item = Item::new(name, create_revision, revision, type_url, row.value.into());
        Ok((item, record))
    });
    read.collect()
}

async fn credentials(connection: &mut SqliteConnection) -> Result<BTreeMap<ModelName, StoredCredential>, StoreError> {
    let rows = sqlx::query!("SELECT model, state, credential_id, origins, token, update_time FROM credentials")
        .fetch_all(connection)
        .await
        .map_err(|error| StoreError::sql("read the credentials", error))?;
    let read = rows.into_iter().map(|row| {
        let set = row.credential_id.zip(row.origins).zip(row.token);
        let credential = match (row.state.as_str(), set) {
            ("none", None) => ModelCredential::None,
            ("dropped", None) => ModelCredential::Dropped,
            ("set", Some(((id, origins), token))) => ModelCredential::Set(SetCredential {
                id: CredentialId::parse(&id).ok()?,
                origins: origins
                    .split(' ')
                    .map(Origin::parse)
                    .collect::<Result<BTreeSet<_>, _>>()
                    .ok()?,
                token: ApiToken::parse(token).ok()?,
            }),
            _ => return None,
        };
        let stored = StoredCredential {
            credential,
            update_time: time(row.update_time),
        };
        Some((ModelName::parse(&row.model).ok()?, stored))
    });
    read.collect::<Option<_>>().ok_or_else(|| bad("a credential"))
}

pub(super) fn bad(what: &str) -> StoreError {
    StoreError::damaged(format!("{what} is not readable"))
}

pub(super) fn time(micros: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(micros.try_into().unwrap_or_default())
}
