use proptest::prelude::*;
use switchboard::{
    pb::registry::{self, watch_response::Kind},
    stream::{SnapshotWhy, WithheldWhy},
};

use super::*;
use crate::{
    feed::welcome,
    testing::{History, Mirror, decoded},
};

const VIEW: View = View::Router;

/// A stream with its own position that shares the messages of `shelf` with others.
struct Stream {
    follower: Follower,
    mirror: Mirror,
    now: Instant,
}

impl Stream {
    fn open(history: &History, mirror: &Mirror) -> Self {
        let resume = mirror.at().map_or(Resume::Nothing, Resume::At);
        Self {
            follower: welcomed(
                history,
                resume,
                welcome::for_router(resume, false, &history.state().items),
            ),
            mirror: Mirror::resumed(mirror),
            now: Instant::now(),
        }
    }

    fn next(&mut self, history: &History, shelf: &Shelf) -> FollowerStep {
        let next = self.follower.next(&history.state(), shelf, self.now);
        if let FollowerStep::Message(bytes) = &next {
            self.mirror.take(decoded(bytes));
        }
        next
    }

    /// Reads until the follower is up to date.
    fn rest(&mut self, history: &History, shelf: &Shelf) -> Vec<Kind> {
        let mut contents = Vec::new();
        loop {
            match self.next(history, shelf) {
                FollowerStep::Message(bytes) => contents.push(decoded(&bytes)),
                FollowerStep::Nothing => return contents,
                other => panic!("{other:?}"),
            }
        }
    }
}

fn resumed(history: &History, revision: i64) -> Follower {
    let at = history.cursor_at(revision, VIEW);
    let mode = welcome::for_router(Resume::At(at), false, &history.state().items);
    assert_eq!(mode, WelcomeMode::Resumed);
    welcomed(history, Resume::At(at), mode)
}

/// Creates a follower that sent `resume` and was answered with `mode`.
fn welcomed(history: &History, resume: Resume, mode: WelcomeMode) -> Follower {
    let items = &history.state().items;
    let welcome = Welcome {
        head: items.cursor(VIEW),
        oldest_resumable: items.oldest_resumable(),
        heartbeat: Welcome::HEARTBEAT_DEFAULT,
        mode,
    };
    Follower::new(VIEW, resume, &welcome)
}

/// Returns everything that is sent until the follower is up to date.
fn contents(follower: &mut Follower, history: &History) -> Vec<Kind> {
    let (shelf, now) = (Shelf::default(), Instant::now());
    let state = history.state();
    let messages = std::iter::from_fn(|| match follower.next(&state, &shelf, now) {
        FollowerStep::Message(bytes) => Some(decoded(&bytes)),
        _ => None,
    });
    messages.collect()
}

fn only_delta(contents: &[Kind]) -> &registry::Delta {
    let [Kind::Delta(delta)] = contents else {
        panic!("{contents:?}")
    };
    delta
}

#[test]
fn a_snapshot_shows_one_state_even_if_a_newer_one_is_published() {
    let history = History::with_revisions(1);
    let old = history.state();
    let shelf = Shelf::default();
    let mut stream = Stream::open(&history, &Mirror::default());
    stream.next(&history, &shelf);
    history.commit([("models/b", 1)]);
    for _ in 0..2 {
        stream.next(&history, &shelf);
    }
    stream.mirror.assert_equals(&old, VIEW);
    stream.rest(&history, &shelf);
    stream.mirror.assert_equals(&history.state(), VIEW);
}

#[test]
fn many_revisions_are_merged_into_one_delta() {
    let history = History::with_revisions(1);
    let mut follower = resumed(&history, 1);
    assert!(contents(&mut follower, &history).is_empty());
    for _ in 0..10 {
        history.commit([("models/a", 1), ("models/b", 1)]);
    }
    history.delete(["models/b"]);
    let contents = contents(&mut follower, &history);
    let delta = only_delta(&contents);
    assert_eq!((delta.from_revision, delta.to.as_ref().unwrap().revision), (1, 12));
    assert_eq!((delta.upserts.len(), delta.part, delta.more), (1, 0, false));
    let gone = registry::Tombstone {
        name: "models/b".to_owned(),
        revision: 12,
    };
    assert_eq!(delta.deletes, [gone]);
    assert_eq!(follower.at(), Some(history.cursor_at(12, VIEW)));
}

#[test]
fn a_name_that_was_deleted_and_created_again_is_sent_as_a_new_resource() {
    let history = History::with_revisions(1);
    let mut follower = resumed(&history, 1);
    history.delete(["models/a"]);
    history.commit([("models/a", 1)]);
    let contents = contents(&mut follower, &history);
    let delta = only_delta(&contents);
    assert_eq!(delta.deletes, []);
    assert_eq!((delta.upserts[0].create_revision, delta.upserts[0].revision), (3, 3));
}

