//! Tests of the set of routers, and of when a wait is decided.

use switchboard::{
    history::View,
    names::{InstanceId, StoreId},
    stream::{HeldKind, SnapshotWhy, WithheldWhy},
};

use super::*;
use crate::testing::History;

const MODE: WelcomeMode = WelcomeMode::Snapshot(SnapshotWhy::First);

fn wanted(revision: i64) -> AwaitedRevision {
    AwaitedRevision {
        revision: Revision::new(revision).filter(|revision| *revision > Revision::ZERO),
        incarnation: None,
        group: Group::default(),
        min_routers: 1,
    }
}

fn set(history: &History, wanted: AwaitedRevision) -> Set {
    Set::new(wanted, history.state()).unwrap()
}

fn router(id: &str) -> RouterInstance {
    (RouterId::parse(id).unwrap(), InstanceId::random())
}

fn applied(history: &History, revision: i64) -> Report {
    Report {
        applied: Some(history.cursor_at(revision, View::Router)),
        ..Report::default()
    }
}

fn held(resource: &str, used: i64, revision: i64, kind: HeldKind) -> HeldReport {
    HeldReport {
        resource: resource.into(),
        field: "family".into(),
        reason: "FAMILY_UNKNOWN".into(),
        revision: Revision::new(revision).unwrap(),
        used_revision: Revision::new(used).unwrap(),
        message: Box::default(),
        kind,
    }
}

fn join(set: &mut Set, key: &RouterInstance) {
    set.join(key, &Group::default(), MODE);
}

