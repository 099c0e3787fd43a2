//! Where the pieces of a snapshot or a delta are gathered until they are whole.

use std::sync::Arc;

use switchboard::{
    history::Cursor,
    stream::{Delta, SnapshotBegin, SnapshotPart},
};

use crate::subscription::{
    received::{Changes, Received, Resources, StateMismatch},
    resource::Resource,
};

/// A piece is missing, or comes twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap;

/// A snapshot that is not whole yet.
#[derive(Debug)]
pub(super) struct SnapshotScratch {
    at: Cursor,
    expected: usize,
    parts: u32,
    /// How many resources have come, a name that comes twice counted twice.
    came: usize,
    resources: Resources,
}

impl SnapshotScratch {
    pub(super) fn new(begin: &SnapshotBegin) -> Self {
        Self {
            at: begin.at,
            expected: begin.resources,
            parts: 0,
            came: 0,
            resources: Resources::new(),
        }
    }

    pub(super) const fn at(&self) -> &Cursor {
        &self.at
    }

    /// Takes in the next part; more resources than were promised are no longer kept, only counted.
    pub(super) fn add(&mut self, part: SnapshotPart<Resource>) -> Result<(), Gap> {
        if part.part != self.parts {
            return Err(Gap);
        }
        self.parts += 1;
        self.came = self.came.saturating_add(part.resources.len());
        if self.came <= self.expected {
            let resources = part.resources.into_iter().map(Arc::new);
            self.resources
                .extend(resources.map(|resource| (Arc::clone(&resource.raw.name), resource)));
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Received, StateMismatch> {
        if self.came != self.expected || self.resources.len() != self.expected {
            return Err(StateMismatch);
        }
        Received::from_snapshot(self.at, self.resources)
    }
}

/// A delta that is not whole yet.
#[derive(Debug)]
pub(super) struct DeltaScratch {
    to: Cursor,
    parts: u32,
    changes: Changes,
    traceparent: Option<Arc<str>>,
}

impl DeltaScratch {
    pub(super) const fn new(to: Cursor) -> Self {
        Self {
            to,
            parts: 0,
            changes: Changes::new(),
            traceparent: None,
        }
    }

    pub(super) fn add(&mut self, delta: Delta<Resource>) -> Result<(), Gap> {
        if delta.part != self.parts || delta.to != self.to {
            return Err(Gap);
        }
        self.parts += 1;
        let deletes = delta.deletes.into_iter();
        self.changes.extend(deletes.map(|deleted| (deleted.name, None)));
        let upserts = delta.upserts.into_iter().map(Arc::new);
        self.changes
            .extend(upserts.map(|resource| (Arc::clone(&resource.raw.name), Some(resource))));
        self.traceparent = delta.traceparent;
        Ok(())
    }

    /// Applies the whole delta to what it goes on from. On an error nothing is changed.
    pub(super) fn apply_to(self, received: &mut Received) -> Result<(), StateMismatch> {
        received.apply(self.to, self.changes, self.traceparent)
    }
}
