//! Test helpers for this crate: a history to follow, and a follower that verifies everything it receives.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::SystemTime,
};

use bytes::Bytes;
use prost::Message as _;
use switchboard::{
    digest::{ItemDigest, ItemParts, StateDigest},
    history::{Cursor, Incarnation, View},
    names::{IncarnationId, ResourceName, Revision, StoreId},
    pb::{
        registry::{self, watch_response::Kind},
        types,
    },
};
use tokio::sync::watch;

use crate::{
    domain::{
        items::{Item, ItemChange, Items, Tombstone},
        life::{LifeCause, Mark, NewLife},
        state::State,
    },
    feed::frame::Frame,
};

/// A store's history that publishes its newest state.
pub(crate) struct History {
    published: watch::Sender<Arc<State>>,
}

impl History {
    pub(crate) fn new() -> Self {
        let incarnation = Incarnation {
            number: 2,
            id: IncarnationId::random(),
        };
        let state = State::new(Items::empty(StoreId::random(), incarnation));
        Self {
            published: watch::Sender::new(Arc::new(state)),
        }
    }

    /// Creates a history in which each revision changes `models/a`.
    pub(crate) fn with_revisions(count: i64) -> Self {
        let history = Self::new();
        for _ in 0..count {
            history.commit([("models/a", 1)]);
        }
        history
    }

    /// Makes the next revision, in which each named resource gets a value of the given number of bytes.
    pub(crate) fn commit<'a>(&self, changes: impl IntoIterator<Item = (&'a str, usize)>) {
        self.write(changes.into_iter().map(|(name, bytes)| (name, Some(bytes))));
    }

    /// Makes the next revision, which deletes the named resources.
    pub(crate) fn delete<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        self.write(names.into_iter().map(|name| (name, None)));
    }

    /// Makes the next revision, in which each named resource gets a value of the given number of bytes, or is deleted
    /// (`None`).
    pub(crate) fn write<'a>(&self, changes: impl IntoIterator<Item = (&'a str, Option<usize>)>) {
        let mut state = (*self.state()).clone();
        let revision = state.items.revision().next();
        let changes = changes.into_iter().map(|(name, bytes)| {
            let Some(bytes) = bytes else {
                let key = name.into();
                return ItemChange::Delete(Tombstone { key, revision });
            };
            let created = state.items.get(name).map_or(revision, |item| item.create_revision);
            let name = ResourceName::parse(name).unwrap();
            let value = Bytes::from(vec![b'x'; bytes]);
            ItemChange::Put(Item::new(name, created, revision, "type.googleapis.com/test", value))
        });
        let changes: Vec<ItemChange> = changes.collect();
        state.items.advance(changes, SystemTime::UNIX_EPOCH);
        self.published.send_replace(Arc::new(state));
    }

    /// Begins a new life of the store.
    pub(crate) fn begin_life(&self, adopt: Option<StoreId>) {
        let mut state = (*self.state()).clone();
        let new = NewLife {
            cause: LifeCause::AcceptHistory,
            above: Mark::NONE,
            adopt,
        };
        state.begin_life(&new, SystemTime::UNIX_EPOCH);
        self.published.send_replace(Arc::new(state));
    }

    /// Forgets the history before `floor`, which becomes the oldest revision from which deltas can be served.
    pub(crate) fn compact(&self, floor: i64) {
        let state = self.state();
        let (items, floor) = (&state.items, Revision::new(floor).unwrap());
        let past = (floor.get()..=items.revision().get()).map(|revision| {
            let revision = Revision::new(revision).unwrap();
            items.past(revision).unwrap()
        });
        let live = items.all(View::Router).map(|item| (**item).clone());
        let compacted = Items::restored(
            items.store(),
            items.incarnation(),
            // No chain digests are kept from below the floor, so every older cursor counts as compacted.
            Vec::new(),
            past.collect(),
            live.collect(),
            items.deleted_after(floor).collect(),
        );
        let state = State {
            items: compacted,
            ..(*state).clone()
        };
        self.published.send_replace(Arc::new(state));
    }

    pub(crate) fn state(&self) -> Arc<State> {
        Arc::clone(&self.published.borrow())
    }

    pub(crate) fn published(&self) -> watch::Receiver<Arc<State>> {
        self.published.subscribe()
    }

    pub(crate) fn cursor_at(&self, revision: i64, view: View) -> Cursor {
        let state = self.state();
        let past = state.items.past(Revision::new(revision).unwrap()).unwrap();
        Cursor {
            revision: past.revision,
            chain: past.chain,
            state: past.state(view),
            ..state.items.cursor(view)
        }
    }
}

/// Decodes a shared frame as a reader does.
pub(crate) fn content(frame: &Frame) -> Kind {
    let Frame::Shared(bytes) = frame else {
        panic!("{frame:?}")
    };
    decoded(bytes)
}

/// Decodes the bytes of a shared frame.
pub(crate) fn decoded(bytes: &Bytes) -> Kind {
    registry::WatchResponse::decode(&**bytes).unwrap().kind.unwrap()
}

