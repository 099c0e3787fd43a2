//! Reading everything back at start.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, SystemTime},
};

use sqlx::SqliteConnection;
use switchboard::{
    digest::{ChainDigest, ItemDigest, StateDigest},
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
    credential::{Credential, SetCredential},
    items::{Item, Items, Past},
    state::{Record, type_url},
};

/// What a store holds.
#[derive(Debug)]
pub struct Loaded {
    /// The resources, as bytes, and the digests of their history. Verified.
    pub items: Items,
    /// What is recorded of each resource.
    pub records: HashMap<ResourceName, Record>,
    /// The credentials that were ever set, cleared or dropped.
    pub credentials: BTreeMap<ModelName, StoredCredential>,
}

/// A credential as it is stored.
#[derive(Debug, Clone)]
pub struct StoredCredential {
    /// The credential.
    pub credential: Credential,
    /// When it was set, cleared or dropped.
    pub update_time: SystemTime,
}

/// Reads the whole store and verifies that its parts belong together.
pub(super) async fn load(connection: &mut SqliteConnection) -> Result<Loaded, StoreError> {
    let (store, incarnation) = identity(connection).await?;
    let past = revisions(connection).await?;
    let changes = changes(connection).await?;
    let mut live = Vec::new();
    let mut records = HashMap::new();
    for (item, record) in resources(connection).await? {
        records.insert(item.name.clone(), record);
        live.push(item);
    }
    verify::verify(store, incarnation, &past, &changes, &live)?;
    Ok(Loaded {
        items: Items::restored(store, incarnation, past, live, Vec::new()),
        records,
        credentials: credentials(connection).await?,
    })
}

async fn identity(connection: &mut SqliteConnection) -> Result<(StoreId, Incarnation), StoreError> {
    let row = sqlx::query!("SELECT store_id, incarnation_number, incarnation_id FROM store")
        .fetch_one(connection)
        .await
        .map_err(|error| StoreError::sql("read the store's id", error))?;
    let incarnation = Incarnation {
        number: row.incarnation_number,
        id: IncarnationId::parse(&row.incarnation_id).map_err(|_error| bad("the incarnation's id"))?,
    };
    let store = StoreId::parse(&row.store_id).map_err(|_error| bad("the store's id"))?;
    Ok((store, incarnation))
}

async fn revisions(connection: &mut SqliteConnection) -> Result<Vec<Past>, StoreError> {
    let rows = sqlx::query!(
        "SELECT revision, chain, config_state, router_state, commit_time FROM revisions ORDER BY revision"
    )
    .fetch_all(connection)
    .await
    .map_err(|error| StoreError::sql("read the revisions", error))?;
    let read = rows.into_iter().map(|row| {
        Some(Past {
            revision: Revision::new(row.revision)?,
            chain: ChainDigest::from_slice(&row.chain)?,
            config: StateDigest::from_slice(&row.config_state)?,
            router: StateDigest::from_slice(&row.router_state)?,
            commit_time: time(row.commit_time),
        })
    });
    read.collect::<Option<_>>().ok_or_else(|| bad("a revision"))
}

async fn changes(connection: &mut SqliteConnection) -> Result<Vec<StoredChange>, StoreError> {
    let rows = sqlx::query!("SELECT revision, name, item FROM changes ORDER BY revision, name")
        .fetch_all(connection)
        .await
        .map_err(|error| StoreError::sql("read the changes", error))?;
    let read = rows.into_iter().map(|row| {
        Some(StoredChange {
            revision: Revision::new(row.revision)?,
            name: row.name,
            item: ItemDigest::from_slice(&row.item)?,
        })
    });
    read.collect::<Option<_>>().ok_or_else(|| bad("a change"))
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
            ("none", None) => Credential::None,
            ("dropped", None) => Credential::Dropped,
            ("set", Some(((id, origins), token))) => Credential::Set(SetCredential {
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

fn bad(what: &str) -> StoreError {
    StoreError::damaged(format!("{what} is not readable"))
}

fn time(micros: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(micros.try_into().unwrap_or_default())
}
