//! The resources as they are stored, streamed and hashed, at one revision, together with the digests of earlier
//! revisions.

mod past;
mod relation;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
    time::SystemTime,
};

use bytes::Bytes;
use parking_lot::RwLock;
use switchboard::{
    digest::{ChainChange, ChainDigest, ItemDigest, ItemParts, StateDigest},
    history::{Cursor, Incarnation, View},
    names::{IncarnationId, ResourceName, Revision, StoreId},
};

use self::past::Log;
pub use self::{
    past::{Cut, Past, Retention},
    relation::Relation,
};
use super::life::{Beginning, Life, NewLife};

/// One resource with the bytes by which it is stored and hashed. These bytes are never encoded again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The name of the resource.
    pub name: ResourceName,
    /// The name as text. Digests and snapshots are ordered by it.
    pub key: Arc<str>,
    /// The revision that created the resource. A name that was deleted and created again has a new one.
    pub create_revision: Revision,
    /// The revision that last changed it.
    pub revision: Revision,
    /// Type URL of the payload.
    pub type_url: &'static str,
    /// The payload.
    pub value: Bytes,
    /// Digest of the item.
    pub digest: ItemDigest,
}

impl Item {
    /// Creates an item and computes its digest.
    #[must_use]
    pub fn new(
        name: ResourceName,
        create_revision: Revision,
        revision: Revision,
        type_url: &'static str,
        value: Bytes,
    ) -> Self {
        let key: Arc<str> = name.to_string().into();
        let digest = ItemDigest::of(&ItemParts {
            name: &key,
            create_revision,
            revision,
            type_url,
            value: &value,
            requires: &[],
        });
        Self {
            name,
            key,
            create_revision,
            revision,
            type_url,
            value,
            digest,
        }
    }

    /// Returns whether `view` contains the item. All existing kinds of resources are in both views.
    #[must_use]
    pub const fn is_in(&self, _view: View) -> bool {
        true
    }
}

/// The effect of a revision on one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemChange {
    /// The resource was created or changed. This is its new state.
    Put(Item),
    /// The resource was deleted.
    Delete(Tombstone),
}

impl ItemChange {
    /// Returns the name as text.
    #[must_use]
    pub const fn key(&self) -> &Arc<str> {
        match self {
            Self::Put(item) => &item.key,
            Self::Delete(tombstone) => &tombstone.key,
        }
    }

    /// Returns the revision that makes the change.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        match self {
            Self::Put(item) => item.revision,
            Self::Delete(tombstone) => tombstone.revision,
        }
    }
}

/// The record of a deleted resource. It is kept until the name is used again, or the floor passes its revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// The name of the resource, as text.
    pub key: Arc<str>,
    /// The revision that deleted it.
    pub revision: Revision,
}

/// All resources at one revision of one store's history.
///
/// A clone is a snapshot. It shares the items and the list of past revisions, but only reads revisions up to its own.
#[derive(Debug, Clone)]
pub struct Items {
    store: StoreId,
    incarnation: Incarnation,
    head: Past,
    by_name: BTreeMap<Arc<str>, Arc<Item>>,
    deleted: BTreeMap<Arc<str>, Revision>,
    /// Each live or deleted name, under the revision that last changed it.
    by_revision: BTreeSet<(Revision, Arc<str>)>,
    /// The oldest revision since which all changes are kept.
    floor: Revision,
    /// All kept revisions of this incarnation.
    log: Arc<RwLock<Log>>,
}

impl Items {
    /// Creates the state before the first revision of a new store.
    #[must_use]
    pub fn empty(store: StoreId, incarnation: Incarnation) -> Self {
        let head = Past {
            revision: Revision::ZERO,
            chain: Beginning::of_store(store, incarnation).chain,
            config: StateDigest::EMPTY,
            router: StateDigest::EMPTY,
            commit_time: SystemTime::UNIX_EPOCH,
            change_bytes: 0,
        };
        Self {
            store,
            incarnation,
            head,
            by_name: BTreeMap::new(),
            deleted: BTreeMap::new(),
            by_revision: BTreeSet::new(),
            floor: Revision::ZERO.next(),
            log: Arc::default(),
        }
    }

