//! One test for each row of the table, in the table's order.

use switchboard::{
    digest::{ChainDigest, StateDigest},
    history::Cursor,
    names::{IncarnationId, StoreId},
};

use super::*;
use crate::testing::History;

/// A cursor of revision 2 of 3 with one wrong field, and the answer of each column.
struct Case {
    spoil: fn(&mut Cursor),
    router: WelcomeMode,
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
    assert_eq!(router, case.router);
    let watcher = for_watcher(answer(View::Config), true, items).unwrap();
    assert_eq!(watcher, WelcomeMode::Snapshot(case.watcher));
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
fn without_a_cursor_a_stream_begins_with_a_snapshot_or_only_shows_new_changes() {
    let history = History::with_revisions(3);
    let items = &history.state().items;
    let first = WelcomeMode::Snapshot(SnapshotWhy::First);
    for want_snapshot in [false, true] {
        assert_eq!(for_router(Resume::Nothing, want_snapshot, items), first);
    }
    assert_eq!(for_watcher(Resume::Nothing, true, items).unwrap(), first);
    assert_eq!(
        for_watcher(Resume::Nothing, false, items).unwrap(),
        WelcomeMode::Resumed
    );
}

#[test]
fn an_unreadable_cursor_gets_a_snapshot() {
    let history = History::with_revisions(3);
    let items = &history.state().items;
    let unreadable = WelcomeMode::Snapshot(SnapshotWhy::CursorUnreadable);
    assert_eq!(for_router(Resume::Unreadable, false, items), unreadable);
    assert_eq!(for_watcher(Resume::Unreadable, true, items).unwrap(), unreadable);
    assert_eq!(
        for_watcher(Resume::Unreadable, false, items),
        Err(ResumeError::Invalid(CursorFault::Unreadable))
    );
}

#[test]
fn another_store_is_withheld() {
    check(&Case {
        spoil: |cursor| cursor.store = StoreId::random(),
        router: WelcomeMode::Withheld(WithheldWhy::OtherStore),
        watcher: SnapshotWhy::Fork,
        refusal: other_history,
    });
}

#[test]
fn a_newer_life_is_withheld() {
    check(&Case {
        spoil: |cursor| cursor.incarnation.number += 1,
        router: WelcomeMode::Withheld(WithheldWhy::StaleHistory),
        watcher: SnapshotWhy::Fork,
        refusal: other_history,
    });
}

#[test]
fn another_life_with_the_same_number_is_withheld() {
    check(&Case {
        spoil: |cursor| cursor.incarnation.id = IncarnationId::random(),
        router: WelcomeMode::Withheld(WithheldWhy::StaleHistory),
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
        router: WelcomeMode::Snapshot(SnapshotWhy::Fork),
        watcher: SnapshotWhy::Fork,
        refusal: other_history,
    });
}

#[test]
fn a_revision_that_does_not_exist_yet_is_withheld() {
    check(&Case {
        spoil: |cursor| cursor.revision = Revision::new(4).unwrap(),
        router: WelcomeMode::Withheld(WithheldWhy::Ahead),
        watcher: SnapshotWhy::Ahead,
        refusal: |_| ResumeError::Ahead {
            oldest: Revision::new(1).unwrap(),
            newest: Revision::new(3).unwrap(),
        },
    });
}

#[test]
fn a_diverged_history_is_withheld() {
    check(&Case {
        spoil: |cursor| {
            cursor.chain = ChainDigest::NONE;
            // A diverged history also has another state. The difference in the history decides.
            cursor.state = StateDigest::EMPTY;
        },
        router: WelcomeMode::Withheld(WithheldWhy::Diverged),
        watcher: SnapshotWhy::Fork,
        refusal: other_history,
    });
}

#[test]
fn a_compacted_revision_gets_a_snapshot() {
    check(&Case {
        spoil: |cursor| cursor.revision = Revision::ZERO,
        router: WelcomeMode::Snapshot(SnapshotWhy::Compacted),
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
        router: WelcomeMode::Snapshot(SnapshotWhy::View),
        watcher: SnapshotWhy::View,
        refusal: |_| ResumeError::Invalid(CursorFault::View),
    });
}

#[test]
fn a_wrong_state_gets_a_snapshot() {
    check(&Case {
        spoil: |cursor| cursor.state = StateDigest::EMPTY,
        router: WelcomeMode::Snapshot(SnapshotWhy::StateMismatch),
        watcher: SnapshotWhy::StateMismatch,
        refusal: |_| ResumeError::Invalid(CursorFault::State),
    });
}

#[test]
fn a_router_that_wants_a_snapshot_gets_one_unless_the_histories_contradict_each_other() {
    let history = History::with_revisions(3);
    let items = &history.state().items;
    let mut cursor = history.cursor_at(2, View::Router);
    assert_eq!(
        for_router(Resume::At(cursor), true, items),
        WelcomeMode::Snapshot(SnapshotWhy::StateMismatch)
    );
    cursor.store = StoreId::random();
    assert_eq!(
        for_router(Resume::At(cursor), true, items),
        WelcomeMode::Withheld(WithheldWhy::OtherStore)
    );
}

#[test]
fn a_cursor_of_this_history_resumes() {
    let history = History::with_revisions(3);
    let items = &history.state().items;
    for revision in 1..=3 {
        let cursor = history.cursor_at(revision, View::Router);
        assert_eq!(for_router(Resume::At(cursor), false, items), WelcomeMode::Resumed);
        let cursor = history.cursor_at(revision, View::Config);
        for include_snapshot in [false, true] {
            let mode = for_watcher(Resume::At(cursor), include_snapshot, items).unwrap();
            assert_eq!(mode, WelcomeMode::Resumed);
        }
    }
}

#[test]
fn has_been_at_rejects_only_cursors_that_contradict_the_history() {
    let history = History::with_revisions(3);
    let items = &history.state().items;
    let has_been = |spoil: fn(&mut Cursor)| {
        let mut cursor = history.cursor_at(2, View::Router);
        spoil(&mut cursor);
        items.has_been_at(&cursor)
    };
    assert!(has_been(|_| ()));
    assert!(has_been(|cursor| cursor.incarnation.number -= 1));
    assert!(has_been(|cursor| cursor.state = StateDigest::EMPTY));
    assert!(!has_been(|cursor| cursor.store = StoreId::random()));
    assert!(!has_been(|cursor| cursor.incarnation.number += 1));
    assert!(!has_been(|cursor| cursor.chain = ChainDigest::NONE));
    assert!(!has_been(|cursor| cursor.revision = Revision::new(4).unwrap()));
}
