//! Property tests: whatever a registry sends, the received state is one that existed, and never older than the state
//! before it.

use proptest::prelude::*;

use super::*;
use crate::subscription::resource::Resource;

/// One action of the registry or the network.
#[derive(Debug, Clone)]
enum Act {
    /// The store changes a model.
    Write(u8),
    /// A name is deleted, whether or not it exists.
    Delete(u8),
    /// The registry forgets the history before the newest revision, so it has no deltas from there.
    Compact,
    /// A new incarnation of the store begins.
    Restore,
    /// From now on the registry serves another state of the history, the newest or an older one.
    Serve(prop::sample::Index),
    /// The next correct message of the stream, with at most this many resources.
    Honest(usize),
    /// The next message, spoilt.
    Spoilt(Spoil),
    /// The last message is sent again.
    Again,
    /// The next message is lost.
    Lose,
    /// The stream breaks.
    Cut,
    /// The clock advances until the timer is due.
    Wait,
}

#[derive(Debug, Clone, Copy)]
enum Spoil {
    DropResource,
    DropDelete,
    TwinResource,
    OtherBytes,
    OtherState,
    LaterRevision,
}

fn act() -> impl Strategy<Value = Act> {
    let spoil = prop::sample::select(vec![
        Spoil::DropResource,
        Spoil::DropDelete,
        Spoil::TwinResource,
        Spoil::OtherBytes,
        Spoil::OtherState,
        Spoil::LaterRevision,
    ]);
    prop_oneof![
        4 => (0_u8..6).prop_map(Act::Write),
        3 => (0_u8..6).prop_map(Act::Delete),
        1 => Just(Act::Compact),
        1 => Just(Act::Restore),
        1 => any::<prop::sample::Index>().prop_map(Act::Serve),
        30 => (1_usize..4).prop_map(Act::Honest),
        3 => spoil.prop_map(Act::Spoilt),
        2 => Just(Act::Again),
        1 => Just(Act::Lose),
        2 => Just(Act::Cut),
        6 => Just(Act::Wait),
    ]
}

/// A registry that serves one of the states of a history and follows the contract.
struct Registry {
    history: Vec<Store>,
    served: usize,
    floor: Revision,
    /// The messages still to be sent on the open stream. `at` is the cursor after them.
    queue: Vec<StreamMessage>,
    at: Option<Cursor>,
    last: Option<StreamMessage>,
}

impl Registry {
    fn new() -> Self {
        Self {
            history: vec![store()],
            served: 0,
            floor: Revision::ZERO,
            queue: Vec::new(),
            at: None,
            last: None,
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut Store)) {
        let mut next = self.history.last().unwrap().clone();
        change(&mut next);
        self.history.push(next);
        self.served = self.history.len() - 1;
    }

    fn open(&mut self, resume: Option<Cursor>, want_snapshot: bool) {
        let store = &self.history[self.served];
        let is_known = |cursor: &Cursor| {
            cursor.incarnation == store.cursor.incarnation
                && (self.floor..=store.cursor.revision).contains(&cursor.revision)
        };
        let mode = match resume {
            Some(cursor) if is_known(&cursor) && !want_snapshot => WelcomeMode::Resumed,
            // This registry even sends an older history as a snapshot, so the router has to verify the history by
            // itself.
            Some(cursor) if cursor.incarnation != store.cursor.incarnation => FORK,
            Some(_) => FIRST,
            None => FIRST,
        };
        self.at = resume.filter(|_| mode == WelcomeMode::Resumed);
        self.queue = vec![StreamMessage::Welcome(Welcome {
            head: store.cursor,
            oldest_resumable: Revision::ZERO,
            heartbeat: HEARTBEAT,
            mode,
        })];
    }

    /// Returns the next message, with at most `most` resources.
    fn next(&mut self, most: usize) -> StreamMessage {
        if self.queue.is_empty() {
            self.queue = self.more(most);
            self.queue.reverse();
        }
        let message = self.queue.pop().unwrap();
        self.last = Some(message.clone());
        message
    }

    fn more(&mut self, most: usize) -> Vec<StreamMessage> {
        let store = &self.history[self.served];
        let to = store.cursor;
        let parts = |resources: Vec<_>| -> Vec<Vec<_>> {
            let parts: Vec<_> = resources.chunks(most).map(<[_]>::to_vec).collect();
            if parts.is_empty() { vec![Vec::new()] } else { parts }
        };
        match self.at {
            None => {
                let resources = store.all();
                let begin = StreamMessage::SnapshotBegin(SnapshotBegin {
                    at: to,
                    resources: resources.len(),
                    bytes: 0,
                });
                let parts = parts(resources).into_iter().zip(0..);
                let parts =
                    parts.map(|(resources, part)| StreamMessage::SnapshotPart(SnapshotPart { part, resources }));
                self.at = Some(to);
                [begin]
                    .into_iter()
                    .chain(parts)
                    .chain([StreamMessage::SnapshotEnd(to)])
                    .collect()
            }
            Some(from) if from.incarnation == to.incarnation && from.revision < to.revision => {
                let parts = parts(store.changed_after(from.revision));
                let last = parts.len() - 1;
                let mut deletes = store.deleted_after(from.revision);
                self.at = Some(to);
                let deltas = parts.into_iter().enumerate().map(|(place, upserts)| {
                    StreamMessage::Delta(Delta {
                        from: from.revision,
                        to,
                        upserts,
                        deletes: std::mem::take(&mut deletes),
                        part: u32::try_from(place).unwrap(),
                        more: place < last,
                        commit_time: None,
                        traceparent: None,
                    })
                });
                deltas.collect()
            }
            at => vec![StreamMessage::Bookmark(Bookmark {
                at,
                head: to.revision,
                probe: 1,
                stalled: false,
            })],
        }
    }
}