    /// Creates the state from stored parts: the records of the revisions from the floor on and the chain digests of
    /// those directly below it, both oldest first; the live items; and the tombstones that are newer than the floor.
    ///
    /// The caller must have verified that the parts belong together.
    #[must_use]
    pub fn restored(
        store: StoreId,
        incarnation: Incarnation,
        chains: Vec<ChainDigest>,
        past: Vec<Past>,
        live: Vec<Item>,
        deleted: Vec<Tombstone>,
    ) -> Self {
        let mut items = Self::empty(store, incarnation);
        if let Some(&head) = past.last() {
            items.head = head;
        }
        if let Some(floor) = past.first() {
            items.floor = floor.revision;
        }
        for item in live {
            items.by_revision.insert((item.revision, Arc::clone(&item.key)));
            items.by_name.insert(Arc::clone(&item.key), Arc::new(item));
        }
        for Tombstone { key, revision } in deleted {
            items.by_revision.insert((revision, Arc::clone(&key)));
            items.deleted.insert(key, revision);
        }
        items.log = Arc::new(RwLock::new(Log::new(chains, past)));
        items
    }

    /// Applies the changes of the next revision. Each name occurs once, with its final state in that revision.
    ///
    /// Returns the record of the revision. Clones that were made earlier still show the old state.
    pub fn advance(&mut self, mut changes: Vec<ItemChange>, commit_time: SystemTime) -> Past {
        changes.sort_by(|a, b| a.key().cmp(b.key()));
        let revision = self.head.revision.next();
        debug_assert!(
            changes.iter().all(|change| change.revision() == revision),
            "every change carries the number of the revision"
        );
        let chain = self.head.chain.extended(
            revision,
            changes.iter().map(|change| match change {
                ItemChange::Put(item) => ChainChange::Upsert(item.digest),
                ItemChange::Delete(tombstone) => ChainChange::Delete(&tombstone.key),
            }),
        );
        let change_bytes = changes.iter().map(|change| {
            let before = self.by_name.get(change.key()).map_or(0, |old| old.value.len());
            Past::change_bytes_of(change.key(), before)
        });
        let change_bytes = change_bytes.sum();
        let (mut config, mut router) = (self.head.config, self.head.router);
        for change in changes {
            let key = Arc::clone(change.key());
            if let Some(old) = self.by_name.remove(&key) {
                self.by_revision.remove(&(old.revision, Arc::clone(&key)));
                if old.is_in(View::Config) {
                    config = config.minus(old.digest);
                }
                if old.is_in(View::Router) {
                    router = router.minus(old.digest);
                }
            }
            if let Some(deleted) = self.deleted.remove(&key) {
                self.by_revision.remove(&(deleted, Arc::clone(&key)));
            }
            self.by_revision.insert((revision, Arc::clone(&key)));
            match change {
                ItemChange::Put(item) => {
                    if item.is_in(View::Config) {
                        config = config.plus(item.digest);
                    }
                    if item.is_in(View::Router) {
                        router = router.plus(item.digest);
                    }
                    self.by_name.insert(key, Arc::new(item));
                }
                ItemChange::Delete(_) => {
                    self.deleted.insert(key, revision);
                }
            }
        }
        self.head = Past {
            revision,
            chain,
            config,
            router,
            commit_time,
            change_bytes,
        };
        let mut log = self.log.write();
        log.push(self.head);
        self.head
    }

    /// Begins a new life, above the current one and above everything that is known elsewhere. Its first revision
    /// changes nothing.
    ///
    /// Tombstones and the history of the earlier life are forgotten, because no stream is ever resumed from a cursor of
    /// that life. Clones that were made earlier still show it.
    pub fn begin_life(&mut self, new: &NewLife, commit_time: SystemTime) -> (Life, Past) {
        let life = self.next_life(new);
        (self.store, self.incarnation) = (life.store, life.incarnation);
        self.head = Past {
            revision: life.first,
            chain: Beginning::of_life(&life).chain.extended(life.first, []),
            commit_time,
            change_bytes: 0,
            ..self.head
        };
        for (key, revision) in std::mem::take(&mut self.deleted) {
            self.by_revision.remove(&(revision, key));
        }
        self.floor = life.first;
        self.log = Arc::new(RwLock::new(Log::new(Vec::new(), vec![self.head])));
        (life, self.head)
    }

