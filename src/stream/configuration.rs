//! The messages that carry the configuration: snapshots, and deltas between two revisions.

use std::{sync::Arc, time::SystemTime};

use super::{
    RegistryMessageError,
    fields::{cursor_of, from_count},
};
use crate::{
    history::{Cursor, View},
    names::Revision,
    pb::registry,
};

/// The length of a W3C `traceparent` of version 00, the only version so far.
const TRACEPARENT_LENGTH: usize = 55;

/// A resource that can be sent. Its payload is sent as the stored bytes and is not encoded again.
pub trait Streamed {
    /// Converts the resource to a message of the contract.
    fn to_wire(&self) -> registry::Resource;
}

impl<R: Streamed> Streamed for Arc<R> {
    fn to_wire(&self) -> registry::Resource {
        R::to_wire(self)
    }
}

/// The first message of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotBegin {
    /// The cursor of the state in the snapshot.
    pub at: Cursor,
    /// The number of resources in the snapshot.
    pub resources: usize,
    /// The total size of their payloads, in bytes.
    pub bytes: usize,
}

/// A part of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotPart<R> {
    /// The number of this part, from 0.
    pub part: u32,
    /// The resources of this part. They are ordered by name across all parts.
    pub resources: Vec<R>,
}

/// A part of the changes between two revisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta<R> {
    /// The revision at which the stream was before the delta.
    pub from: Revision,
    /// The cursor of the state after all parts are applied.
    pub to: Cursor,
    /// The resources that were created or updated, in their state at [`Self::to`].
    pub upserts: Vec<R>,
    /// The resources that were deleted and do not exist at [`Self::to`].
    pub deletes: Vec<Deleted>,
    /// The number of this part, from 0.
    pub part: u32,
    /// Whether another part of the same delta follows.
    pub more: bool,
    /// The commit time of the newest change, for people. `None`: unknown.
    pub commit_time: Option<SystemTime>,
    /// The W3C `traceparent` of the newest change. `None`: the change was not traced.
    pub traceparent: Option<Arc<str>>,
}

/// A resource that was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deleted {
    /// Name of the resource. Never empty.
    pub name: Arc<str>,
    /// The revision that deleted the resource.
    pub revision: Revision,
}

impl SnapshotBegin {
    pub(super) fn read(wire: &registry::SnapshotBegin, view: View) -> Result<Self, RegistryMessageError> {
        let count = |number| usize::try_from(number).map_err(|_negative| RegistryMessageError);
        Ok(Self {
            at: cursor_of(wire.at.as_ref(), view)?,
            resources: count(wire.resources)?,
            bytes: count(wire.bytes)?,
        })
    }
}

impl From<SnapshotBegin> for registry::SnapshotBegin {
    fn from(begin: SnapshotBegin) -> Self {
        Self {
            at: Some((&begin.at).into()),
            resources: from_count(begin.resources),
            bytes: from_count(begin.bytes),
        }
    }
}

impl<R: TryFrom<registry::Resource>> SnapshotPart<R> {
    pub(super) fn read(wire: registry::SnapshotPart) -> Result<Self, RegistryMessageError> {
        Ok(Self {
            part: part(wire.part)?,
            resources: resources(wire.resources)?,
        })
    }
}

impl<R: Streamed> From<SnapshotPart<R>> for registry::SnapshotPart {
    fn from(part: SnapshotPart<R>) -> Self {
        Self {
            part: from_part(part.part),
            resources: part.resources.iter().map(Streamed::to_wire).collect(),
        }
    }
}

impl<R: TryFrom<registry::Resource>> Delta<R> {
    pub(super) fn read(wire: registry::Delta, view: View) -> Result<Self, RegistryMessageError> {
        let deletes = wire.deletes.into_iter().map(Deleted::read);
        Ok(Self {
            from: Revision::new(wire.from_revision).ok_or(RegistryMessageError)?,
            to: cursor_of(wire.to.as_ref(), view)?,
            upserts: resources(wire.upserts)?,
            deletes: deletes.collect::<Result<_, _>>()?,
            part: part(wire.part)?,
            more: wire.more,
            commit_time: wire.commit_time.and_then(|time| SystemTime::try_from(time).ok()),
            traceparent: traceparent(&wire.traceparent),
        })
    }
}

impl<R: Streamed> From<Delta<R>> for registry::Delta {
    fn from(delta: Delta<R>) -> Self {
        let deletes = delta.deletes.iter().map(|deleted| registry::Tombstone {
            name: deleted.name.to_string(),
            revision: deleted.revision.get(),
        });
        Self {
            from_revision: delta.from.get(),
            to: Some((&delta.to).into()),
            upserts: delta.upserts.iter().map(Streamed::to_wire).collect(),
            deletes: deletes.collect(),
            part: from_part(delta.part),
            more: delta.more,
            commit_time: delta.commit_time.map(Into::into),
            traceparent: delta.traceparent.as_deref().unwrap_or_default().to_owned(),
        }
    }
}

impl Deleted {
    fn read(wire: registry::Tombstone) -> Result<Self, RegistryMessageError> {
        let revision = Revision::new(wire.revision).ok_or(RegistryMessageError)?;
        let name: Arc<str> = wire.name.into();
        if name.is_empty() {
            return Err(RegistryMessageError);
        }
        Ok(Self { name, revision })
    }
}

fn resources<R: TryFrom<registry::Resource>>(wire: Vec<registry::Resource>) -> Result<Vec<R>, RegistryMessageError> {
    let read = wire.into_iter().map(R::try_from).collect::<Result<_, _>>();
    read.map_err(|_without_place| RegistryMessageError)
}

fn part(number: i32) -> Result<u32, RegistryMessageError> {
    u32::try_from(number).map_err(|_negative| RegistryMessageError)
}

fn from_part(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Reads a `traceparent`. It is used for traces only, so a malformed one is ignored and not an error.
fn traceparent(wire: &str) -> Option<Arc<str>> {
    let is_formed = wire.len() == TRACEPARENT_LENGTH && wire.bytes().all(|byte| byte.is_ascii_graphic());
    is_formed.then(|| wire.into())
}
