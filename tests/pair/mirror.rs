//! The state that a change stream has shown so far, checked against its digest whenever it is complete.

use std::collections::BTreeMap;

use switchboard::{
    digest::{ItemDigest, ItemParts, StateDigest},
    names::Revision,
    pb::{
        registry::{Delta, Resource, subscribe_response::Kind},
        types::Cursor,
    },
};

/// The resources at one revision. Two mirrors are equal if they have the same state, however they received it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mirror {
    items: BTreeMap<String, Resource>,
    digests: BTreeMap<String, ItemDigest>,
    /// The sum of the digests.
    state: StateDigest,
    cursor: Cursor,
    /// Resources from the parts received so far of the snapshot or delta in progress. `None`: the resource was deleted.
    gathered: BTreeMap<String, Option<Resource>>,
}

impl Default for Mirror {
    fn default() -> Self {
        Self {
            items: BTreeMap::new(),
            digests: BTreeMap::new(),
            state: StateDigest::EMPTY,
            cursor: Cursor::default(),
            gathered: BTreeMap::new(),
        }
    }
}

impl Mirror {
    pub(crate) fn revision(&self) -> i64 {
        self.cursor.revision
    }

    pub(crate) fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    pub(crate) fn items(&self) -> &BTreeMap<String, Resource> {
        &self.items
    }

    /// Discards a partial snapshot or delta, because a new stream begins.
    pub(crate) fn begin(&mut self) {
        self.gathered.clear();
    }

    /// Applies one message after the welcome.
    pub(crate) fn take(&mut self, kind: Kind) {
        match kind {
            Kind::SnapshotBegin(_) => assert_eq!(self.gathered, BTreeMap::new(), "a snapshot begins only once"),
            Kind::SnapshotPart(part) => self.gather(part.resources),
            Kind::SnapshotEnd(end) => {
                self.items.clear();
                self.digests.clear();
                self.state = StateDigest::EMPTY;
                self.reach(end.at);
            }
            Kind::Delta(delta) => self.apply(delta),
            Kind::Bookmark(bookmark) => {
                if let Some(at) = bookmark.at {
                    assert_eq!(at, self.cursor, "a bookmark names the last complete state");
                }
            }
            other @ (Kind::Welcome(_) | Kind::Goodbye(_) | Kind::CheckRequest(_)) => panic!("unexpected: {other:?}"),
        }
    }

    fn apply(&mut self, delta: Delta) {
        assert_eq!(
            delta.from_revision,
            self.revision(),
            "a delta begins at the revision of the previous one"
        );
        let to = delta.to.as_ref().expect("a delta has a target").revision;
        assert!(to > delta.from_revision, "a delta leads to a later revision");
        self.gather(delta.upserts);
        for gone in delta.deletes {
            self.gathered.insert(gone.name, None);
        }
        if !delta.more {
            self.reach(delta.to);
        }
    }

    fn gather(&mut self, resources: Vec<Resource>) {
        let resources = resources.into_iter();
        self.gathered
            .extend(resources.map(|resource| (resource.name.clone(), Some(resource))));
    }

    /// Applies the collected parts. The resulting state must have the digest of the cursor.
    fn reach(&mut self, cursor: Option<Cursor>) {
        for (name, resource) in std::mem::take(&mut self.gathered) {
            let old = match resource {
                Some(resource) => {
                    let digest = digest(&resource);
                    self.state = self.state.plus(digest);
                    self.items.insert(name.clone(), resource);
                    self.digests.insert(name, digest)
                }
                None => {
                    self.items.remove(&name);
                    self.digests.remove(&name)
                }
            };
            if let Some(old) = old {
                self.state = self.state.minus(old);
            }
        }
        self.cursor = cursor.expect("a state has a cursor");
        assert_eq!(
            self.state.as_bytes().as_slice(),
            self.cursor.state_digest,
            "the digest at revision {}",
            self.cursor.revision
        );
    }
}

fn digest(item: &Resource) -> ItemDigest {
    let payload = item.payload.as_ref().unwrap();
    ItemDigest::of(&ItemParts {
        name: &item.name,
        create_revision: Revision::new(item.create_revision).unwrap(),
        revision: Revision::new(item.revision).unwrap(),
        type_url: &payload.type_url,
        value: &payload.value,
        requires: &item.requires,
    })
}