    /// Returns the life that a request would begin. The id of the incarnation is random, so it differs each time.
    #[must_use]
    pub fn next_life(&self, new: &NewLife) -> Life {
        Life {
            store: new.adopt.unwrap_or(self.store),
            incarnation: Incarnation {
                number: self.incarnation.number.max(new.above.number()) + 1,
                id: IncarnationId::random(),
            },
            first: self.head.revision.max(new.above.revision()).next(),
            parent: self.head.revision,
            parent_chain: self.head.chain,
            cause: new.cause,
        }
    }

    /// Returns where the history has to be cut now. `None`: nowhere.
    #[must_use]
    pub fn due(&self, retention: &Retention) -> Option<Cut> {
        self.log.read().due(retention)
    }

    /// Forgets everything below a cut, for all clones. The cut must already be durable, and `self` must be the newest
    /// state.
    pub fn cut(&mut self, cut: Cut) {
        let between = (
            Bound::Included((self.floor.next(), Arc::from(""))),
            Bound::Excluded((cut.floor.next(), Arc::from(""))),
        );
        let old: Vec<_> = self.by_revision.range(between).cloned().collect();
        for (revision, key) in old {
            if self.deleted.remove(&key).is_some() {
                self.by_revision.remove(&(revision, key));
            }
        }
        self.floor = cut.floor;
        self.log.write().cut(cut);
    }

    /// Returns the id of the store.
    #[must_use]
    pub const fn store(&self) -> StoreId {
        self.store
    }

    /// Returns the incarnation of the store.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Returns the newest revision.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.head.revision
    }

    /// Returns the record of the newest revision.
    #[must_use]
    pub const fn head(&self) -> &Past {
        &self.head
    }

    /// Returns the newest revision as a cursor of `view`.
    #[must_use]
    pub const fn cursor(&self, view: View) -> Cursor {
        Cursor {
            store: self.store,
            incarnation: self.incarnation,
            revision: self.head.revision,
            chain: self.head.chain,
            view,
            state: self.head.state(view),
        }
    }

    /// Returns the oldest revision from which deltas can be served.
    #[must_use]
    pub fn oldest_resumable(&self) -> Revision {
        self.floor.min(self.head.revision)
    }

    /// Returns the record of a revision. `None` if the revision does not exist yet, or is older than the oldest that
    /// deltas can be served from.
    #[must_use]
    pub fn past(&self, revision: Revision) -> Option<Past> {
        if revision > self.head.revision {
            return None;
        }
        self.log.read().past(revision)
    }

    /// Returns the chain digest at a revision. `None` if the revision does not exist yet, or nothing is known about it
    /// any more.
    #[must_use]
    pub fn chain(&self, revision: Revision) -> Option<ChainDigest> {
        if revision > self.head.revision {
            return None;
        }
        self.log.read().chain(revision)
    }

    /// Returns all items of a view, ordered by the bytes of their names.
    pub fn all(&self, view: View) -> impl Iterator<Item = &Arc<Item>> {
        self.by_name.values().filter(move |item| item.is_in(view))
    }

    /// Returns the items of a view that changed after `revision`, each in its current state, ordered by revision.
    pub fn changed_after(&self, view: View, revision: Revision) -> impl Iterator<Item = &Arc<Item>> {
        self.touched_after(revision)
            .filter_map(|(_, key)| self.by_name.get(key))
            .filter(move |item| item.is_in(view))
    }

    /// Returns the names that were deleted after `revision` and are not in use again, ordered by revision. They are the
    /// same for all views: deleting a name that a follower does not know changes nothing.
    pub fn deleted_after(&self, revision: Revision) -> impl Iterator<Item = Tombstone> {
        self.touched_after(revision)
            .filter(|(_, key)| self.deleted.contains_key(key))
            .map(|(revision, key)| Tombstone {
                key: Arc::clone(key),
                revision: *revision,
            })
    }

    fn touched_after(&self, revision: Revision) -> impl Iterator<Item = &(Revision, Arc<str>)> {
        // The empty name sorts before all others.
        let from: (Revision, Arc<str>) = (revision.next(), Arc::from(""));
        self.by_revision.range((Bound::Included(from), Bound::Unbounded))
    }

    /// Returns the item with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Item>> {
        self.by_name.get(name)
    }
}

#[cfg(test)]
mod tests;
