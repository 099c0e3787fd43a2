//! The resources as they are stored, streamed and hashed, at one revision, with the digests of the revisions before.

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

/// One resource with the bytes by which it is stored and hashed. Nobody encodes it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its name.
    pub name: ResourceName,
    /// The same as text: what digests and snapshots are ordered by.
    pub key: Arc<str>,
    /// The revision at which this life of the name began.
    pub create_revision: Revision,
    /// The revision that last changed it.
    pub revision: Revision,
    /// Type URL of the payload.
    pub type_url: &'static str,
    /// The payload.
    pub value: Bytes,
    /// Its digest.
    pub digest: ItemDigest,
}

impl Item {
    /// Makes an item and hashes it.
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

    /// Whether `view` shows it. All kinds that exist so far are in both views.
    #[must_use]
    pub const fn is_in(&self, _view: View) -> bool {
        true
    }
}

/// What a revision does to one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemChange {
    /// The resource is there now, as this item.
    Put(Item),
    /// The resource is gone.
    Delete(Tombstone),
}

impl ItemChange {
    /// The name, as text.
    #[must_use]
    pub const fn key(&self) -> &Arc<str> {
        match self {
            Self::Put(item) => &item.key,
            Self::Delete(tombstone) => &tombstone.key,
        }
    }

    /// The revision that makes it.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        match self {
            Self::Put(item) => item.revision,
            Self::Delete(tombstone) => tombstone.revision,
        }
    }
}

/// What is left of a resource that was deleted, until its name is used again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// Its name, as text.
    pub key: Arc<str>,
    /// The revision that deleted it.
    pub revision: Revision,
}

/// All resources at one revision of one store's history.
///
/// A clone is a snapshot: it shares the items, and shares the list of past revisions, of which it only reads those up to
/// its own.
#[derive(Debug, Clone)]
pub struct Items {
    store: StoreId,
    incarnation: Incarnation,
    head: Past,
    by_name: BTreeMap<Arc<str>, Arc<Item>>,
    deleted: BTreeMap<Arc<str>, Revision>,
    /// Each live or deleted name under the revision that changed it last.
    by_revision: BTreeSet<(Revision, Arc<str>)>,
    /// The oldest revision of which all later changes are here.
    floor: Revision,
    /// Every revision of this incarnation that is kept.
    log: Arc<RwLock<Log>>,
}

impl Items {
    /// The state before the first revision of a new store.
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

    /// The state that was stored: what is remembered of each revision from the floor on and the chains of those right
    /// below it, both oldest first; the live items; and the tombstones that are later than the floor.
    ///
    /// Whoever stored them has to have checked that they belong together.
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

    /// Takes in the changes of the next revision: each name once, as that revision leaves it.
    ///
    /// Returns what is to be remembered of the revision. A clone made before shows the old state still.
    pub fn advance(&mut self, mut changes: Vec<ItemChange>, commit_time: SystemTime) -> Past {
        changes.sort_by(|a, b| a.key().cmp(b.key()));
        let revision = self.head.revision.next();
        debug_assert!(
            changes.iter().all(|change| change.revision() == revision),
            "a change is of its own revision"
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

    /// Begins a new life, above the present one and above all that is known elsewhere. Its first revision changes nothing.
    ///
    /// What was deleted, and the history of the life before, is forgotten: no cursor of that is ever resumed from. A clone
    /// made before shows the old life still.
    pub fn begin_life(&mut self, new: &NewLife, commit_time: SystemTime) -> (Life, Past) {
        let life = Life {
            store: new.adopt.unwrap_or(self.store),
            incarnation: Incarnation {
                number: self.incarnation.number.max(new.above.number()) + 1,
                id: IncarnationId::random(),
            },
            first: self.head.revision.max(new.above.revision()).next(),
            parent: self.head.revision,
            parent_chain: self.head.chain,
            cause: new.cause,
        };
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

    /// Where the history is to be cut off now, if anywhere.
    #[must_use]
    pub fn due(&self, retention: &Retention) -> Option<Cut> {
        self.log.read().due(retention)
    }

    /// Forgets what is below a cut, for every clone: only for one that is durable, and on the newest state.
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

    /// The store.
    #[must_use]
    pub const fn store(&self) -> StoreId {
        self.store
    }

    /// The life of the store.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The newest revision.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.head.revision
    }

    /// What is remembered of the newest revision.
    #[must_use]
    pub const fn head(&self) -> &Past {
        &self.head
    }

    /// The newest revision as a cursor of `view`.
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

    /// The oldest revision from which deltas can be served.
    #[must_use]
    pub fn oldest_resumable(&self) -> Revision {
        self.floor.min(self.head.revision)
    }

    /// What is remembered of a revision up to the newest; `None` below the oldest that deltas can be served from.
    #[must_use]
    pub fn past(&self, revision: Revision) -> Option<Past> {
        if revision > self.head.revision {
            return None;
        }
        self.log.read().past(revision)
    }

    /// The history up to a revision; `None` for one that is not yet, or of which nothing is known any more.
    #[must_use]
    pub fn chain(&self, revision: Revision) -> Option<ChainDigest> {
        if revision > self.head.revision {
            return None;
        }
        self.log.read().chain(revision)
    }

    /// All items of a view, ordered by the bytes of their names.
    pub fn all(&self, view: View) -> impl Iterator<Item = &Arc<Item>> {
        self.by_name.values().filter(move |item| item.is_in(view))
    }

    /// The items of a view that changed after `revision`, each as it is now, ordered by revision.
    pub fn changed_after(&self, view: View, revision: Revision) -> impl Iterator<Item = &Arc<Item>> {
        self.touched_after(revision)
            .filter_map(|(_, key)| self.by_name.get(key))
            .filter(move |item| item.is_in(view))
    }

    /// The names that were deleted after `revision` and are not in use again, ordered by revision. All views show them:
    /// a delete of a name that a follower does not know changes nothing.
    pub fn deleted_after(&self, revision: Revision) -> impl Iterator<Item = Tombstone> {
        self.touched_after(revision)
            .filter(|(_, key)| self.deleted.contains_key(key))
            .map(|(revision, key)| Tombstone {
                key: Arc::clone(key),
                revision: *revision,
            })
    }

    fn touched_after(&self, revision: Revision) -> impl Iterator<Item = &(Revision, Arc<str>)> {
        // No name sorts before the empty one.
        let from: (Revision, Arc<str>) = (revision.next(), Arc::from(""));
        self.by_revision.range((Bound::Included(from), Bound::Unbounded))
    }

    /// The item of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Item>> {
        self.by_name.get(name)
    }
}

#[cfg(test)]
mod tests;
