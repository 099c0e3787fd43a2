//! What the registry can say on the stream, read.

use std::time::Duration;

use switchboard::{history::Cursor, names::Revision};

use crate::subscription::resource::Resource;

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
    /// Counts the parts, from 0.
    pub part: u32,
    /// Whether another part follows.
    pub more: bool,
    /// The trace of the newest of the writes. `None`: it was not traced.
    pub traceparent: Option<Box<str>>,
}

/// A sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bookmark {
    /// The last cursor sent whole. `None`: none yet.
    pub at: Option<Cursor>,
    /// To be given back in a report.
    pub probe: i64,
}

/// The stream ends in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goodbye {
    /// Reconnect no sooner.
    pub min_wait: Duration,
    /// Then after a random time up to this.
    pub spread: Duration,
}
