//! A follower of the change stream, as a cursor: given the newest state it says which frame comes next.
//!
//! Pure. A follower owes nobody a queue: however slowly it is polled, it goes from where it is to the newest state by one
//! merged delta. What it holds is constant: a cursor and, while a snapshot or a delta in several parts is under way, the
//! one state that all the parts show.

use std::sync::Arc;

use switchboard::history::{Cursor, View};

use super::{
    frame::{Bookmark, Delta, Frame},
    welcome::Mode,
};
use crate::domain::{items::Item, state::State};

/// The most bytes of one part, unless a single resource is larger.
pub const PART_BYTES_MAX: usize = 64 * 1024;

/// More than the fields around the resources of a part take on the wire.
const PART_OVERHEAD_BYTES: usize = 512;

/// More than the tags, lengths and numbers around the texts of one resource take on the wire.
const ITEM_OVERHEAD_BYTES: usize = 64;

/// How far one stream is.
#[derive(Debug)]
pub struct Follower {
    view: View,
    phase: Phase,
    probe: i64,
}

#[derive(Debug)]
enum Phase {
    /// It gets no configuration.
    Withheld,
    /// A snapshot is owed that has not begun.
    SnapshotOwed,
    /// A snapshot is under way.
    Snapshot(Run),
    /// Everything up to here was sent.
    Following(Cursor),
    /// A delta is under way.
    Delta { from: Cursor, run: Run },
}

/// A snapshot or a delta under way: all its parts show one state.
#[derive(Debug)]
struct Run {
    state: Arc<State>,
    to: Cursor,
    parts: i32,
    items: usize,
}

impl Follower {
    /// A follower that was welcomed with `mode`.
    #[must_use]
    pub const fn new(view: View, mode: Mode) -> Self {
        let phase = match mode {
            Mode::Resumed(at) => Phase::Following(at),
            Mode::Snapshot(_) => Phase::SnapshotOwed,
            Mode::Withheld(_) => Phase::Withheld,
        };
        Self { view, phase, probe: 0 }
    }

    /// The next frame of configuration; `None` when everything up to `newest` was sent, or none is to be sent at all.
    ///
    /// `newest` never goes backwards from call to call.
    pub fn next(&mut self, newest: &Arc<State>) -> Option<Frame> {
        let view = self.view;
        if let Phase::Following(from) = self.phase
            && newest.items.revision() > from.revision
        {
            let run = Run::new(newest, view);
            debug_assert_eq!(run.to.incarnation, from.incarnation, "a stream stays within one life");
            self.phase = Phase::Delta { from, run };
        }
        match &mut self.phase {
            Phase::Withheld | Phase::Following(_) => None,
            Phase::SnapshotOwed => {
                let run = Run::new(newest, view);
                let frame = Frame::SnapshotBegin {
                    at: run.to,
                    resources: newest.items.all(view).count(),
                    bytes: newest.items.all(view).map(|item| item.value.len()).sum(),
                };
                self.phase = Phase::Snapshot(run);
                Some(frame)
            }
            Phase::Snapshot(run) => {
                let state = Arc::clone(&run.state);
                let part = run.take(state.items.all(view));
                if part.items.is_empty() {
                    let at = run.to;
                    self.phase = Phase::Following(at);
                    return Some(Frame::SnapshotEnd { at });
                }
                Some(Frame::SnapshotPart {
                    part: part.number,
                    resources: part.items,
                })
            }
            Phase::Delta { from, run } => {
                let state = Arc::clone(&run.state);
                let part = run.take(state.items.changed_after(view, from.revision));
                let delta = Delta {
                    from: from.revision,
                    to: run.to,
                    upserts: part.items,
                    part: part.number,
                    more: part.more,
                    commit_time: state.items.head().commit_time,
                    traceparent: state.traceparent.clone(),
                };
                if !delta.more {
                    self.phase = Phase::Following(delta.to);
                }
                Some(Frame::Delta(delta))
            }
        }
    }

    /// A sign of life, which may come between any two frames.
    pub fn bookmark(&mut self, newest: &State, stalled: bool) -> Frame {
        self.probe += 1;
        Frame::Bookmark(Bookmark {
            at: self.at(),
            head: newest.items.revision(),
            probe: self.probe,
            stalled,
        })
    }