fn names(set: &Set) -> Vec<String> {
    match set.verdict() {
        WaitVerdict::InForce(done) => done.routers.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

fn missing(set: &Set) -> (Vec<String>, usize) {
    match set.overdue() {
        WaitError::NotApplied { routers, count, .. } => (routers.iter().map(ToString::to_string).collect(), count),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_revision_is_in_force_once_the_last_router_has_applied_it() {
    let history = History::with_revisions(5);
    let mut set = set(&history, wanted(4));
    let (a, b) = (router("a"), router("b"));
    join(&mut set, &a);
    join(&mut set, &b);
    set.report(&a, &applied(&history, 5));
    set.report(&b, &applied(&history, 3));
    assert_eq!(set.verdict(), WaitVerdict::Waiting);
    assert_eq!(missing(&set), (vec!["b".to_owned()], 1));
    set.report(&b, &applied(&history, 4));
    assert_eq!(names(&set), ["a", "b"]);
}

#[test]
fn the_newest_revision_is_determined_when_the_wait_begins() {
    let history = History::with_revisions(3);
    let mut set = set(&history, wanted(0));
    let a = router("a");
    join(&mut set, &a);
    history.commit([("models/a", 1)]);
    set.report(&a, &applied(&history, 3));
    assert_eq!(names(&set), ["a"]);
}

#[test]
fn a_router_that_connects_later_is_waited_for_too() {
    let history = History::with_revisions(3);
    let mut set = set(&history, wanted(3));
    let (a, b) = (router("a"), router("b"));
    join(&mut set, &a);
    join(&mut set, &b);
    set.report(&a, &applied(&history, 3));
    assert_eq!(set.verdict(), WaitVerdict::Waiting);
}

#[test]
fn a_lost_router_is_waited_for_until_a_new_process_replaces_it() {
    let history = History::with_revisions(3);
    let mut set = set(&history, wanted(3));
    let (a, b, next) = (router("a"), router("b"), router("a"));
    join(&mut set, &a);
    join(&mut set, &b);
    set.report(&b, &applied(&history, 3));
    set.lose(&a);
    assert_eq!(missing(&set), (vec!["a".to_owned()], 1));
    join(&mut set, &next);
    assert_eq!(set.verdict(), WaitVerdict::Waiting);
    set.report(&next, &applied(&history, 3));
    assert_eq!(names(&set), ["a", "b"]);
}

#[test]
fn a_lost_router_that_returns_in_another_group_is_no_longer_waited_for() {
    let history = History::with_revisions(3);
    let group = Group::parse("blue").unwrap();
    let wanted = AwaitedRevision {
        group: group.clone(),
        ..wanted(3)
    };
    let mut set = set(&history, wanted);
    let (a, b, next) = (router("a"), router("b"), router("a"));
    set.join(&a, &group, MODE);
    set.join(&b, &group, MODE);
    set.report(&b, &applied(&history, 3));
    set.lose(&a);
    assert_eq!(missing(&set), (vec!["a".to_owned()], 1));
    set.join(&next, &Group::parse("green").unwrap(), MODE);
    assert_eq!(names(&set), ["b"]);
}

#[test]
fn an_earlier_process_does_not_replace_a_lost_one() {
    let history = History::with_revisions(3);
    let mut set = set(&history, wanted(3));
    let (earlier, later) = (router("a"), router("a"));
    join(&mut set, &earlier);
    join(&mut set, &later);
    set.report(&earlier, &applied(&history, 3));
    set.lose(&later);
    assert_eq!(missing(&set).1, 1);
    // Nor does it when its stream reconnects.
    set.lose(&earlier);
    join(&mut set, &earlier);
    assert_eq!(missing(&set).1, 1);
    // A later process does replace an earlier one, and may connect before the earlier one is lost.
    join(&mut set, &later);
    set.report(&later, &applied(&history, 3));
    set.report(&earlier, &applied(&history, 2));
    set.lose(&earlier);
    assert_eq!(names(&set), ["a"]);
}

#[test]
fn a_stream_that_reconnects_changes_nothing() {
    let history = History::with_revisions(3);
    let mut set = set(&history, wanted(3));
    let a = router("a");
    join(&mut set, &a);
    set.report(&a, &applied(&history, 3));
    set.lose(&a);
    assert_eq!(names(&set), ["a"], "a lost process keeps the state that it has applied");
    join(&mut set, &a);
    assert_eq!(names(&set), ["a"]);
}

#[test]
fn a_router_that_shuts_down_is_no_longer_waited_for() {
    let history = History::with_revisions(3);
    let mut set = set(
        &history,
        AwaitedRevision {
            min_routers: 0,
            ..wanted(3)
        },
    );
    let a = router("a");
    join(&mut set, &a);
    assert_eq!(set.verdict(), WaitVerdict::Waiting);
    set.leave(&a);
    assert_eq!(names(&set), [""; 0]);
}

#[test]
fn at_least_the_minimum_number_of_routers_must_be_connected() {
    let history = History::with_revisions(3);
    let mut set = set(
        &history,
        AwaitedRevision {
            min_routers: 2,
            ..wanted(3)
        },
    );
    let too_few = |connected| WaitError::TooFew { min: 2, connected };
    assert_eq!(set.overdue(), too_few(0));
    let (a, twin, b) = (router("a"), router("a"), router("b"));
    for key in [&a, &twin] {
        join(&mut set, key);
        set.report(key, &applied(&history, 3));
    }
    assert_eq!((set.verdict(), set.overdue()), (WaitVerdict::Waiting, too_few(1)));
    join(&mut set, &b);
    set.report(&b, &applied(&history, 3));
    assert_eq!(names(&set), ["a", "b"]);
}

#[test]
fn only_routers_of_the_group_count() {
    let history = History::with_revisions(3);
    let group = |text| Group::parse(text).unwrap();
    let mut set = set(
        &history,
        AwaitedRevision {
            group: group("north"),
            ..wanted(3)
        },
    );
    let (a, b) = (router("a"), router("b"));
    set.join(&a, &group("north"), MODE);
    set.join(&b, &group("south"), MODE);
    set.report(&a, &applied(&history, 3));
    assert_eq!(names(&set), ["a"]);
}

#[test]
fn a_router_with_another_history_never_counts() {
    let history = History::with_revisions(3);
    let mut set = set(&history, wanted(3));
    let a = router("a");
    set.join(&a, &Group::default(), WelcomeMode::Withheld(WithheldWhy::Diverged));
    set.report(&a, &applied(&history, 3));
    assert_eq!(missing(&set).1, 1);
    set.join(&a, &Group::default(), MODE);
    let mut foreign = applied(&History::with_revisions(3), 3);
    foreign.applied.as_mut().unwrap().store = StoreId::random();
    set.report(&a, &foreign);
    assert_eq!(missing(&set).1, 1);
}

/// Creates a history in which `models/a` changes at 2 and 4, and `models/b` at 3 and 6. The wait begins at 6.
fn changes() -> History {
    let history = History::new();
    for name in ["models/x", "models/a", "models/b", "models/a", "models/x", "models/b"] {
        history.commit([(name, 1)]);
    }
    history
}

#[test]
fn a_held_item_blocks_only_revisions_that_changed_it() {
    use HeldKind::{CredentialPending, Refused};
    let history = changes();
    // The goal; the router's revision; the held item with its used and its newest revision; the expected verdict; why.
    let rows = [
        (
            3,
            6,
            ("models/a", 2, 4),
            Some(false),
            "the change at 4 hides whether it changed at 3",
        ),
        (4, 6, ("models/a", 2, 4), None, "changed at 4"),
        (5, 6, ("models/a", 2, 4), None, "changed at 4, before 5"),
        (
            4,
            3,
            ("models/a", 0, 2),
            Some(false),
            "revision 4 may make the item usable",
        ),
        (3, 6, ("models/b", 3, 6), Some(true), "the version of 3 is in use"),
        (
            5,
            6,
            ("models/b", 0, 6),
            Some(false),
            "the item may have been usable at 3",
        ),
        (5, 6, ("models/new", 0, 7), Some(true), "the item did not exist at 5"),
    ];
    for (revision, at, (name, used, wanted_at), expected, why) in rows {
        for cause in [Refused, CredentialPending] {
            let mut set = set(&history, wanted(revision));
            let a = router("a");
            join(&mut set, &a);
            let report = Report {
                held: vec![held(name, used, wanted_at, cause)],
                held_total: 1,
                ..applied(&history, at)
            };
            set.report(&a, &report);
            let verdict = match set.verdict() {
                WaitVerdict::InForce(_) => Some(true),
                WaitVerdict::Waiting => Some(false),
                WaitVerdict::Refused(_) => None,
            };
            // Only an item that does not become usable by itself fails a wait at once.
            let expected = if cause == Refused {
                expected
            } else {
                Some(expected == Some(true))
            };
            assert_eq!(verdict, expected, "{why}, {cause:?}");
        }
    }
}

#[test]
fn a_change_after_the_wait_began_blocks_nothing() {
    let history = History::new();
    history.commit([("models/a", 1)]);
    history.commit([("models/b", 1)]);
    let mut set = set(&history, wanted(0));
    history.commit([("models/a", 1)]);
    let a = router("a");
    join(&mut set, &a);
    let report = Report {
        held: vec![held("models/a", 1, 3, HeldKind::Refused)],
        held_total: 1,
        ..applied(&history, 3)
    };
    set.report(&a, &report);
    assert_eq!(names(&set), ["a"]);
}

#[test]
fn a_refusal_names_router_and_item_and_ends_when_the_item_is_usable() {
    let history = changes();
    let mut set = set(&history, wanted(4));
    let a = router("a");
    join(&mut set, &a);
    let refused = held("models/a", 2, 4, HeldKind::CapabilityMissing);
    let report = Report {
        held: vec![refused.clone()],
        held_total: 1,
        ..applied(&history, 4)
    };
    set.report(&a, &report);
    let expected = Refused {
        router: a.0.clone(),
        held: refused,
    };
    assert_eq!(set.verdict(), WaitVerdict::Refused(vec![expected]));
    set.report(&a, &applied(&history, 4));
    assert_eq!(names(&set), ["a"]);
}

#[test]
fn a_held_item_that_is_not_listed_blocks() {
    let history = changes();
    let mut set = set(&history, wanted(4));
    let a = router("a");
    join(&mut set, &a);
    let report = Report {
        held_total: 1,
        ..applied(&history, 6)
    };
    set.report(&a, &report);
    assert_eq!(missing(&set).1, 1);
}

#[test]
fn only_a_revision_of_this_history_can_be_waited_for() {
    let history = History::with_revisions(3);
    let other = AwaitedRevision {
        incarnation: Some(IncarnationId::random()),
        ..wanted(9)
    };
    let present = history.state().items.incarnation();
    assert_eq!(
        Set::new(other, history.state()).unwrap_err(),
        WaitError::OtherIncarnation { present }
    );
    let future = Set::new(wanted(4), history.state()).unwrap_err();
    assert!(matches!(future, WaitError::InFuture { newest, .. } if newest.get() == 3));
    let same = AwaitedRevision {
        incarnation: Some(present.id),
        ..wanted(3)
    };
    assert!(Set::new(same, history.state()).is_ok());
}

#[test]
fn only_the_first_routers_are_named_and_all_are_counted() {
    let history = History::with_revisions(3);
    let mut set = set(&history, wanted(3));
    for number in 0..ROUTERS_MAX + 30 {
        let key = router(&format!("r{number:05}"));
        join(&mut set, &key);
        set.lose(&key);
    }
    let (named, count) = missing(&set);
    assert_eq!((named.len(), count), (NAMED_MAX, ROUTERS_MAX + 30));
    assert_eq!(named[0], "r00000");
    assert!(set.routers.len() <= ROUTERS_MAX, "the set is bounded");
}
