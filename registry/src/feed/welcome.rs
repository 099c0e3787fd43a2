//! The registry's answer to a cursor: the stream resumes, begins with a snapshot, or gets no configuration.
//!
//! `Items::relation` finds the row of the decision table that applies to a cursor. [`for_router`] and [`for_watcher`]
//! are the two columns of the table. A router keeps its last good state and must not be moved to a history that
//! contradicts it, so in some rows it gets no configuration. A watcher only displays the configuration, so in the same
//! rows it gets a new snapshot.

use switchboard::{
    history::{Incarnation, View},
    names::Revision,
    stream::{Resume, SnapshotWhy, WelcomeMode, WithheldWhy},
};

use crate::domain::items::{Items, Relation};

/// Why the stream of a watcher that wants no snapshot cannot resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResumeError {
    /// The changes since the cursor are no longer kept.
    #[error("the changes since the cursor are no longer kept")]
    Compacted {
        /// The oldest revision that can be resumed from.
        oldest: Revision,
        /// The newest revision.
        newest: Revision,
    },
    /// The cursor's revision does not exist yet.
    #[error("the cursor's revision does not exist yet")]
    Ahead {
        /// The oldest revision that can be resumed from.
        oldest: Revision,
        /// The newest revision.
        newest: Revision,
    },
    /// The cursor belongs to another store, incarnation or history.
    #[error("the cursor belongs to another store, incarnation or history")]
    OtherHistory {
        /// The current incarnation.
        incarnation: Incarnation,
    },
    /// The cursor itself is invalid.
    #[error("the cursor {0}")]
    Invalid(CursorFault),
}

/// What is wrong with a cursor itself, regardless of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CursorFault {
    /// The cursor is malformed, or has an unknown format.
    #[error("cannot be read by this version")]
    Unreadable,
    /// The cursor belongs to another view.
    #[error("belongs to another view than this stream")]
    View,
    /// The cursor's state differs from the state at its revision.
    #[error("does not have the state digest of its revision")]
    State,
}

/// Returns the answer to a router. `want_snapshot`: the router's data is damaged, even if its cursor is valid.
#[must_use]
pub fn for_router(resume: Resume, want_snapshot: bool, items: &Items) -> WelcomeMode {
    let cursor = match resume {
        Resume::Nothing => return WelcomeMode::Snapshot(SnapshotWhy::First),
        Resume::Unreadable => return WelcomeMode::Snapshot(SnapshotWhy::CursorUnreadable),
        Resume::At(cursor) => cursor,
    };
    match items.relation(&cursor, View::Router) {
        Relation::OtherStore => WelcomeMode::Withheld(WithheldWhy::OtherStore),
        Relation::StaleHistory => WelcomeMode::Withheld(WithheldWhy::StaleHistory),
        Relation::OlderLife => WelcomeMode::Snapshot(SnapshotWhy::Fork),
        Relation::Ahead => WelcomeMode::Withheld(WithheldWhy::Ahead),
        Relation::Diverged => WelcomeMode::Withheld(WithheldWhy::Diverged),
        Relation::Compacted => WelcomeMode::Snapshot(SnapshotWhy::Compacted),
        Relation::OtherView => WelcomeMode::Snapshot(SnapshotWhy::View),
        Relation::OtherState => WelcomeMode::Snapshot(SnapshotWhy::StateMismatch),
        Relation::Fits if want_snapshot => WelcomeMode::Snapshot(SnapshotWhy::StateMismatch),
        Relation::Fits => WelcomeMode::Resumed,
    }
}

/// Returns the answer to a watcher.
///
/// # Errors
///
/// [`ResumeError`] if the cursor needs a snapshot and `include_snapshot` is false.
pub fn for_watcher(resume: Resume, include_snapshot: bool, items: &Items) -> Result<WelcomeMode, ResumeError> {
    let (oldest, newest) = (items.oldest_resumable(), items.revision());
    let (why, refusal) = match resume {
        Resume::Nothing if include_snapshot => return Ok(WelcomeMode::Snapshot(SnapshotWhy::First)),
        Resume::Nothing => return Ok(WelcomeMode::Resumed),
        Resume::Unreadable => (
            SnapshotWhy::CursorUnreadable,
            ResumeError::Invalid(CursorFault::Unreadable),
        ),
        Resume::At(cursor) => match items.relation(&cursor, View::Config) {
            Relation::Fits => return Ok(WelcomeMode::Resumed),
            Relation::OtherStore | Relation::StaleHistory | Relation::OlderLife | Relation::Diverged => (
                SnapshotWhy::Fork,
                ResumeError::OtherHistory {
                    incarnation: items.incarnation(),
                },
            ),
            Relation::Ahead => (SnapshotWhy::Ahead, ResumeError::Ahead { oldest, newest }),
            Relation::Compacted => (SnapshotWhy::Compacted, ResumeError::Compacted { oldest, newest }),
            Relation::OtherView => (SnapshotWhy::View, ResumeError::Invalid(CursorFault::View)),
            Relation::OtherState => (SnapshotWhy::StateMismatch, ResumeError::Invalid(CursorFault::State)),
        },
    };
    if include_snapshot {
        Ok(WelcomeMode::Snapshot(why))
    } else {
        Err(refusal)
    }
}

#[cfg(test)]
mod tests;
