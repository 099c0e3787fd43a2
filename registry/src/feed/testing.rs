//! A history to follow, and a follower that believes nothing: what the tests of this room share.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use bytes::Bytes;
use switchboard::{
    digest::StateDigest,
    history::{Cursor, Incarnation, View},
    names::{IncarnationId, ResourceName, Revision, StoreId},
};
use tokio::sync::watch;

use super::frame::Frame;
use crate::domain::{
    items::{Item, ItemChange, Items},
    state::State,
};

/// A store's history, with the newest state published.
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

    /// Each revision changes `models/a`.
    pub(crate) fn with_revisions(count: i64) -> Self {
        let history = Self::new();
        for _ in 0..count {
            history.commit([("models/a", 1)]);
        }
        history
    }

    /// Makes the next revision: each named resource gets a value of so many bytes.
    pub(crate) fn commit<'a>(&self, changes: impl IntoIterator<Item = (&'a str, usize)>) {
        let mut state = (*self.state()).clone();
        let revision = state.items.revision().next();
        let changes = changes.into_iter().map(|(name, bytes)| {
            let created = state.items.get(name).map_or(revision, |item| item.create_revision);
            let name = ResourceName::parse(name).unwrap();
            let value = Bytes::from(vec![b'x'; bytes]);
            ItemChange::Put(Item::new(name, created, revision, "type.googleapis.com/test", value))
        });
        let changes: Vec<ItemChange> = changes.collect();
        state.items.advance(changes, SystemTime::UNIX_EPOCH);
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

/// What a careful follower makes of the frames: it panics at the first that breaks a rule of the stream.
#[derive(Debug, Default)]
pub(crate) struct Mirror {
    resources: BTreeMap<Arc<str>, Arc<Item>>,
    at: Option<Cursor>,
    snapshot: Option<Gathering>,
    delta: Option<Gathering>,
}

#[derive(Debug)]
struct Gathering {
    to: Cursor,
    parts: i32,
    resources: Vec<Arc<Item>>,
}

impl Mirror {
    /// One that has followed up to `at` and kept `resources`.
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

    pub(crate) fn apply(&mut self, frame: &Frame) {
        match frame {
            Frame::Welcome { .. } | Frame::Goodbye(_) => {}
            Frame::SnapshotBegin { at, .. } => {
                assert!(self.snapshot.is_none() && self.delta.is_none());
                self.snapshot = Some(Gathering::new(*at));
            }
            Frame::SnapshotPart { part, resources } => {
                let snapshot = self.snapshot.as_mut().unwrap();
                snapshot.add(*part, resources);
            }
            Frame::SnapshotEnd { at } => {
                let snapshot = self.snapshot.take().unwrap();
                assert_eq!(snapshot.to, *at);
                assert!(snapshot.resources.is_sorted_by_key(|item| &item.key));
                self.resources.clear();
                self.install(snapshot);
            }
            Frame::Delta(delta) => {
                assert!(self.snapshot.is_none());
                assert_eq!(self.at.unwrap().revision, delta.from);
                assert!(delta.to.revision > delta.from);
                let gathered = self.delta.get_or_insert_with(|| Gathering::new(delta.to));
                assert_eq!(gathered.to, delta.to);
                gathered.add(delta.part, &delta.upserts);
                if !delta.more {
                    let gathered = self.delta.take().unwrap();
                    self.install(gathered);
                }
            }
            Frame::Bookmark(bookmark) => {
                assert_eq!(bookmark.at, self.at);
                assert!(self.at.is_none_or(|at| at.revision <= bookmark.head));
            }
        }
    }

    /// Panics unless it has exactly what `state` has.
    pub(crate) fn assert_equals(&self, state: &State, view: View) {
        assert_eq!(self.at, Some(state.items.cursor(view)));
        assert!(self.resources.values().eq(state.items.all(view)));
    }

    fn install(&mut self, gathered: Gathering) {
        let count = gathered.resources.len();
        let names: BTreeMap<_, _> = gathered
            .resources
            .into_iter()
            .map(|item| (Arc::clone(&item.key), item))
            .collect();
        assert_eq!(names.len(), count, "each resource comes once");
        self.resources.extend(names);
        let digest = self
            .resources
            .values()
            .fold(StateDigest::EMPTY, |sum, item| sum.plus(item.digest));
        assert_eq!(digest, gathered.to.state);
        self.at = Some(gathered.to);
    }
}

impl Gathering {
    const fn new(to: Cursor) -> Self {
        Self {
            to,
            parts: 0,
            resources: Vec::new(),
        }
    }

    fn add(&mut self, part: i32, resources: &[Arc<Item>]) {
        assert_eq!(part, self.parts);
        self.parts += 1;
        self.resources.extend_from_slice(resources);
    }
}
