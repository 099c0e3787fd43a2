//! Collects the parts of a snapshot or a delta until it is complete.

use std::sync::Arc;

use switchboard::{
    history::Cursor,
    stream::{Delta, SnapshotBegin, SnapshotPart},
};

use crate::subscription::{
    received::{Changes, Received, Resources, StateMismatch},
    resource::Resource,
};

/// The error for a part that is missing or arrives twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap;

/// An incomplete snapshot.
#[derive(Debug)]
pub(super) struct SnapshotScratch {
    at: Cursor,
    expected: usize,
    parts: u32,
    /// Number of received resources. A name that arrives twice counts twice.
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

    /// Adds the next part. Resources beyond the announced number are only counted, not kept.
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

/// An incomplete delta.
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

    /// Applies the complete delta to the state that precedes it. An error leaves the state unchanged.
    pub(super) fn apply_to(self, received: &mut Received) -> Result<(), StateMismatch> {
        received.apply(self.to, self.changes, self.traceparent)
    }
}
