//! Tests of the protocol, rule by rule; [`property`] plays whole histories.

mod deltas;
mod property;

use switchboard::{
    names::{CheckId, ModelName, Revision, StoreId},
    stream::{CheckRequest, CheckTarget, Deleted, Goodbye, SnapshotBegin, SnapshotPart},
};

use super::*;
use crate::subscription::fixture::{Store, assigned, incarnation, model, revision};

const FIRST: WelcomeMode = WelcomeMode::Snapshot(SnapshotWhy::First);
const FORK: WelcomeMode = WelcomeMode::Snapshot(SnapshotWhy::Fork);

const HEARTBEAT: Duration = Duration::from_secs(4);
const SECOND: Duration = Duration::from_secs(1);

fn store() -> Store {
    let mut store = Store::new();
    store.write(vec![
        ("models/a", model(|_| ())),
        ("features/duo_chat", assigned("models/a")),
    ]);
    store
}

fn welcome(head: &Cursor, mode: WelcomeMode) -> SessionEvent {
    SessionEvent::Message(StreamMessage::Welcome(Welcome {
        head: *head,
        oldest_resumable: Revision::ZERO,
        heartbeat: HEARTBEAT,
        mode,
    }))
}

fn snapshot_of(store: &Store) -> Vec<SessionEvent> {
    let at = store.cursor;
    let resources = store.all();
    [
        StreamMessage::SnapshotBegin(SnapshotBegin {
            at,
            resources: resources.len(),
            bytes: 0,
        }),
        StreamMessage::SnapshotPart(SnapshotPart { part: 0, resources }),
        StreamMessage::SnapshotEnd(at),
    ]
    .map(SessionEvent::Message)
    .into()
}

fn delta(from: &Cursor, to: &Store) -> Delta<Resource> {
    Delta {
        from: from.revision,
        to: to.cursor,
        upserts: to.changed_after(from.revision),
        deletes: to.deleted_after(from.revision),
        part: 0,
        more: false,
        commit_time: None,
        traceparent: None,
    }
}

fn bookmark(at: Option<Cursor>, probe: i64) -> SessionEvent {
    stalled(at, probe, false)
}

fn stalled(at: Option<Cursor>, probe: i64, stalled: bool) -> SessionEvent {
    SessionEvent::Message(StreamMessage::Bookmark(Bookmark {
        at,
        head: at.map_or(Revision::ZERO, |at| at.revision),
        probe,
        stalled,
    }))
}

/// A session and its clock.
struct Case {
    session: Session,
    now: Duration,
}

impl Case {
    fn new(addresses: usize) -> Self {
        Self {
            session: Session::new(addresses, 7),
            now: Duration::ZERO,
        }
    }

    /// A session that follows `store` and has received a bookmark.
    fn following(store: &Store) -> Self {
        let mut case = Self::new(1);
        case.dial();
        case.step(welcome(&store.cursor, FIRST));
        case.all(snapshot_of(store));
        assert_eq!(case.step(bookmark(Some(store.cursor), 1)), []);
        assert_eq!(case.received(), Some(store.cursor));
        case
    }

    fn step(&mut self, event: SessionEvent) -> Vec<Action> {
        self.session.step(self.now, event)
    }

    fn all(&mut self, events: Vec<SessionEvent>) -> Vec<Action> {
        events.into_iter().flat_map(|event| self.step(event)).collect()
    }

    /// Advances the clock until the timer is due.
    fn wait(&mut self) -> Duration {
        let waited = self.session.wake_at().saturating_sub(self.now);
        self.now += waited;
        waited
    }

    fn dial(&mut self) -> Action {
        self.wait();
        let mut actions = self.step(SessionEvent::Timer);
        assert_eq!(actions.len(), 1);
        let action = actions.remove(0);
        assert!(matches!(action, Action::Dial { .. }), "{action:?}");
        action
    }

    fn received(&self) -> Option<Cursor> {
        self.session.standing().received
    }

    fn refusal(&self) -> Option<HistoryRefusalWhy> {
        self.session.standing().refusal.map(|refusal| refusal.why)
    }
}

fn closed(why: Closed) -> Vec<Action> {
    vec![Action::Close(why)]
}

