//! What the registry answers to a cursor: whether a stream resumes, begins with a snapshot, or gets no configuration.
//!
//! [`judge`] finds the one row of the decision table that fits; [`for_router`] and [`for_watcher`] are its two columns. A
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
    let Some(past) = items.past(cursor.revision) else {
        return Row::Compacted;
    };
    if past.chain != cursor.chain {
        Row::Diverged
    } else if cursor.revision < items.oldest_resumable() {
        Row::Compacted
    } else if cursor.view != view {
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
mod tests {
    use switchboard::{
        digest::{ChainDigest, StateDigest},
        names::{IncarnationId, StoreId},
    };

    use super::*;
    use crate::feed::testing::History;

    /// A cursor of revision 2 of 3, spoilt, and what each column answers.
    struct Case {
        spoil: fn(&mut Cursor),
        router: Mode,
        watcher: SnapshotWhy,
        refusal: fn(&Items) -> ResumeError,
    }

    fn check(case: &Case) {
        let history = History::with_revisions(3);
        let items = &history.state().items;
        let answer = |view| {
            let mut cursor = history.cursor_at(2, view);
            (case.spoil)(&mut cursor);
            Resume::At(cursor)
        };
        let router = for_router(answer(View::Router), false, items);
        assert_eq!(router.mode, case.router);
        assert_eq!(router.head, items.cursor(View::Router));
        let watcher = for_watcher(answer(View::Config), true, items).unwrap();
        assert_eq!(watcher.mode, Mode::Snapshot(case.watcher));
        assert_eq!(
            for_watcher(answer(View::Config), false, items),
            Err((case.refusal)(items))
        );
    }

    fn other_history(items: &Items) -> ResumeError {
        ResumeError::OtherHistory {
            incarnation: items.incarnation(),
        }
    }

    #[test]
    fn without_a_cursor_everything_comes_or_only_what_is_new() {
        let history = History::with_revisions(3);
        let items = &history.state().items;
        let first = Mode::Snapshot(SnapshotWhy::First);
        for want_snapshot in [false, true] {
            assert_eq!(for_router(Resume::Nothing, want_snapshot, items).mode, first);
        }
        assert_eq!(for_watcher(Resume::Nothing, true, items).unwrap().mode, first);
        assert_eq!(
            for_watcher(Resume::Nothing, false, items).unwrap().mode,
            Mode::Resumed(items.cursor(View::Config))
        );
    }

    #[test]
    fn an_unreadable_cursor_gets_a_snapshot() {
        let history = History::with_revisions(3);
        let items = &history.state().items;
        let unreadable = Mode::Snapshot(SnapshotWhy::CursorUnreadable);
        assert_eq!(for_router(Resume::Unreadable, false, items).mode, unreadable);
        assert_eq!(for_watcher(Resume::Unreadable, true, items).unwrap().mode, unreadable);
        assert_eq!(
            for_watcher(Resume::Unreadable, false, items),
            Err(ResumeError::Invalid(CursorFault::Unreadable))
        );
    }

    #[test]
    fn another_store_is_withheld() {
        check(&Case {
            spoil: |cursor| cursor.store = StoreId::random(),
            router: Mode::Withheld(WithheldWhy::OtherStore),
            watcher: SnapshotWhy::Fork,
            refusal: other_history,
        });
    }

    #[test]
    fn a_newer_life_is_withheld() {
        check(&Case {
            spoil: |cursor| cursor.incarnation.number += 1,
            router: Mode::Withheld(WithheldWhy::StaleHistory),
            watcher: SnapshotWhy::Fork,
            refusal: other_history,
        });
    }

    #[test]
    fn another_life_with_the_same_number_is_withheld() {
        check(&Case {
            spoil: |cursor| cursor.incarnation.id = IncarnationId::random(),
            router: Mode::Withheld(WithheldWhy::StaleHistory),
            watcher: SnapshotWhy::Fork,
            refusal: other_history,
        });
    }

    #[test]
    fn an_older_life_gets_a_snapshot_of_the_fork() {
        check(&Case {
            spoil: |cursor| {
                cursor.incarnation.number -= 1;
                cursor.incarnation.id = IncarnationId::random();
                cursor.revision = Revision::new(1_000).unwrap();
            },
            router: Mode::Snapshot(SnapshotWhy::Fork),
            watcher: SnapshotWhy::Fork,
            refusal: other_history,
        });
    }

    #[test]
    fn a_revision_that_is_not_yet_is_withheld() {
        check(&Case {
            spoil: |cursor| cursor.revision = Revision::new(4).unwrap(),
            router: Mode::Withheld(WithheldWhy::Ahead),
            watcher: SnapshotWhy::Ahead,
            refusal: |_| ResumeError::Ahead {
                oldest: Revision::new(1).unwrap(),
                newest: Revision::new(3).unwrap(),
            },
        });
    }

    #[test]
    fn another_past_is_withheld() {
        check(&Case {
            spoil: |cursor| {
                cursor.chain = ChainDigest::NONE;
                // A history that diverged has another state too; what counts is the history.
                cursor.state = StateDigest::EMPTY;
            },
            router: Mode::Withheld(WithheldWhy::Diverged),
            watcher: SnapshotWhy::Fork,
            refusal: other_history,
        });
    }

    #[test]
    fn what_is_no_longer_kept_comes_as_a_snapshot() {
        check(&Case {
            spoil: |cursor| cursor.revision = Revision::ZERO,
            router: Mode::Snapshot(SnapshotWhy::Compacted),
            watcher: SnapshotWhy::Compacted,
            refusal: |_| ResumeError::Compacted {
                oldest: Revision::new(1).unwrap(),
                newest: Revision::new(3).unwrap(),
            },
        });
    }

    #[test]
    fn a_cursor_of_another_view_gets_a_snapshot() {
        check(&Case {
            spoil: |cursor| {
                cursor.view = match cursor.view {
                    View::Config => View::Router,
                    View::Router => View::Config,
                }
            },
            router: Mode::Snapshot(SnapshotWhy::View),
            watcher: SnapshotWhy::View,
            refusal: |_| ResumeError::Invalid(CursorFault::View),
        });
    }

    #[test]
    fn a_wrong_state_gets_a_snapshot() {
        check(&Case {
            spoil: |cursor| cursor.state = StateDigest::EMPTY,
            router: Mode::Snapshot(SnapshotWhy::StateMismatch),
            watcher: SnapshotWhy::StateMismatch,
            refusal: |_| ResumeError::Invalid(CursorFault::State),
        });
    }

    #[test]
    fn a_router_that_wants_a_snapshot_gets_it_but_not_of_a_history_that_contradicts_it() {
        let history = History::with_revisions(3);
        let items = &history.state().items;
        let mut cursor = history.cursor_at(2, View::Router);
        assert_eq!(
            for_router(Resume::At(cursor), true, items).mode,
            Mode::Snapshot(SnapshotWhy::StateMismatch)
        );
        cursor.store = StoreId::random();
        assert_eq!(
            for_router(Resume::At(cursor), true, items).mode,
            Mode::Withheld(WithheldWhy::OtherStore)
        );
    }

    #[test]
    fn a_cursor_of_this_history_resumes() {
        let history = History::with_revisions(3);
        let items = &history.state().items;
        for revision in 1..=3 {
            let cursor = history.cursor_at(revision, View::Router);
            assert_eq!(for_router(Resume::At(cursor), false, items).mode, Mode::Resumed(cursor));
            let cursor = history.cursor_at(revision, View::Config);
            for include_snapshot in [false, true] {
                let welcome = for_watcher(Resume::At(cursor), include_snapshot, items).unwrap();
                assert_eq!(welcome.mode, Mode::Resumed(cursor));
            }
        }
    }

    #[test]
    fn only_what_can_be_true_has_been() {
        let history = History::with_revisions(3);
        let items = &history.state().items;
        let has_been = |spoil: fn(&mut Cursor)| {
            let mut cursor = history.cursor_at(2, View::Router);
            spoil(&mut cursor);
            has_been_at(&cursor, items)
        };
        assert!(has_been(|_| ()));
        assert!(has_been(|cursor| cursor.incarnation.number -= 1));
        assert!(has_been(|cursor| cursor.state = StateDigest::EMPTY));
        assert!(!has_been(|cursor| cursor.store = StoreId::random()));
        assert!(!has_been(|cursor| cursor.incarnation.number += 1));
        assert!(!has_been(|cursor| cursor.chain = ChainDigest::NONE));
        assert!(!has_been(|cursor| cursor.revision = Revision::new(4).unwrap()));
    }
}