    /// The last cursor sent whole.
    const fn at(&self) -> Option<Cursor> {
        match &self.phase {
            Phase::Withheld | Phase::SnapshotOwed | Phase::Snapshot(_) => None,
            Phase::Following(at) | Phase::Delta { from: at, .. } => Some(*at),
        }
    }
}

/// What [`Run::take`] takes.
struct Part {
    number: i32,
    items: Vec<Arc<Item>>,
    more: bool,
}

impl Run {
    fn new(state: &Arc<State>, view: View) -> Self {
        Self {
            state: Arc::clone(state),
            to: state.items.cursor(view),
            parts: 0,
            items: 0,
        }
    }

    /// The next part of `all`, which must be the same items in the same order at each call.
    fn take<'a>(&mut self, all: impl Iterator<Item = &'a Arc<Item>>) -> Part {
        let mut rest = all.skip(self.items).peekable();
        let mut items = Vec::new();
        let mut bytes = PART_OVERHEAD_BYTES;
        while let Some(item) = rest.next_if(|item| items.is_empty() || bytes + weight(item) <= PART_BYTES_MAX) {
            bytes += weight(item);
            items.push(Arc::clone(item));
        }
        let part = Part {
            number: self.parts,
            more: rest.peek().is_some(),
            items,
        };
        self.parts += 1;
        self.items += part.items.len();
        part
    }
}

