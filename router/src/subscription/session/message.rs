//! What the registry can say on the stream, read.

use std::{sync::Arc, time::Duration};

use switchboard::{history::Cursor, names::Revision};

use crate::subscription::{order::Order, resource::Resource};

/// One message of the registry. All cursors are of the routers' view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// First, once.
    Welcome(Welcome),
    /// A snapshot begins.
    SnapshotBegin(SnapshotBegin),
    /// A piece of it.
    SnapshotPart(SnapshotPart),
    /// It is whole: the cursor of its beginning again.
    SnapshotEnd(Cursor),
    /// Changes.
    Delta(Delta),
    /// A sign of life.
    Bookmark(Bookmark),
    /// The stream ends in order.
    Goodbye(Goodbye),
    /// A model is to be checked.
    Check(Order),
}

/// The registry's answer to a hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The newest revision.
    pub head: Cursor,
    /// How often bookmarks come.
    pub heartbeat: Duration,
    /// What follows.
    pub mode: Mode,
}

/// What follows a welcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Deltas from the given cursor on.
    Resumed,
    /// A snapshot, then deltas.
    Snapshot {
        /// Whether the registry says that a new life of the store has begun.
        is_fork: bool,
    },
    /// No configuration: the history contradicts the cursor.
    Withheld {
        /// Whether the registry says that the cursor is of another store.
        other_store: bool,
    },
}

/// A snapshot begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotBegin {
    /// The state that it shows.
    pub at: Cursor,
    /// How many resources follow.
    pub resources: usize,
}

/// A piece of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotPart {
    /// Counts the parts, from 0.
    pub part: u32,
    /// Resources, ordered by name over all parts.
    pub resources: Vec<Resource>,
}

/// A piece of what changed between two revisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// The revision after which the changes come.
    pub from: Revision,
    /// The state when all parts are applied.
    pub to: Cursor,
    /// Resources that were created or changed.
    pub upserts: Vec<Resource>,
    /// The names of resources that are gone.
    pub deletes: Vec<Arc<str>>,
    /// Counts the parts, from 0.
    pub part: u32,
    /// Whether another part follows.
    pub more: bool,
    /// The trace context of the newest of the writes, if it was traced.
    pub traceparent: Option<Arc<str>>,
}

/// A sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bookmark {
    /// The last cursor sent whole. `None`: none yet.
    pub at: Option<Cursor>,
    /// The newest revision of the registry.
    pub head: Revision,
    /// To be given back in a report.
    pub probe: i64,
    /// The registry's writer does not get on: changes may be stuck.
    pub stalled: bool,
}

/// The stream ends in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goodbye {
    /// Reconnect no sooner.
    pub min_wait: Duration,
    /// Then after a random time up to this.
    pub spread: Duration,
    /// Why.
    pub why: GoodbyeWhy,
}

/// Why a stream ends in order, as far as it matters to a router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoodbyeWhy {
    /// The registry rotates its streams, shuts down, or has a cause that this build does not know.
    Other,
    /// The registry has given up on this router, which reads too slowly.
    TooSlow,
    /// A new incarnation of the store has begun: the next stream brings a snapshot of it.
    Moved,
}