fn spoil(message: &mut StreamMessage, spoil: Spoil) {
    if let StreamMessage::Delta(Delta { to: cursor, .. })
    | StreamMessage::SnapshotBegin(SnapshotBegin { at: cursor, .. })
    | StreamMessage::SnapshotEnd(cursor)
    | StreamMessage::Welcome(Welcome { head: cursor, .. }) = message
    {
        match spoil {
            Spoil::OtherState => {
                let resource = store().all().remove(0);
                cursor.state = cursor.state.plus(resource.digest);
            }
            Spoil::LaterRevision => cursor.revision = cursor.revision.next(),
            Spoil::DropResource | Spoil::DropDelete | Spoil::TwinResource | Spoil::OtherBytes => {}
        }
    }
    if let StreamMessage::Delta(Delta { deletes, .. }) = message
        && matches!(spoil, Spoil::DropDelete)
    {
        deletes.pop();
    }
    if let StreamMessage::Delta(Delta { upserts: resources, .. })
    | StreamMessage::SnapshotPart(SnapshotPart { resources, .. }) = message
        && let Some(last) = resources.pop()
    {
        match spoil {
            Spoil::DropResource => {}
            Spoil::TwinResource => resources.extend([last.clone(), last]),
            Spoil::OtherBytes => {
                let mut raw = last.raw;
                raw.value = [&raw.value[..], b"x"].concat().into();
                resources.push(Resource::new(raw, last.content));
            }
            Spoil::DropDelete | Spoil::OtherState | Spoil::LaterRevision => resources.push(last),
        }
    }
}

/// Plays a script and checks the state after each step.
struct Play {
    registry: Registry,
    case: Case,
    is_open: bool,
    installed: Option<Cursor>,
}

impl Play {
    fn act(&mut self, act: Act) {
        let event = match act {
            Act::Write(place) => {
                let name = format!("models/m{place}");
                self.registry.change(|store| store.write(vec![(&name, model(|_| ()))]));
                return;
            }
            Act::Delete(place) => {
                let name = format!("models/m{place}");
                self.registry.change(|store| store.delete(&[&name]));
                return;
            }
            Act::Compact => {
                self.registry.floor = self.registry.history.last().unwrap().cursor.revision;
                return;
            }
            Act::Restore => return self.registry.change(Store::restore),
            Act::Serve(index) => {
                self.registry.served = index.index(self.registry.history.len());
                return;
            }
            Act::Wait => {
                self.case.wait();
                SessionEvent::Timer
            }
            Act::Honest(_) | Act::Spoilt(_) | Act::Again | Act::Lose | Act::Cut if !self.is_open => return,
            Act::Honest(most) => SessionEvent::Message(self.registry.next(most)),
            Act::Spoilt(how) => {
                let mut message = self.registry.next(9);
                spoil(&mut message, how);
                SessionEvent::Message(message)
            }
            Act::Again => match self.registry.last.clone() {
                Some(message) => SessionEvent::Message(message),
                None => return,
            },
            Act::Lose => {
                self.registry.next(9);
                return;
            }
            Act::Cut => {
                self.is_open = false;
                SessionEvent::Ended(End::Failed)
            }
        };
        for action in self.case.step(event) {
            match action {
                Action::Dial {
                    resume, want_snapshot, ..
                } => {
                    assert_eq!(
                        resume, self.installed,
                        "the router should resume from the state that was installed last"
                    );
                    self.registry.last = None;
                    self.registry.open(resume, want_snapshot);
                    self.is_open = true;
                }
                Action::Close(_) => self.is_open = false,
                Action::Install(received) => self.check(&received),
                Action::Opened(_) | Action::Repeated(_) | Action::Check(_) | Action::Stalled(_) | Action::Unstalled => {
                }
            }
        }
    }

    fn check(&mut self, received: &Received) {
        let cursor = *received.cursor();
        let history = &self.registry.history;
        let original = history
            .iter()
            .find(|store| store.cursor.state == cursor.state)
            .expect("an installed state should be one of the history");
        assert_eq!(received.resources(), original.received().resources());
        if let Some(before) = self.installed {
            let place = |cursor: &Cursor| (cursor.incarnation.number, cursor.revision);
            assert!(place(&before) <= place(&cursor), "{before:?} then {cursor:?}");
        }
        self.installed = Some(cursor);
        assert_eq!(self.case.received(), self.installed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_received_state_existed_and_is_never_older_than_the_last(script in prop::collection::vec(act(), 1..120)) {
        let mut play = Play { registry: Registry::new(), case: Case::new(1), is_open: false, installed: None };
        for act in script {
            play.act(act);
        }
    }

    #[test]
    fn a_router_catches_up_once_the_registry_sends_correct_messages(script in prop::collection::vec(act(), 1..60)) {
        let mut play = Play { registry: Registry::new(), case: Case::new(1), is_open: false, installed: None };
        let honest = script.into_iter().filter(|act| !matches!(act, Act::Spoilt(Spoil::LaterRevision)));
        for act in honest {
            play.act(act);
        }
        // A registry that serves another state than before must have been restarted.
        play.act(Act::Cut);
        play.registry.served = play.registry.history.len() - 1;
        let head = play.registry.history.last().unwrap().cursor;
        for _ in 0..50 {
            if play.case.received() == Some(head) {
                return Ok(());
            }
            if !play.is_open {
                play.act(Act::Wait);
            }
            play.act(Act::Honest(3));
        }
        prop_assert_eq!(play.case.received(), Some(head));
    }
}
