//! The registry's response to the cursor of a follower: how the stream continues.

use std::time::Duration;

use super::{
    RegistryMessageError,
    fields::{cursor_of, from_span, span},
};
use crate::{
    history::{Cursor, View},
    names::Revision,
    pb::registry,
};

/// The first message from the registry on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcome {
    /// The cursor of the newest revision, in the stream's view.
    pub head: Cursor,
    /// The oldest revision from which deltas can be served.
    pub oldest_resumable: Revision,
    /// The interval between two bookmarks.
    pub heartbeat: Duration,
    /// What the registry sends next.
    pub mode: WelcomeMode,
}

/// What the registry sends after a welcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WelcomeMode {
    /// Deltas that begin at the follower's cursor, or at the newest revision if the follower has no cursor.
    Resumed,
    /// A snapshot, followed by deltas.
    Snapshot(SnapshotWhy),
    /// No configuration. The stream stays open for reports and bookmarks.
    Withheld(WithheldWhy),
}

/// Why the registry sends a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotWhy {
    /// The follower has no cursor.
    First,
    /// The cursor is malformed or has an unknown format.
    CursorUnreadable,
    /// The changes since the cursor are no longer stored.
    Compacted,
    /// The cursor is of an earlier incarnation of the store. For a watcher also: of another history.
    Fork,
    /// The cursor's state digest is not that of its revision, or the follower asked for a snapshot.
    StateMismatch,
    /// The cursor is of another view.
    View,
    /// The cursor is of a revision that does not exist yet.
    Ahead,
    /// A reason that this build does not know. Only received, never sent.
    Unknown,
}

/// Why the registry sends no configuration to a router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithheldWhy {
    /// The cursor is of another store.
    OtherStore,
    /// The cursor is of a newer incarnation of the store, or of another incarnation with the same number.
    StaleHistory,
    /// The cursor is of a revision that does not exist yet.
    Ahead,
    /// The registry's history up to the cursor's revision differs from the cursor's history.
    Diverged,
    /// A reason that this build does not know. Only received, never sent.
    Unknown,
}

impl Welcome {
    /// The interval between two bookmarks if the welcome does not set it.
    pub const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(15);

    /// The maximum interval between two bookmarks.
    const HEARTBEAT_MAX: Duration = Duration::from_secs(3600);

    pub(super) fn read(wire: &registry::Welcome, view: View) -> Result<Self, RegistryMessageError> {
        Ok(Self {
            head: cursor_of(wire.head.as_ref(), view)?,
            oldest_resumable: Revision::new(wire.oldest_resumable).ok_or(RegistryMessageError)?,
            heartbeat: match span(wire.heartbeat) {
                Duration::ZERO => Self::HEARTBEAT_DEFAULT,
                heartbeat => heartbeat.min(Self::HEARTBEAT_MAX),
            },
            mode: WelcomeMode::read(wire)?,
        })
    }
}

impl From<Welcome> for registry::Welcome {
    fn from(welcome: Welcome) -> Self {
        let (mode, reason) = welcome.mode.to_wire();
        Self {
            head: Some((&welcome.head).into()),
            oldest_resumable: welcome.oldest_resumable.get(),
            heartbeat: from_span(welcome.heartbeat),
            mode: mode.into(),
            reason: reason.into(),
        }
    }
}

impl WelcomeMode {
    /// Converts the mode to the contract's mode, and the reason why the stream is not resumed.
    #[must_use]
    pub const fn to_wire(self) -> (registry::Mode, registry::ModeReason) {
        use registry::ModeReason as Reason;
        match self {
            Self::Resumed => (registry::Mode::Resumed, Reason::Unspecified),
            Self::Snapshot(why) => {
                let reason = match why {
                    SnapshotWhy::First => Reason::First,
                    SnapshotWhy::CursorUnreadable => Reason::CursorUnreadable,
                    SnapshotWhy::Compacted => Reason::Compacted,
                    SnapshotWhy::Fork => Reason::Fork,
                    SnapshotWhy::StateMismatch => Reason::StateMismatch,
                    SnapshotWhy::View => Reason::View,
                    SnapshotWhy::Ahead => Reason::Ahead,
                    SnapshotWhy::Unknown => Reason::Unspecified,
                };
                (registry::Mode::Snapshot, reason)
            }
            Self::Withheld(why) => {
                let reason = match why {
                    WithheldWhy::OtherStore => Reason::OtherStore,
                    WithheldWhy::StaleHistory => Reason::StaleHistory,
                    WithheldWhy::Ahead => Reason::Ahead,
                    WithheldWhy::Diverged => Reason::Diverged,
                    WithheldWhy::Unknown => Reason::Unspecified,
                };
                (registry::Mode::Withheld, reason)
            }
        }
    }

    fn read(wire: &registry::Welcome) -> Result<Self, RegistryMessageError> {
        use registry::ModeReason as Reason;
        match wire.mode() {
            registry::Mode::Resumed => Ok(Self::Resumed),
            registry::Mode::Snapshot => Ok(Self::Snapshot(match wire.reason() {
                Reason::First => SnapshotWhy::First,
                Reason::CursorUnreadable => SnapshotWhy::CursorUnreadable,
                Reason::Compacted => SnapshotWhy::Compacted,
                Reason::Fork => SnapshotWhy::Fork,
                Reason::StateMismatch => SnapshotWhy::StateMismatch,
                Reason::View => SnapshotWhy::View,
                Reason::Ahead => SnapshotWhy::Ahead,
                Reason::Unspecified | Reason::OtherStore | Reason::StaleHistory | Reason::Diverged => {
                    SnapshotWhy::Unknown
                }
            })),
            registry::Mode::Withheld => Ok(Self::Withheld(match wire.reason() {
                Reason::OtherStore => WithheldWhy::OtherStore,
                Reason::StaleHistory => WithheldWhy::StaleHistory,
                Reason::Ahead => WithheldWhy::Ahead,
                Reason::Diverged => WithheldWhy::Diverged,
                Reason::Unspecified
                | Reason::First
                | Reason::CursorUnreadable
                | Reason::Compacted
                | Reason::Fork
                | Reason::StateMismatch
                | Reason::View => WithheldWhy::Unknown,
            })),
            registry::Mode::Unspecified => Err(RegistryMessageError),
        }
    }
}