#[test]
fn a_revision_without_changes_is_an_empty_delta() {
    let history = History::with_revisions(1);
    let mut follower = resumed(&history, 1);
    history.commit([]);
    let contents = contents(&mut follower, &history);
    let delta = only_delta(&contents);
    assert!(delta.upserts.is_empty() && delta.deletes.is_empty() && !delta.more);
    assert_eq!(delta.to.as_ref().unwrap().revision, 2);
}

#[test]
fn a_delta_carries_the_newest_trace_context() {
    let history = History::with_revisions(1);
    let mut follower = resumed(&history, 1);
    history.commit([("models/b", 1)]);
    let mut traced = (*history.state()).clone();
    traced.traceparent = Some("00-1-2-01".into());
    let (shelf, now) = (Shelf::default(), Instant::now());
    let FollowerStep::Message(bytes) = follower.next(&Arc::new(traced), &shelf, now) else {
        panic!("a change must arrive as a delta")
    };
    assert_eq!(only_delta(&[decoded(&bytes)]).traceparent, "00-1-2-01");
}

#[test]
fn a_follower_at_the_floor_continues_and_one_below_it_is_lost() {
    let history = History::with_revisions(3);
    history.delete(["models/a"]);
    let (mut below, mut at) = (resumed(&history, 2), resumed(&history, 3));
    history.commit([("models/b", 1)]);
    history.compact(3);
    let (shelf, now, state) = (Shelf::default(), Instant::now(), history.state());
    assert!(matches!(below.next(&state, &shelf, now), FollowerStep::Lost));
    let contents = contents(&mut at, &history);
    let delta = only_delta(&contents);
    assert_eq!((delta.upserts.len(), delta.deletes.len()), (1, 1));

    let cursor = below.at().unwrap();
    let mode = welcome::for_router(Resume::At(cursor), false, &state.items);
    assert_eq!(mode, WelcomeMode::Snapshot(SnapshotWhy::Compacted));
}

#[test]
fn followers_at_the_same_cursor_get_the_same_bytes() {
    let history = History::with_revisions(1);
    let shelf = Shelf::default();
    let mut streams: Vec<_> = (0..3).map(|_| Stream::open(&history, &Mirror::default())).collect();
    let large: Vec<String> = (0..4).map(|id| format!("models/{id}")).collect();
    // A snapshot, a delta of one message, a delta of several.
    for changes in [
        vec![],
        vec![("models/b", 10)],
        large.iter().map(|name| (&**name, 60_000)).collect(),
    ] {
        if !changes.is_empty() {
            history.commit(changes);
        }
        let mut read = streams.iter_mut().map(|stream| {
            let messages = std::iter::from_fn(|| match stream.next(&history, &shelf) {
                FollowerStep::Message(bytes) => Some(bytes.as_ptr()),
                _ => None,
            });
            messages.collect::<Vec<_>>()
        });
        let first = read.next().unwrap();
        assert!(!first.is_empty());
        assert!(read.all(|other| other == first));
    }
}

#[test]
fn a_bookmark_carries_the_last_cursor_that_was_sent_completely() {
    let history = History::with_revisions(1);
    let state = history.state();
    let mark = |follower: &mut Follower| match follower.bookmark(&state, true) {
        Frame::Bookmark(bookmark) => bookmark,
        other => panic!("{other:?}"),
    };
    let at = history.cursor_at(1, VIEW);
    let shelf = Shelf::default();
    let mut stream = Stream::open(&history, &Mirror::default());
    assert_eq!(mark(&mut stream.follower).at, None);
    for _ in 0..2 {
        stream.next(&history, &shelf);
        assert_eq!(mark(&mut stream.follower).at, None);
    }
    stream.next(&history, &shelf);
    let bookmark = mark(&mut stream.follower);
    assert_eq!((bookmark.at, bookmark.probe, bookmark.stalled), (Some(at), 4, true));
    assert_eq!(mark(&mut resumed(&history, 1)).at, Some(at));
}

#[test]
fn a_withheld_stream_gets_no_configuration() {
    let history = History::with_revisions(1);
    let mut follower = welcomed(&history, Resume::Nothing, WelcomeMode::Withheld(WithheldWhy::Ahead));
    assert!(contents(&mut follower, &history).is_empty());
    history.commit([("models/b", 1)]);
    assert!(contents(&mut follower, &history).is_empty());
}

