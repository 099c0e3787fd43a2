//! What the registry answers to a cursor: whether a stream resumes, begins with a snapshot, or gets no configuration.
//!
//! `judge` finds the one row of the decision table that fits; [`for_router`] and [`for_watcher`] are its two columns. A
//! router keeps its last good state and must not be talked into a history that contradicts it, so it is withheld from
//! what a watcher, who only shows, simply gets anew.

use std::cmp::Ordering;

use switchboard::{
    history::{Cursor, Incarnation, View},
    names::Revision,
};

use crate::domain::items::Items;

/// What a follower says about where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    /// Nowhere: it has nothing.
    Nothing,
    /// At a cursor that is malformed or of an unknown format.
    Unreadable,
    /// At this cursor.
    At(Cursor),
}

/// The first message of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Welcome {
    /// The newest revision, in the stream's view.
    pub head: Cursor,
    /// The oldest revision from which deltas can be served.
    pub oldest_resumable: Revision,
    /// What follows.
    pub mode: Mode,
}

/// What follows a welcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Deltas from this cursor on.
    Resumed(Cursor),
    /// A snapshot, then deltas.
    Snapshot(SnapshotWhy),
    /// No configuration: the stream stays for reports and bookmarks.
    Withheld(WithheldWhy),
}

/// Why a snapshot comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotWhy {
    /// No cursor was given.
    First,
    /// The cursor is malformed, or of an unknown format.
    CursorUnreadable,
    /// The changes since the cursor are no longer kept.
    Compacted,
    /// The cursor is of an earlier life of the store, or (to a watcher) of another history.
    Fork,
    /// The state is not that of the revision, or a snapshot was asked for.
    StateMismatch,
    /// The cursor is of another view.
    View,
    /// The cursor is of a revision that is not yet.
    Ahead,
}

/// Why a router gets no configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithheldWhy {
    /// The cursor is of another store.
    OtherStore,
    /// The cursor is of a newer life of the store, or of another one with the same number.
    StaleHistory,
    /// The cursor is of a revision that is not yet.
    Ahead,
    /// The history up to the cursor is another one.
    Diverged,
}

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
    /// The cursor is of a revision that is not yet.
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

/// The rows of the decision table, in the order in which they are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Row {
    Nothing,
    Unreadable,
    OtherStore,
    StaleHistory,
    OlderLife,
    Ahead,
    Diverged,
    Compacted,
    OtherView,
    OtherState,
    Fits(Cursor),
}

/// The welcome of a router. `want_snapshot`: what it has is damaged, whatever its cursor says.
#[must_use]
pub fn for_router(resume: Resume, want_snapshot: bool, items: &Items) -> Welcome {
    let mode = match judge(resume, View::Router, items) {
        Row::Nothing => Mode::Snapshot(SnapshotWhy::First),
        Row::Unreadable => Mode::Snapshot(SnapshotWhy::CursorUnreadable),
        Row::OtherStore => Mode::Withheld(WithheldWhy::OtherStore),
        Row::StaleHistory => Mode::Withheld(WithheldWhy::StaleHistory),
        Row::OlderLife => Mode::Snapshot(SnapshotWhy::Fork),
        Row::Ahead => Mode::Withheld(WithheldWhy::Ahead),
        Row::Diverged => Mode::Withheld(WithheldWhy::Diverged),
        Row::Compacted => Mode::Snapshot(SnapshotWhy::Compacted),
        Row::OtherView => Mode::Snapshot(SnapshotWhy::View),
        Row::OtherState => Mode::Snapshot(SnapshotWhy::StateMismatch),
        Row::Fits(_) if want_snapshot => Mode::Snapshot(SnapshotWhy::StateMismatch),
        Row::Fits(cursor) => Mode::Resumed(cursor),
    };
    welcome(mode, View::Router, items)
}

/// The welcome of a watcher.
///
/// # Errors
///
/// [`ResumeError`] when only a snapshot could answer its cursor and `include_snapshot` is false.
pub fn for_watcher(resume: Resume, include_snapshot: bool, items: &Items) -> Result<Welcome, ResumeError> {
    let (oldest, newest) = (items.oldest_resumable(), items.revision());
    let other_history = ResumeError::OtherHistory {
        incarnation: items.incarnation(),
    };
    let (why, refusal) = match judge(resume, View::Config, items) {
        Row::Fits(cursor) => return Ok(welcome(Mode::Resumed(cursor), View::Config, items)),
        Row::Nothing if include_snapshot => {
            return Ok(welcome(Mode::Snapshot(SnapshotWhy::First), View::Config, items));
        }
        Row::Nothing => return Ok(welcome(Mode::Resumed(items.cursor(View::Config)), View::Config, items)),
        Row::OtherStore | Row::StaleHistory | Row::OlderLife | Row::Diverged => (SnapshotWhy::Fork, other_history),
        Row::Ahead => (SnapshotWhy::Ahead, ResumeError::Ahead { oldest, newest }),
        Row::Compacted => (SnapshotWhy::Compacted, ResumeError::Compacted { oldest, newest }),
        Row::Unreadable => (
            SnapshotWhy::CursorUnreadable,
            ResumeError::Invalid(CursorFault::Unreadable),
        ),
        Row::OtherView => (SnapshotWhy::View, ResumeError::Invalid(CursorFault::View)),
        Row::OtherState => (SnapshotWhy::StateMismatch, ResumeError::Invalid(CursorFault::State)),
    };
    if include_snapshot {
        Ok(welcome(Mode::Snapshot(why), View::Config, items))
    } else {
        Err(refusal)
    }
}

/// Whether the history has been at `cursor`, as far as it is still known: earlier lives and compacted revisions pass.
#[must_use]
pub fn has_been_at(cursor: &Cursor, items: &Items) -> bool {
    match judge(Resume::At(*cursor), cursor.view, items) {
        Row::OtherStore | Row::StaleHistory | Row::Ahead | Row::Diverged => false,
        Row::Nothing
        | Row::Unreadable
        | Row::OlderLife
        | Row::Compacted
        | Row::OtherView
        | Row::OtherState
        | Row::Fits(_) => true,
    }
}

/// The first row that fits, by one published state.
fn judge(resume: Resume, view: View, items: &Items) -> Row {
    let cursor = match resume {
        Resume::Nothing => return Row::Nothing,
        Resume::Unreadable => return Row::Unreadable,
        Resume::At(cursor) => cursor,
    };
    if cursor.store != items.store() {
        return Row::OtherStore;
    }
    let present = items.incarnation();
    match cursor.incarnation.number.cmp(&present.number) {
        Ordering::Less => return Row::OlderLife,
        Ordering::Equal if cursor.incarnation.id == present.id => {}
        Ordering::Equal | Ordering::Greater => return Row::StaleHistory,
    }
    if cursor.revision > items.revision() {
        return Row::Ahead;
    }
    if items.chain(cursor.revision).is_some_and(|chain| chain != cursor.chain) {
        return Row::Diverged;
    }
    let past = items.past(cursor.revision);
    let Some(past) = past.filter(|_| cursor.revision >= items.oldest_resumable()) else {
        return Row::Compacted;
    };
    if cursor.view != view {
        Row::OtherView
    } else if past.state(view) != cursor.state {
        Row::OtherState
    } else {
        Row::Fits(cursor)
    }
}

fn welcome(mode: Mode, view: View, items: &Items) -> Welcome {
    Welcome {
        head: items.cursor(view),
        oldest_resumable: items.oldest_resumable(),
        mode,
    }
}

#[cfg(test)]
mod tests;
