//! The position of a follower in the change stream: for the newest state, it returns the next message.
//!
//! Pure. A follower needs no queue: however slowly it is polled, one merged delta takes it from its position to the
//! newest state. Its memory is constant: a cursor and, during a snapshot or a delta of several messages, a weak
//! reference to shared messages. If the follower is too slow, these may be dropped before it has read them.

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

/// The position of one stream.
#[derive(Debug)]
pub struct Follower {
    view: View,
    /// The life of the store in which the stream began.
    life: Incarnation,
    phase: Phase,
    probe: i64,
}

#[derive(Debug)]
enum Phase {
    /// The follower gets no configuration.
    Withheld,
    /// A snapshot of this revision or a later one has to be sent, and has not begun.
    SnapshotOwed(Revision),
    /// Everything up to this cursor was sent.
    Following(Cursor),
    /// Everything up to this cursor was sent, and the next delta has to wait for its turn.
    DeltaOwed(Cursor),
    /// A snapshot (`from` is `None`) or a delta of several messages is being sent.
    UnderWay {
        run: Weak<Run>,
        from: Option<Cursor>,
        next: usize,
    },
}

/// The next step of a stream.
#[derive(Debug)]
pub enum FollowerStep {
    /// Send this message.
    Message(Bytes),
    /// Send nothing: everything up to the newest state was sent, or the follower gets no configuration.
    Nothing,
    /// Wait for a turn. [`Follower::owes_run`] returns true from now on.
    Turn,
    /// Other followers are served first. Ask again at this time.
    Later(Instant),
    /// The messages that are being sent, or the changes that are needed next, are no longer kept.
    Lost,
}

impl Follower {
    /// Creates a follower of `view` that sent `resume` and received `welcome`.
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

    /// Returns whether another life of the store has begun, in which the stream cannot continue.
    #[must_use]
    pub fn is_left_by(&self, newest: &State) -> bool {
        newest.items.incarnation() != self.life
    }

    /// Returns whether a run has to begin that needs a [`Start`](super::shelf::Start): a snapshot, or a delta while
    /// these are crowded.
    #[must_use]
    pub const fn owes_run(&self) -> bool {
        matches!(self.phase, Phase::SnapshotOwed(_) | Phase::DeltaOwed(_))
    }

    /// Returns whether a run of several messages has begun and is not complete.
    #[must_use]
    pub const fn is_under_way(&self) -> bool {
        matches!(self.phase, Phase::UnderWay { .. })
    }

    /// Returns the next step. Messages are shared with other followers through `shelf`.
    ///
    /// `newest` must never be older than in an earlier call.
    pub fn next(&mut self, newest: &Arc<State>, shelf: &Shelf, now: Instant) -> FollowerStep {
        let share = match self.phase {
            Phase::Withheld => return FollowerStep::Nothing,
            Phase::UnderWay { .. } => return self.go_on(),
            Phase::SnapshotOwed(needed) => shelf.snapshot(self.view, needed, newest, now),
            Phase::Following(at) if newest.items.revision() <= at.revision => return FollowerStep::Nothing,
            // The floor and the tombstones above it must come from the same state.
            Phase::Following(at) | Phase::DeltaOwed(at) if at.revision < newest.items.oldest_resumable() => {
                return FollowerStep::Lost;
            }
            Phase::Following(at) => {
                let to = newest.items.cursor(self.view);
                debug_assert_eq!(to.incarnation, at.incarnation, "a stream belongs to one life");
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

    /// Returns the next message of the current run.
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

    /// Creates a bookmark, a sign of life that may be sent between any two messages.
    pub fn bookmark(&mut self, newest: &State, stalled: bool) -> Frame {
        self.probe += 1;
        Frame::Bookmark(Bookmark {
            at: self.at(),
            head: newest.items.revision(),
            probe: self.probe,
            stalled,
        })
    }

    /// Returns the failpoint for the current position, while a snapshot or a delta of several messages is being sent.
    #[must_use]
    pub const fn failpoint(&self) -> Option<&'static str> {
        match &self.phase {
            Phase::UnderWay { from: None, .. } => Some("feed.mid-snapshot"),
            Phase::UnderWay { from: Some(_), .. } => Some("feed.mid-delta"),
            Phase::Withheld | Phase::SnapshotOwed(_) | Phase::Following(_) | Phase::DeltaOwed(_) => None,
        }
    }

    /// Returns the last cursor up to which everything was sent.
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