/// No fewer bytes than the item takes on the wire.
fn weight(item: &Item) -> usize {
    item.key.len() + item.type_url.len() + item.value.len() + ITEM_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::feed::{
        testing::{History, Mirror},
        welcome::{self, Resume, SnapshotWhy, WithheldWhy},
    };

    const FIRST: Mode = Mode::Snapshot(SnapshotWhy::First);

    fn rest(follower: &mut Follower, state: &Arc<State>) -> Vec<Frame> {
        std::iter::from_fn(|| follower.next(state)).collect()
    }

    #[test]
    fn a_snapshot_shows_one_state_although_the_head_moves() {
        let history = History::with_revisions(1);
        let old = history.state();
        let mut follower = Follower::new(View::Router, FIRST);
        let mut mirror = Mirror::default();
        mirror.apply(&follower.next(&old).unwrap());
        history.commit([("models/b", 1)]);
        for _ in 0..2 {
            mirror.apply(&follower.next(&history.state()).unwrap());
        }
        mirror.assert_equals(&old, View::Router);
        for frame in rest(&mut follower, &history.state()) {
            mirror.apply(&frame);
        }
        mirror.assert_equals(&history.state(), View::Router);
    }

    #[test]
    fn many_revisions_come_as_one_delta_and_then_nothing() {
        let history = History::with_revisions(1);
        let at = history.cursor_at(1, View::Router);
        let mut follower = Follower::new(View::Router, Mode::Resumed(at));
        assert!(follower.next(&history.state()).is_none());
        for _ in 0..10 {
            history.commit([("models/a", 1), ("models/b", 1)]);
        }
        let frames = rest(&mut follower, &history.state());
        let [Frame::Delta(delta)] = &frames[..] else {
            panic!("{frames:?}")
        };
        assert_eq!((delta.from.get(), delta.to.revision.get()), (1, 11));
        assert_eq!((delta.upserts.len(), delta.part, delta.more), (2, 0, false));
    }

    #[test]
    fn a_revision_without_changes_is_an_empty_delta() {
        let history = History::with_revisions(1);
        let at = history.cursor_at(1, View::Router);
        let mut follower = Follower::new(View::Router, Mode::Resumed(at));
        history.commit([]);
        let frames = rest(&mut follower, &history.state());
        let [Frame::Delta(delta)] = &frames[..] else {
            panic!("{frames:?}")
        };
        assert!(delta.upserts.is_empty() && !delta.more);
        assert_eq!(delta.to.revision.get(), 2);
    }

    #[test]
    fn a_part_is_small_unless_one_resource_is_large() {
        let history = History::new();
        history.commit([
            ("models/a", 40_000),
            ("models/b", 40_000),
            ("models/c", 200_000),
            ("models/d", 1_000),
            ("models/e", 1_000),
        ]);
        let sizes = |frames: &[Frame]| -> Vec<usize> {
            let parts = frames.iter().filter_map(|frame| match frame {
                Frame::SnapshotPart { resources, .. } => Some(resources.len()),
                Frame::Delta(delta) => Some(delta.upserts.len()),
                _ => None,
            });
            parts.collect()
        };
        let state = history.state();
        let snapshot = rest(&mut Follower::new(View::Router, FIRST), &state);
        assert_eq!(sizes(&snapshot), [1, 1, 1, 2]);
        let Some(Frame::SnapshotBegin { resources, bytes, .. }) = snapshot.first() else {
            panic!("{snapshot:?}")
        };
        assert_eq!((*resources, *bytes), (5, 282_000));

        let before = Cursor {
            revision: switchboard::names::Revision::ZERO,
            ..state.items.cursor(View::Router)
        };
        let delta = rest(&mut Follower::new(View::Router, Mode::Resumed(before)), &state);
        assert_eq!(sizes(&delta), [1, 1, 1, 2]);
    }

    #[test]
    fn a_bookmark_names_what_was_sent_whole() {
        let history = History::with_revisions(1);
        let state = history.state();
        let mark = |follower: &mut Follower| match follower.bookmark(&state, true) {
            Frame::Bookmark(bookmark) => bookmark,
            other => panic!("{other:?}"),
        };
        let at = history.cursor_at(1, View::Router);
        let mut follower = Follower::new(View::Router, FIRST);
        assert_eq!(mark(&mut follower).at, None);
        follower.next(&state);
        follower.next(&state);
        assert_eq!(mark(&mut follower).at, None);
        follower.next(&state);
        let bookmark = mark(&mut follower);
        assert_eq!((bookmark.at, bookmark.probe, bookmark.stalled), (Some(at), 3, true));
        assert_eq!(mark(&mut Follower::new(View::Router, Mode::Resumed(at))).at, Some(at));
    }

    #[test]
    fn a_withheld_stream_gets_no_configuration() {
        let history = History::with_revisions(1);
        let mut follower = Follower::new(View::Router, Mode::Withheld(WithheldWhy::Ahead));
        assert!(follower.next(&history.state()).is_none());
        history.commit([("models/b", 1)]);
        assert!(follower.next(&history.state()).is_none());
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// Each model by its number, with a value of so many bytes.
        Commit(Vec<(u8, usize)>),
        Poll(u8),
        Bookmark,
        /// The stream breaks and the follower comes back with its last cursor.
        Resume,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let change = (0..8_u8, prop_oneof![0..100_usize, 20_000..80_000_usize]);
        let step = prop_oneof![
            3 => prop::collection::vec(change, 0..4).prop_map(Step::Commit),
            4 => (1..6_u8).prop_map(Step::Poll),
            1 => Just(Step::Bookmark),
            1 => Just(Step::Resume),
        ];
        prop::collection::vec(step, 1..60)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_follower_always_ends_with_what_the_registry_has(steps in steps()) {
            let history = History::with_revisions(1);
            let view = View::Router;
            let mut follower = Follower::new(view, FIRST);
            let mut mirror = Mirror::default();
            for step in steps {
                match step {
                    Step::Commit(changes) => {
                        let changes: std::collections::BTreeMap<_, _> = changes.into_iter().collect();
                        let named: Vec<_> =
                            changes.into_iter().map(|(id, bytes)| (format!("models/{id}"), bytes)).collect();
                        history.commit(named.iter().map(|(name, bytes)| (&**name, *bytes)));
                    }
                    Step::Poll(times) => {
                        for _ in 0..times {
                            if let Some(frame) = follower.next(&history.state()) {
                                mirror.apply(&frame);
                            }
                        }
                    }
                    Step::Bookmark => mirror.apply(&follower.bookmark(&history.state(), false)),
                    Step::Resume => {
                        let resume = mirror.at().map_or(Resume::Nothing, Resume::At);
                        let state = history.state();
                        let mode = welcome::for_router(resume, false, &state.items).mode;
                        prop_assert_eq!(mode, mirror.at().map_or(FIRST, Mode::Resumed));
                        follower = Follower::new(view, mode);
                        mirror = Mirror::resumed(&mirror);
                    }
                }
            }
            for frame in rest(&mut follower, &history.state()) {
                mirror.apply(&frame);
            }
            mirror.assert_equals(&history.state(), view);
        }
    }
}