#[test]
fn the_first_snapshot_is_installed_when_it_is_complete() {
    let store = store();
    let mut case = Case::new(1);
    let hello = case.dial();
    assert_eq!(
        hello,
        Action::Dial {
            address: 0,
            resume: None,
            want_snapshot: false
        }
    );
    let mode = FIRST;
    assert_eq!(case.step(welcome(&store.cursor, mode)), [Action::Opened(mode)]);
    let mut events = snapshot_of(&store);
    let end = events.pop().unwrap();
    assert_eq!(case.all(events), []);
    assert_eq!(
        case.step(bookmark(None, 5)),
        [],
        "a bookmark within a snapshot is allowed"
    );
    assert_eq!(case.session.standing().probe, 5);
    assert_eq!(case.received(), None);
    assert_eq!(case.step(end), [Action::Install(Arc::new(store.received()))]);
}

#[test]
fn a_delta_changes_the_state_and_a_repeated_one_does_not() {
    let mut store = store();
    let mut case = Case::following(&store);
    let from = store.cursor;
    store.write(vec![("models/b", model(|_| ()))]);
    let change = delta(&from, &store);
    let repeated = SessionEvent::Message(StreamMessage::Delta(change.clone()));
    assert_eq!(
        case.step(SessionEvent::Message(StreamMessage::Delta(change))),
        [Action::Install(Arc::new(store.received()))]
    );
    assert_eq!(case.step(repeated), [Action::Repeated(store.cursor.revision)]);
    assert_eq!(case.received(), Some(store.cursor));
}

#[test]
fn the_parts_of_a_delta_are_applied_together() {
    let mut store = store();
    let mut case = Case::following(&store);
    let from = store.cursor;
    store.write(vec![("models/b", model(|_| ())), ("models/c", model(|_| ()))]);
    let whole = delta(&from, &store);
    let part = |part: u32, more| {
        SessionEvent::Message(StreamMessage::Delta(Delta {
            upserts: vec![whole.upserts[part as usize].clone()],
            part,
            more,
            ..whole.clone()
        }))
    };
    assert_eq!(case.step(part(0, true)), []);
    assert_eq!(case.step(bookmark(Some(from), 2)), []);
    assert_eq!(case.received(), Some(from));
    assert_eq!(case.step(part(1, false)), [Action::Install(Arc::new(store.received()))]);

    let mut case = Case::following(&self::store());
    assert_eq!(
        case.step(part(1, false)),
        closed(Closed::Gap),
        "the first part is missing"
    );
}

#[test]
fn a_message_that_does_not_follow_the_received_state_is_not_applied() {
    let mut store = store();
    let start = store.clone();
    store.write(vec![("models/b", model(|_| ()))]);
    let skipped = store.cursor;
    store.write(vec![("models/c", model(|_| ()))]);
    let other_life = {
        let mut store = store.clone();
        store.restore();
        store
    };
    for (event, why) in [
        (
            SessionEvent::Message(StreamMessage::Delta(delta(&skipped, &store))),
            Closed::Gap,
        ),
        (bookmark(Some(store.cursor), 1), Closed::Gap),
        (bookmark(None, 1), Closed::Gap),
        (
            SessionEvent::Message(StreamMessage::Delta(delta(&start.cursor, &other_life))),
            Closed::Protocol,
        ),
        (welcome(&start.cursor, FIRST), Closed::Protocol),
        (
            SessionEvent::Message(StreamMessage::SnapshotEnd(start.cursor)),
            Closed::Protocol,
        ),
        (SessionEvent::Unreadable, Closed::Protocol),
    ] {
        let mut case = Case::following(&start);
        assert_eq!(case.step(event), closed(why));
        assert_eq!(case.received(), Some(start.cursor));
        assert_eq!(
            case.dial(),
            Action::Dial {
                address: 0,
                resume: Some(start.cursor),
                want_snapshot: false
            }
        );
    }
}

