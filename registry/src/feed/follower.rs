//! A follower of the change stream, as a cursor: given the newest state it says which message comes next.
//!
//! Pure. A follower owes nobody a queue: however slowly it is polled, it goes from where it is to the newest state by one
//! merged delta. What it holds is constant: a cursor and, while a snapshot or a delta of several messages is under way, a
//! claim to messages that it shares with others and that may be gone when it comes too late.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use switchboard::{
    history::{Cursor, Incarnation, View},
    names::Revision,
    stream::{Bookmark, Resume, Welcome, WelcomeMode},
};
use tokio::time::Instant;

use super::{
    frame::Frame,
    run::Run,
    shelf::{Share, Shelf},
};
use crate::domain::state::State;

/// How far one stream is.
#[derive(Debug)]
pub struct Follower {
    view: View,
    /// The life of the store that it was welcomed to.
    life: Incarnation,
    phase: Phase,
    probe: i64,
}

#[derive(Debug)]
enum Phase {
    /// It gets no configuration.
    Withheld,
    /// A snapshot is owed that has not begun, of this revision or a later one.
    SnapshotOwed(Revision),
    /// Everything up to here was sent.
    Following(Cursor),
    /// The same, and what comes next has to wait for its turn.
    DeltaOwed(Cursor),
    /// A snapshot (from nowhere) or a delta of several messages is under way.
    UnderWay {
        run: Weak<Run>,
        from: Option<Cursor>,
        next: usize,
    },
}

/// What comes next.
#[derive(Debug)]
pub enum FollowerStep {
    /// This message.
    Message(Bytes),
    /// Nothing: everything up to the newest state was sent, or none is to be sent at all.
    Nothing,
    /// Nothing before it has its turn: [`Follower::owes_run`] holds from now on.
    Turn,
    /// Others are served first: to be asked for again at this time.
    Later(Instant),
    /// What it was being sent, or what it needs next, is no longer kept.
    Lost,
}

impl Follower {
    /// A follower of `view` that came with `resume` and was welcomed so.
    #[must_use]
    pub fn new(view: View, resume: Resume, welcome: &Welcome) -> Self {
        let phase = match welcome.mode {
            WelcomeMode::Resumed => Phase::Following(resume.cursor().copied().unwrap_or(welcome.head)),
            WelcomeMode::Snapshot(_) => Phase::SnapshotOwed(welcome.head.revision),
            WelcomeMode::Withheld(_) => Phase::Withheld,
        };
        Self {
            view,
            life: welcome.head.incarnation,
            phase,
            probe: 0,
        }
    }

    /// Whether another life of the store has begun, in which it cannot go on.
    #[must_use]
    pub fn is_left_by(&self, newest: &State) -> bool {
        newest.items.incarnation() != self.life
    }

    /// Whether something is to begin that takes a [`Start`](super::shelf::Start): a snapshot, or a delta where many are.
    #[must_use]
    pub const fn owes_run(&self) -> bool {
        matches!(self.phase, Phase::SnapshotOwed(_) | Phase::DeltaOwed(_))
    }

    /// Whether several messages belong together of which some are still to come.
    #[must_use]
    pub const fn is_under_way(&self) -> bool {
        matches!(self.phase, Phase::UnderWay { .. })
    }

    /// What comes next, shared with others by `shelf`.
    ///
    /// `newest` never goes backwards from call to call.
    pub fn next(&mut self, newest: &Arc<State>, shelf: &Shelf, now: Instant) -> FollowerStep {
        let share = match self.phase {
            Phase::Withheld => return FollowerStep::Nothing,
            Phase::UnderWay { .. } => return self.go_on(),
            Phase::SnapshotOwed(needed) => shelf.snapshot(self.view, needed, newest, now),
            Phase::Following(at) if newest.items.revision() <= at.revision => return FollowerStep::Nothing,
            // The floor and the tombstones above it are of the same state.
            Phase::Following(at) | Phase::DeltaOwed(at) if at.revision < newest.items.oldest_resumable() => {
                return FollowerStep::Lost;
            }
            Phase::Following(at) => {
                let to = newest.items.cursor(self.view);
                debug_assert_eq!(to.incarnation, at.incarnation, "a stream stays within one life");
                shelf.delta(self.view, at.revision, newest, now)
            }
            Phase::DeltaOwed(at) => shelf.crowded_delta(self.view, at.revision, newest, now),
        };
        match share {
            Share::Single(bytes) => {
                self.phase = Phase::Following(newest.items.cursor(self.view));
                FollowerStep::Message(bytes)
            }
            Share::Several(run) => {
                let from = self.at();
                self.phase = Phase::UnderWay { run, from, next: 0 };
                self.go_on()
            }
            Share::Crowded => {
                if let Phase::Following(at) = self.phase {
                    self.phase = Phase::DeltaOwed(at);
                }
                FollowerStep::Turn
            }
            Share::Busy(until) => FollowerStep::Later(until),
        }
    }

    /// The next message of what is under way.
    fn go_on(&mut self) -> FollowerStep {
        let Phase::UnderWay { run, next, .. } = &mut self.phase else {
            return FollowerStep::Nothing;
        };
        let Some(run) = run.upgrade() else {
            return FollowerStep::Lost;
        };
        let Some(message) = run.message(*next) else {
            return FollowerStep::Lost;
        };
        *next += 1;
        if message.is_last {
            self.phase = Phase::Following(run.to());
        }
        FollowerStep::Message(message.bytes)
    }

    /// A sign of life, which may come between any two messages.
    pub fn bookmark(&mut self, newest: &State, stalled: bool) -> Frame {
        self.probe += 1;
        Frame::Bookmark(Bookmark {
            at: self.at(),
            head: newest.items.revision(),
            probe: self.probe,
            stalled,
        })
    }

    /// The failpoint of where it is, while a snapshot or a delta of several messages is under way.
    #[must_use]
    pub const fn failpoint(&self) -> Option<&'static str> {
        match &self.phase {
            Phase::UnderWay { from: None, .. } => Some("feed.mid-snapshot"),
            Phase::UnderWay { from: Some(_), .. } => Some("feed.mid-delta"),
            Phase::Withheld | Phase::SnapshotOwed(_) | Phase::Following(_) | Phase::DeltaOwed(_) => None,
        }
    }

    /// The last cursor sent whole.
    #[must_use]
    pub const fn at(&self) -> Option<Cursor> {
        match &self.phase {
            Phase::Withheld | Phase::SnapshotOwed(_) => None,
            Phase::Following(at) | Phase::DeltaOwed(at) => Some(*at),
            Phase::UnderWay { from, .. } => *from,
        }
    }
}

#[cfg(test)]
mod tests;