/// The content that a careful follower has received. It panics at the first frame that breaks a rule of the stream.
#[derive(Debug, Default, Clone)]
pub(crate) struct Mirror {
    resources: BTreeMap<String, registry::Resource>,
    at: Option<Cursor>,
    snapshot: Option<Gathering>,
    delta: Option<Gathering>,
}

#[derive(Debug, Clone)]
struct Gathering {
    to: Cursor,
    parts: i32,
    resources: Vec<registry::Resource>,
    deletes: Vec<registry::Tombstone>,
}

impl Mirror {
    /// Creates a follower that has kept the resources and the cursor of `other`.
    pub(crate) fn resumed(other: &Self) -> Self {
        Self {
            resources: other.resources.clone(),
            at: other.at,
            ..Self::default()
        }
    }

    pub(crate) fn at(&self) -> Option<Cursor> {
        self.at
    }

    /// Returns whether a snapshot has begun but not ended.
    pub(crate) fn is_loading(&self) -> bool {
        self.snapshot.is_some()
    }

    pub(crate) fn apply(&mut self, frame: &Frame) {
        match frame {
            Frame::Welcome(_) | Frame::Goodbye(_) | Frame::Check(_) => {}
            Frame::Shared(bytes) => self.take(decoded(bytes)),
            Frame::Bookmark(bookmark) => {
                assert_eq!(bookmark.at, self.at);
                assert!(self.at.is_none_or(|at| at.revision <= bookmark.head));
            }
        }
    }

    pub(crate) fn take(&mut self, content: Kind) {
        match content {
            Kind::SnapshotBegin(begin) => {
                assert!(self.snapshot.is_none() && self.delta.is_none());
                self.snapshot = Some(Gathering::new(cursor(begin.at)));
            }
            Kind::SnapshotPart(part) => {
                let snapshot = self.snapshot.as_mut().unwrap();
                snapshot.add(part.part, part.resources, Vec::new());
            }
            Kind::SnapshotEnd(end) => {
                let snapshot = self.snapshot.take().unwrap();
                assert_eq!(snapshot.to, cursor(end.at));
                assert!(snapshot.resources.is_sorted_by_key(|resource| &resource.name));
                self.resources.clear();
                self.install(snapshot);
            }
            Kind::Delta(delta) => {
                assert!(self.snapshot.is_none());
                let to = cursor(delta.to);
                assert_eq!(self.at.unwrap().revision.get(), delta.from_revision);
                assert!(to.revision.get() > delta.from_revision);
                let gathered = self.delta.get_or_insert_with(|| Gathering::new(to));
                assert_eq!(gathered.to, to);
                gathered.add(delta.part, delta.upserts, delta.deletes);
                if !delta.more {
                    let gathered = self.delta.take().unwrap();
                    self.install(gathered);
                }
            }
            other => panic!("{other:?}"),
        }
    }

    /// Panics unless its content equals that of `state`.
    pub(crate) fn assert_equals(&self, state: &State, view: View) {
        assert_eq!(self.at, Some(state.items.cursor(view)));
        let stored = state.items.all(view).map(|item| registry::Resource {
            name: item.key.to_string(),
            create_revision: item.create_revision.get(),
            revision: item.revision.get(),
            payload: Some(prost_types::Any {
                type_url: item.type_url.to_owned(),
                value: item.value.to_vec(),
            }),
            requires: Vec::new(),
        });
        assert!(self.resources.values().cloned().eq(stored));
    }

    fn install(&mut self, gathered: Gathering) {
        let mut touched = BTreeSet::new();
        for tombstone in gathered.deletes {
            assert!(touched.insert(tombstone.name.clone()), "a name occurs only once");
            assert!(tombstone.revision <= gathered.to.revision.get());
            self.resources.remove(&tombstone.name);
        }
        for resource in gathered.resources {
            assert!(touched.insert(resource.name.clone()), "a name occurs only once");
            self.resources.insert(resource.name.clone(), resource);
        }
        let digests = self.resources.values().map(digest);
        let state = digests.fold(StateDigest::EMPTY, StateDigest::plus);
        assert_eq!(state, gathered.to.state);
        self.at = Some(gathered.to);
    }
}

impl Gathering {
    const fn new(to: Cursor) -> Self {
        Self {
            to,
            parts: 0,
            resources: Vec::new(),
            deletes: Vec::new(),
        }
    }

    fn add(&mut self, part: i32, resources: Vec<registry::Resource>, deletes: Vec<registry::Tombstone>) {
        assert_eq!(part, self.parts);
        self.parts += 1;
        self.resources.extend(resources);
        self.deletes.extend(deletes);
    }
}

fn cursor(wire: Option<types::Cursor>) -> Cursor {
    Cursor::try_from(&wire.unwrap()).unwrap()
}

fn digest(resource: &registry::Resource) -> ItemDigest {
    let payload = resource.payload.as_ref().unwrap();
    ItemDigest::of(&ItemParts {
        name: &resource.name,
        create_revision: Revision::new(resource.create_revision).unwrap(),
        revision: Revision::new(resource.revision).unwrap(),
        type_url: &payload.type_url,
        value: &payload.value,
        requires: &resource.requires,
    })
}