#[test]
fn a_wrong_digest_is_reported_until_a_correct_snapshot_arrives() {
    let mut store = store();
    let mut case = Case::following(&store);
    let from = store.cursor;
    store.write(vec![("models/b", model(|_| ()))]);
    let mut wrong = delta(&from, &store);
    wrong.upserts.clear();
    assert_eq!(
        case.step(SessionEvent::Message(StreamMessage::Delta(wrong))),
        closed(Closed::Mismatch)
    );
    assert_eq!(case.received(), Some(from), "the last good state is kept");
    assert_eq!(case.refusal(), Some(HistoryRefusalWhy::StateMismatch));
    assert_eq!(
        case.dial(),
        Action::Dial {
            address: 0,
            resume: Some(from),
            want_snapshot: true
        }
    );
    case.step(welcome(&store.cursor, FIRST));
    assert_eq!(case.refusal(), Some(HistoryRefusalWhy::StateMismatch));
    case.all(snapshot_of(&store));
    assert_eq!(case.refusal(), None);
    assert_eq!(case.received(), Some(store.cursor));
    case.step(SessionEvent::Ended(End::Failed));
    assert!(matches!(
        case.dial(),
        Action::Dial {
            want_snapshot: false,
            ..
        }
    ));
}

#[test]
fn a_snapshot_that_does_not_match_its_announcement_is_refused() {
    let store = store();
    let spoilt: [fn(&mut Vec<SessionEvent>); 4] = [
        |events| {
            let SessionEvent::Message(StreamMessage::SnapshotBegin(begin)) = &mut events[0] else {
                panic!("the first event should begin the snapshot");
            };
            begin.resources += 1;
        },
        |events| {
            let SessionEvent::Message(StreamMessage::SnapshotPart(part)) = &mut events[1] else {
                panic!("the second event should be a part");
            };
            part.resources[0] = part.resources[1].clone();
        },
        |events| {
            let SessionEvent::Message(StreamMessage::SnapshotPart(part)) = &mut events[1] else {
                panic!("the second event should be a part");
            };
            let mut raw = part.resources[0].raw.clone();
            raw.value = "another".into();
            let content = part.resources[0].content.clone();
            part.resources[0] = Resource::new(raw, content);
        },
        |events| {
            events.remove(1);
        },
    ];
    for (row, spoil) in spoilt.into_iter().enumerate() {
        let mut case = Case::new(1);
        case.dial();
        case.step(welcome(&store.cursor, FIRST));
        let mut events = snapshot_of(&store);
        spoil(&mut events);
        assert_eq!(case.all(events), closed(Closed::Mismatch), "row {row}");
        assert_eq!(case.received(), None);
        assert_eq!(case.refusal(), Some(HistoryRefusalWhy::StateMismatch));
    }
}

#[test]
fn the_delay_after_wrong_digests_grows_to_a_minute() {
    let store = store();
    let mut case = Case::new(1);
    let mut longest = Duration::ZERO;
    for _ in 0..60 {
        case.dial();
        case.step(welcome(&store.cursor, FIRST));
        case.step(bookmark(None, 1));
        let mut events = snapshot_of(&store);
        events.remove(1);
        case.all(events);
        longest = longest.max(case.session.wake_at() - case.now);
    }
    assert!(longest > RETRY_MAX && longest <= MISMATCH_MAX, "{longest:?}");
}

