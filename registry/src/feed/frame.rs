//! What goes down a change stream, before it takes its shape on the wire.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use switchboard::{history::Cursor, names::Revision};

use super::welcome::Welcome;
use crate::{
    domain::items::{Item, Tombstone},
    fleet::check::Order,
};

/// One message to a follower, be it a watcher or a router.
#[derive(Debug, Clone)]
pub enum Frame {
    /// First, once.
    Welcome {
        /// The answer to the follower's cursor.
        welcome: Welcome,
        /// How often bookmarks come.
        heartbeat: Duration,
    },
    /// A piece of the configuration, encoded once for all who get it.
    Shared(Bytes),
    /// A sign of life.
    Bookmark(Bookmark),
    /// The stream ends in order.
    Goodbye(Goodbye),
    /// A router is to check a model. Of no follower's concern otherwise.
    Check(Order),
}

/// A piece of the configuration, before it is encoded.
#[derive(Debug, Clone)]
pub enum Content {
    /// A snapshot begins.
    SnapshotBegin {
        /// The state that it shows.
        at: Cursor,
        /// How many resources follow.
        resources: usize,
        /// How many bytes their payloads have together.
        bytes: usize,
    },
    /// A piece of the snapshot.
    SnapshotPart {
        /// Counts the parts, from 0.
        part: i32,
        /// Resources, ordered by name over all parts.
        resources: Vec<Arc<Item>>,
    },
    /// The snapshot is whole.
    SnapshotEnd {
        /// As when it began.
        at: Cursor,
    },
    /// A piece of what changed.
    Delta(Delta),
}

/// A piece of what changed after one revision up to another.
#[derive(Debug, Clone)]
pub struct Delta {
    /// The revision that the stream had reached.
    pub from: Revision,
    /// The state when all parts are applied.
    pub to: Cursor,
    /// What was created or changed, as it is at [`Self::to`].
    pub upserts: Vec<Arc<Item>>,
    /// What is gone at [`Self::to`].
    pub deletes: Vec<Tombstone>,
    /// Counts the parts, from 0.
    pub part: i32,
    /// Whether another part of the same delta follows.
    pub more: bool,
    /// When the newest of the changes was committed. For people.
    pub commit_time: SystemTime,
    /// The W3C trace context of the newest of the changes, if it was traced.
    pub traceparent: Option<Box<str>>,
}

/// How far a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bookmark {
    /// The last cursor sent whole.
    pub at: Option<Cursor>,
    /// The newest revision.
    pub head: Revision,
    /// To be given back by a router.
    pub probe: i64,
    /// Whether the writer has been in its present round for longer than a heartbeat.
    pub stalled: bool,
}

/// The follower is to come back after `min_wait` plus a random part of `spread`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Goodbye {
    /// Why the stream ends.
    pub why: GoodbyeWhy,
    /// Wait at least this long.
    pub min_wait: Duration,
    /// Then a random time up to this.
    pub spread: Duration,
}

/// Why a stream ends in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoodbyeWhy {
    /// It has reached its age, or a newer stream of the same router takes its place.
    Rotation,
    /// The registry shuts down.
    Drain,
    /// The follower does not read, or reads so slowly that what it was being sent, or needs next, is no longer kept.
    TooSlow,
    /// A new life of the store has begun.
    Moved,
}