#[derive(Debug, Clone)]
enum Step {
    /// Writes each model by its number, with a value of this many bytes, or deletes it (`None`).
    Write(Vec<(u8, Option<usize>)>),
    /// Forgets the oldest revisions, up to this fraction of the kept ones.
    Compact(prop::sample::Index),
    /// Polls one of the streams this many times.
    Poll(usize, u8),
    Bookmark(usize),
    /// Breaks the stream. The follower reconnects with its last cursor.
    Resume(usize),
    /// The follower reconnects with the content that it had at some earlier time.
    ResumeFromBackup(usize, prop::sample::Index),
    Pass(u8),
}

const STREAMS: usize = 3;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let value = prop_oneof![
        2 => (0..100_usize).prop_map(Some),
        2 => (20_000..80_000_usize).prop_map(Some),
        2 => Just(None),
    ];
    let change = (0..8_u8, value);
    let index = any::<prop::sample::Index>;
    let step = prop_oneof![
        6 => prop::collection::vec(change, 0..5).prop_map(Step::Write),
        1 => index().prop_map(Step::Compact),
        8 => (0..STREAMS, 1..6_u8).prop_map(|(stream, times)| Step::Poll(stream, times)),
        1 => (0..STREAMS).prop_map(Step::Bookmark),
        1 => (0..STREAMS).prop_map(Step::Resume),
        1 => (0..STREAMS, index()).prop_map(|(stream, backup)| Step::ResumeFromBackup(stream, backup)),
        1 => (1..8_u8).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..80)
}

/// Several streams of one feed, over a history that is written and compacted.
struct Play {
    history: History,
    shelf: Shelf,
    streams: Vec<Stream>,
    backups: Vec<Mirror>,
    now: Instant,
}

impl Play {
    fn new() -> Self {
        let history = History::with_revisions(1);
        let streams = (0..STREAMS).map(|_| Stream::open(&history, &Mirror::default()));
        Self {
            streams: streams.collect(),
            history,
            shelf: Shelf::default(),
            backups: vec![Mirror::default()],
            now: Instant::now(),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write(changes) => {
                let changes: std::collections::BTreeMap<_, _> = changes.into_iter().collect();
                let named: Vec<_> = changes
                    .into_iter()
                    .map(|(id, bytes)| (format!("models/{id}"), bytes))
                    .collect();
                self.history.write(named.iter().map(|(name, bytes)| (&**name, *bytes)));
            }
            Step::Compact(part) => {
                let items = &self.history.state().items;
                let (oldest, newest) = (items.oldest_resumable().get(), items.revision().get());
                let kept = usize::try_from(newest - oldest + 1).unwrap();
                self.history.compact(oldest + i64::try_from(part.index(kept)).unwrap());
            }
            Step::Poll(stream, times) => (0..times).for_each(|_| {
                self.poll(stream);
            }),
            Step::Bookmark(stream) => {
                let Stream { follower, mirror, .. } = &mut self.streams[stream];
                let frame = follower.bookmark(&self.history.state(), false);
                // During a snapshot that replaces the follower's content, the follower has no complete state.
                if mirror.is_loading() || matches!(follower.phase, Phase::SnapshotOwed(_)) {
                    assert!(matches!(frame, Frame::Bookmark(Bookmark { at: None, .. })));
                } else {
                    mirror.apply(&frame);
                }
            }
            Step::Resume(stream) => self.resume(stream),
            Step::ResumeFromBackup(stream, backup) => {
                self.streams[stream].mirror = backup.get(&self.backups).clone();
                self.resume(stream);
            }
            Step::Pass(seconds) => self.now += std::time::Duration::from_secs(seconds.into()),
        }
    }

    /// Returns whether the stream may have more to send.
    fn poll(&mut self, stream: usize) -> bool {
        let stream_at = &mut self.streams[stream];
        stream_at.now = self.now;
        match stream_at.next(&self.history, &self.shelf) {
            FollowerStep::Message(_) | FollowerStep::Turn => true,
            FollowerStep::Nothing => false,
            FollowerStep::Later(until) => {
                self.now = self.now.max(until);
                true
            }
            FollowerStep::Lost => {
                self.resume(stream);
                true
            }
        }
    }

    fn resume(&mut self, stream: usize) {
        let mirror = Mirror::resumed(&self.streams[stream].mirror);
        self.streams[stream] = Stream::open(&self.history, &mirror);
        self.backups.push(mirror);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_follower_always_ends_with_the_content_of_the_registry(steps in steps()) {
        let mut play = Play::new();
        for step in steps {
            play.step(step);
        }
        for stream in 0..STREAMS {
            while play.poll(stream) {}
            play.streams[stream].mirror.assert_equals(&play.history.state(), VIEW);
        }
    }
}
