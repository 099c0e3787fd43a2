//! What the registry answers to a cursor: whether a stream resumes, begins with a snapshot, or gets no configuration.
//!
//! `Items::relation` finds the one row of the decision table that fits a cursor; [`for_router`] and [`for_watcher`] are the
//! table's two columns. A router keeps its last good state and must not be talked into a history that contradicts it, so it
//! is withheld from what a watcher, who only shows, simply gets anew.

use switchboard::{
    history::{Incarnation, View},
    names::Revision,
    stream::{Resume, SnapshotWhy, WelcomeMode, WithheldWhy},
};

use crate::domain::items::{Items, Relation};

/// Why a watcher that takes no snapshot cannot be resumed.
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
    /// The cursor is of a revision that does not exist yet.
    #[error("the cursor is of a revision that is not yet")]
    Ahead {
        /// The oldest revision that can be resumed from.
        oldest: Revision,
        /// The newest revision.
        newest: Revision,
    },
    /// The cursor is of another store, incarnation or history.
    #[error("the cursor is of another store, incarnation or history")]
    OtherHistory {
        /// The present incarnation.
        incarnation: Incarnation,
    },
    /// The cursor itself is bad.
    #[error("the cursor {0}")]
    Invalid(CursorFault),
}

/// What is wrong with a cursor in itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CursorFault {
    /// It is malformed, or of an unknown format.
    #[error("is not one that this version can read")]
    Unreadable,
    /// It is of another view.
    #[error("is of another view than this stream")]
    View,
    /// Its state is not that of its revision.
    #[error("has not the state digest of its revision")]
    State,
}

/// What a router is answered. `want_snapshot`: what it has is damaged, whatever its cursor says.
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

/// What a watcher is answered.
///
/// # Errors
///
/// [`ResumeError`] when only a snapshot could answer its cursor and `include_snapshot` is false.
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