#[test]
fn the_router_verifies_a_history_by_itself() {
    let store = store();
    let own = store.cursor;
    let with = |change: fn(&mut Cursor)| {
        let mut offered = own;
        change(&mut offered);
        offered
    };
    let (resumed, snapshot) = (WelcomeMode::Resumed, FIRST);
    let fork = FORK;
    let other_store = with(|c| c.store = StoreId::parse(&"6".repeat(32)).unwrap());
    let regressed = with(|c| c.revision = revision(1));
    let other_life = with(|c| c.incarnation.id = incarnation(9).id);
    let older_life = with(|c| c.incarnation.number = 0);
    for (offered, mode, why) in [
        (other_store, snapshot, HistoryRefusalWhy::StoreChanged),
        (other_store, resumed, HistoryRefusalWhy::StoreChanged),
        (regressed, snapshot, HistoryRefusalWhy::RevisionRegressed),
        (regressed, resumed, HistoryRefusalWhy::RevisionRegressed),
        (other_life, snapshot, HistoryRefusalWhy::RevisionRegressed),
        (older_life, fork, HistoryRefusalWhy::RevisionRegressed),
        (
            own,
            WelcomeMode::Withheld(WithheldWhy::OtherStore),
            HistoryRefusalWhy::StoreChanged,
        ),
        (
            own,
            WelcomeMode::Withheld(WithheldWhy::Ahead),
            HistoryRefusalWhy::RevisionRegressed,
        ),
    ] {
        let mut case = Case::following(&store);
        case.step(SessionEvent::Ended(End::Failed));
        case.dial();
        assert_eq!(case.step(welcome(&offered, mode)), [Action::Opened(mode)]);
        assert_eq!(case.refusal(), Some(why));
        assert_eq!(case.session.standing().refusal.unwrap().offered, Some(offered));
        // The stream stays open for reports, ignores the snapshot, and answers probes.
        case.all(snapshot_of(&store));
        assert_eq!(case.step(bookmark(None, 8)), []);
        assert_eq!(case.session.standing().probe, 8);
        assert_eq!(case.received(), Some(own));
    }
}

#[test]
fn a_new_incarnation_is_accepted_only_as_the_snapshot_of_a_fork() {
    let mut store = store();
    let before = store.clone();
    store.restore();
    let reconnected = || {
        let mut case = Case::following(&before);
        case.step(SessionEvent::Ended(End::Failed));
        case.dial();
        case
    };
    for mode in [WelcomeMode::Resumed, FIRST] {
        assert_eq!(
            reconnected().step(welcome(&store.cursor, mode)),
            closed(Closed::Protocol)
        );
    }
    let mut case = reconnected();
    case.step(welcome(&store.cursor, FORK));
    case.all(snapshot_of(&store));
    assert_eq!(case.received(), Some(store.cursor));
}

#[test]
fn a_snapshot_older_than_its_welcome_is_refused() {
    let mut store = store();
    let old = store.clone();
    store.write(vec![("models/b", model(|_| ()))]);
    let mut case = Case::following(&store);
    case.step(SessionEvent::Ended(End::Failed));
    case.dial();
    case.step(welcome(&store.cursor, FIRST));
    assert_eq!(case.all(snapshot_of(&old)), []);
    assert_eq!(case.refusal(), Some(HistoryRefusalWhy::RevisionRegressed));
    assert_eq!(case.received(), Some(store.cursor));
}

#[test]
fn after_a_refused_history_another_registry_is_tried_after_a_heartbeat() {
    let store = store();
    let withheld = WelcomeMode::Withheld(WithheldWhy::Ahead);
    let mut case = Case::new(2);
    case.dial();
    case.step(welcome(&store.cursor, withheld));
    assert_eq!(case.wait(), HEARTBEAT);
    assert_eq!(case.step(SessionEvent::Timer), closed(Closed::Refused));
    assert!(matches!(case.dial(), Action::Dial { address: 1, .. }));

    let mut alone = Case::new(1);
    alone.dial();
    alone.step(welcome(&store.cursor, withheld));
    assert_eq!(alone.wait(), HEARTBEAT * 5 / 2);
    assert_eq!(alone.step(SessionEvent::Timer), closed(Closed::Silent));
}

#[test]
fn the_stream_to_a_silent_registry_is_closed() {
    let mut case = Case::new(1);
    case.dial();
    assert_eq!(case.wait(), OPENING_MAX);
    assert_eq!(case.step(SessionEvent::Timer), closed(Closed::Opening));

    let store = store();
    let mut case = Case::following(&store);
    case.now += SECOND;
    case.step(bookmark(Some(store.cursor), 2));
    assert_eq!(case.step(SessionEvent::Timer), [], "too early");
    assert_eq!(case.wait(), HEARTBEAT * 5 / 2);
    assert_eq!(case.step(SessionEvent::Timer), closed(Closed::Silent));
}

#[test]
fn a_goodbye_determines_the_delay() {
    let store = store();
    let mut case = Case::following(&store);
    let goodbye = |min_wait, spread| {
        SessionEvent::Message(StreamMessage::Goodbye(Goodbye {
            min_wait,
            spread,
            why: GoodbyeWhy::Rotation,
        }))
    };
    assert_eq!(case.step(goodbye(3 * SECOND, 2 * SECOND)), closed(Closed::Goodbye));
    let waited = case.wait();
    assert!((3 * SECOND..5 * SECOND).contains(&waited), "{waited:?}");

    let mut case = Case::following(&store);
    case.step(goodbye(Duration::MAX, Duration::MAX));
    assert!(case.wait() <= 2 * GOODBYE_MAX);
}

#[test]
fn only_a_bookmark_resets_the_delay() {
    let store = store();
    let mut case = Case::new(3);
    let mut waits = Vec::new();
    for round in 0..40 {
        assert!(matches!(case.dial(), Action::Dial { address, .. } if address == round % 3));
        case.step(welcome(&store.cursor, FIRST));
        // An end with OK does not reset the delay either, because no bookmark was received.
        case.step(SessionEvent::Ended(End::Ok));
        waits.push(case.session.wake_at() - case.now);
    }
    assert!(waits[0] <= RETRY_MIN);
    assert!(waits.iter().all(|wait| *wait <= RETRY_MAX));
    assert!(waits[10..].iter().max() > Some(&(RETRY_MAX / 2)));

    case.dial();
    case.step(welcome(&store.cursor, FIRST));
    case.step(bookmark(None, 1));
    case.step(SessionEvent::Ended(End::Failed));
    assert!(case.session.wake_at() - case.now <= RETRY_MIN);

    case.dial();
    case.step(welcome(&store.cursor, FIRST));
    case.step(bookmark(None, 1));
    case.step(SessionEvent::Ended(End::Ok));
    assert_eq!(case.wait(), Duration::ZERO, "an end with OK is not a failure");
}

#[test]
fn a_stalled_writer_and_its_recovery_are_logged_once() {
    let store = store();
    let at = Some(store.cursor);
    let mut case = Case::following(&store);
    assert_eq!(
        case.step(stalled(at, 2, true)),
        [Action::Stalled(store.cursor.revision)]
    );
    assert_eq!(case.step(stalled(at, 3, true)), []);
    assert_eq!(case.step(stalled(at, 4, false)), [Action::Unstalled]);
    assert_eq!(case.step(stalled(at, 5, false)), []);
}

#[test]
fn the_delay_grows_if_a_registry_sends_only_goodbyes() {
    let mut case = Case::new(1);
    let mut longest = Duration::ZERO;
    for _ in 0..40 {
        case.dial();
        let goodbye = Goodbye {
            min_wait: Duration::ZERO,
            spread: Duration::ZERO,
            why: GoodbyeWhy::TooSlow,
        };
        assert_eq!(
            case.step(SessionEvent::Message(StreamMessage::Goodbye(goodbye))),
            closed(Closed::TooSlow)
        );
        longest = longest.max(case.session.wake_at() - case.now);
    }
    assert!(longest > RETRY_MAX / 2 && longest <= RETRY_MAX, "{longest:?}");
}

#[test]
fn a_check_runs_only_while_the_history_is_followed() {
    let store = store();
    let order = || CheckRequest {
        id: CheckId::random(),
        target: CheckTarget::Registered(ModelName::parse("models/a").unwrap()),
        credential: None,
        timeout: SECOND,
    };
    let asked = |order: &CheckRequest| SessionEvent::Message(StreamMessage::Check(order.clone()));

    let mut case = Case::following(&store);
    let first = order();
    assert_eq!(case.step(asked(&first)), [Action::Check(first)]);

    let mut loading = Case::new(1);
    loading.dial();
    loading.step(welcome(&store.cursor, FIRST));
    let amid = order();
    assert_eq!(loading.step(asked(&amid)), [Action::Check(amid)]);

    let mut withheld = Case::new(1);
    withheld.dial();
    withheld.step(welcome(&store.cursor, WelcomeMode::Withheld(WithheldWhy::OtherStore)));
    assert_eq!(withheld.step(asked(&order())), []);

    let mut opening = Case::new(1);
    opening.dial();
    assert_eq!(opening.step(asked(&order())), [Action::Close(Closed::Protocol)]);
}
