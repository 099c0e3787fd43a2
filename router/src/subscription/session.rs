//! The protocol of the change stream as a router speaks it: what each message means, and when to give up on a stream.
//!
//! Pure: time is an argument, counted from any fixed moment, and random numbers come from a seed. What is received only
//! ever moves forward, from one proved state to the next; the judgement is the router's own, whatever the registry says.

mod backoff;
mod guard;
mod message;
mod scratch;

use std::{sync::Arc, time::Duration};

use switchboard::{history::Cursor, names::Revision};

use self::scratch::{DeltaScratch, SnapshotScratch};
use super::received::Received;

pub(crate) use self::backoff::Backoff;
pub use self::{
    guard::{HistoryRefusal, RefusalWhy},
    message::{Bookmark, Delta, Goodbye, Message, Mode, SnapshotBegin, SnapshotPart, Welcome},
};

/// How long a stream may take from the dial to its welcome.
pub const OPENING_MAX: Duration = Duration::from_secs(10);
/// How often bookmarks come where the registry has not said it.
pub const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(15);

const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);
const MISMATCH_MAX: Duration = Duration::from_secs(60);
/// No registry sends its routers away for longer.
const GOODBYE_MAX: Duration = Duration::from_secs(300);

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// The time of [`Session::wake_at`] has come. Harmless when it has not.
    Timer,
    /// The stream brought a message.
    Message(Message),
    /// The stream brought something that cannot be read.
    Unreadable,
    /// The stream ended, or could not be opened.
    Ended(End),
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With OK.
    Ok,
    /// With an error, or the connection broke.
    Failed,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Open a stream to an address, with this hello.
    Dial {
        /// Which address, counted from 0.
        address: usize,
        /// What has been received whole.
        resume: Option<Cursor>,
        /// Whether a snapshot is wanted all the same.
        want_snapshot: bool,
    },
    /// The registry has answered: for the logs.
    Opened(Mode),
    /// Compile and use this state.
    Install(Arc<Received>),
    /// The delta up to this revision had come before: for the logs.
    Repeated(Revision),
    /// End the stream, once the newest report is on its way.
    Close(Closed),
}

/// Why the router ended a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// The registry said goodbye.
    #[error("the registry said goodbye")]
    Goodbye,
    /// The registry has not answered in time.
    #[error("the registry did not answer")]
    Opening,
    /// Nothing has come for 2.5 heartbeats.
    #[error("the registry fell silent")]
    Silent,
    /// What came does not go on from what was received.
    #[error("a change is missing from the stream")]
    Gap,
    /// A snapshot or a delta did not have the digest that it claimed.
    #[error("the state does not have the digest that the registry claimed")]
    Mismatch,
    /// A message that is unreadable or not due.
    #[error("the registry broke the rules of the stream")]
    Protocol,
    /// This registry's history is refused, and there are others to ask.
    #[error("the registry's history is refused")]
    Refused,
}

/// What the router has to report of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// What has been received whole.
    pub received: Option<Cursor>,
    /// The history that is refused.
    pub refusal: Option<HistoryRefusal>,
    /// `probe` of the newest bookmark.
    pub probe: i64,
    /// How often a report is due.
    pub heartbeat: Duration,
}

#[derive(Debug)]
enum State {
    Down { until: Duration },
    Opening { until: Duration },
    Loading(Option<SnapshotScratch>),
    Following(Option<DeltaScratch>),
    Withheld { until: Option<Duration> },
}

/// The state machine.
#[derive(Debug)]
pub struct Session {
    addresses: usize,
    next_address: usize,
    state: State,
    received: Option<Arc<Received>>,
    want_snapshot: bool,
    refusal: Option<HistoryRefusal>,
    probe: i64,
    heartbeat: Duration,
    heard: Duration,
    /// Whether the stream that is open has brought a bookmark.
    is_proven: bool,
    retry: Backoff,
    /// Grows with each wrong digest in a row: a snapshot is costly for both sides.
    mismatch: Backoff,
    random: fastrand::Rng,
}

/// What a message leads to: the actions, or why the stream is closed.
type Verdict = Result<Vec<Action>, Closed>;

impl Session {
    /// A session that has received nothing and dials at once. `addresses`: how many registries there are, one at least.
    #[must_use]
    pub fn new(addresses: usize, seed: u64) -> Self {
        Self {
            addresses: addresses.max(1),
            next_address: 0,
            state: State::Down { until: Duration::ZERO },
            received: None,
            want_snapshot: false,
            refusal: None,
            probe: 0,
            heartbeat: HEARTBEAT_DEFAULT,
            heard: Duration::ZERO,
            is_proven: false,
            retry: Backoff::new(RETRY_MIN, RETRY_MAX),
            mismatch: Backoff::new(RETRY_MIN, MISMATCH_MAX),
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// Takes in what happened at `now` and says what to do, in order.
    ///
    /// After [`Action::Close`], and after [`Event::Ended`], no event of that stream may follow.
    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Action> {
        match event {
            Event::Timer => self.on_timer(now),
            Event::Ended(end) => {
                let wait = match end {
                    End::Ok if self.is_proven => Duration::ZERO,
                    End::Ok | End::Failed => self.retry.next(&mut self.random),
                };
                self.go_down(now + wait);
                Vec::new()
            }
            Event::Unreadable => self.close(now, Closed::Protocol),
            Event::Message(message) => {
                self.heard = now;
                match self.on_message(now, message) {
                    Ok(actions) => actions,
                    Err(why) => self.close(now, why),
                }
            }
        }
    }

    /// When [`Event::Timer`] is due.
    #[must_use]
    pub fn wake_at(&self) -> Duration {
        match self.state {
            State::Down { until } | State::Opening { until } => until,
            State::Loading(_) | State::Following(_) => self.silent_at(),
            State::Withheld { until } => until.map_or_else(|| self.silent_at(), |until| until.min(self.silent_at())),
        }
    }

    /// What the router has to report.
    #[must_use]
    pub fn standing(&self) -> Standing {
        Standing {
            received: self.cursor().copied(),
            refusal: self.refusal,
            probe: self.probe,
            heartbeat: self.heartbeat,
        }
    }

    /// What has been received whole.
    #[must_use]
    pub const fn received(&self) -> Option<&Arc<Received>> {
        self.received.as_ref()
    }

    fn on_timer(&mut self, now: Duration) -> Vec<Action> {
        match self.state {
            _ if now < self.wake_at() => Vec::new(),
            State::Down { .. } => {
                let address = self.next_address % self.addresses;
                self.next_address = address + 1;
                self.is_proven = false;
                self.state = State::Opening {
                    until: now + OPENING_MAX,
                };
                vec![Action::Dial {
                    address,
                    resume: self.cursor().copied(),
                    want_snapshot: self.want_snapshot,
                }]
            }
            State::Opening { .. } => self.close(now, Closed::Opening),
            State::Withheld { until: Some(until) } if until <= now => self.close(now, Closed::Refused),
            State::Loading(_) | State::Following(_) | State::Withheld { .. } => self.close(now, Closed::Silent),
        }
    }

    fn on_message(&mut self, now: Duration, message: Message) -> Verdict {
        match (&mut self.state, message) {
            (State::Down { .. }, _) => Err(Closed::Protocol),
            (_, Message::Goodbye(goodbye)) => {
                let spread = backoff::up_to(goodbye.spread.min(GOODBYE_MAX), &mut self.random);
                self.go_down(now + goodbye.min_wait.min(GOODBYE_MAX) + spread);
                Ok(vec![Action::Close(Closed::Goodbye)])
            }
            (State::Opening { .. }, Message::Welcome(welcome)) => self.on_welcome(now, &welcome),
            (State::Loading(scratch @ None), Message::SnapshotBegin(begin)) => {
                *scratch = Some(SnapshotScratch::new(&begin));
                Ok(Vec::new())
            }
            (State::Loading(Some(scratch)), Message::SnapshotPart(part)) => {
                scratch.add(part).map_err(|_gap| Closed::Gap)?;
                Ok(Vec::new())
            }
            (State::Loading(scratch @ Some(_)), Message::SnapshotEnd(at)) => {
                let scratch = scratch.take();
                scratch.map_or(Err(Closed::Protocol), |scratch| self.on_snapshot(now, scratch, &at))
            }
            (State::Following(_), Message::Delta(delta)) => self.on_delta(delta),
            (State::Loading(_) | State::Withheld { .. }, Message::Bookmark(bookmark)) => {
                Ok(self.on_bookmark(&bookmark))
            }
            (State::Following(_), Message::Bookmark(bookmark)) => {
                if bookmark.at.as_ref() == self.cursor() {
                    Ok(self.on_bookmark(&bookmark))
                } else {
                    Err(Closed::Gap)
                }
            }
            // The registry may hold its history to be good and send it: the refusal is to be reported, so it is let pass.
            (
                State::Withheld { .. },
                Message::SnapshotBegin(_) | Message::SnapshotPart(_) | Message::SnapshotEnd(_) | Message::Delta(_),
            ) => Ok(Vec::new()),
            (
                State::Opening { .. } | State::Loading(_) | State::Following(_) | State::Withheld { .. },
                Message::Welcome(_)
                | Message::SnapshotBegin(_)
                | Message::SnapshotPart(_)
                | Message::SnapshotEnd(_)
                | Message::Delta(_)
                | Message::Bookmark(_),
            ) => Err(Closed::Protocol),
        }
    }

    fn on_welcome(&mut self, now: Duration, welcome: &Welcome) -> Verdict {
        self.heartbeat = welcome.heartbeat;
        let opened = Action::Opened(welcome.mode);
        if let Err(why) = guard::judge(self.cursor(), &welcome.head) {
            self.withhold(now, why, welcome.head);
            return Ok(vec![opened]);
        }
        let state = match (welcome.mode, self.cursor()) {
            (Mode::Withheld { other_store }, _) => {
                let why = if other_store {
                    RefusalWhy::StoreChanged
                } else {
                    RefusalWhy::RevisionRegressed
                };
                self.withhold(now, why, welcome.head);
                return Ok(vec![opened]);
            }
            (Mode::Resumed, Some(own)) if own.incarnation == welcome.head.incarnation => State::Following(None),
            (Mode::Resumed, _) => return Err(Closed::Protocol),
            (Mode::Snapshot { is_fork: false }, Some(own)) if own.incarnation != welcome.head.incarnation => {
                return Err(Closed::Protocol);
            }
            (Mode::Snapshot { .. }, _) => State::Loading(None),
        };
        self.state = state;
        // A wrong digest stays reported until a right one has come.
        self.refusal = self.refusal.filter(|refusal| refusal.why == RefusalWhy::StateMismatch);
        Ok(vec![opened])
    }

    fn on_snapshot(&mut self, now: Duration, scratch: SnapshotScratch, at: &Cursor) -> Verdict {
        if scratch.at() != at {
            return Err(Closed::Protocol);
        }
        if let Err(why) = guard::judge(self.cursor(), at) {
            self.withhold(now, why, *at);
            return Ok(Vec::new());
        }
        match scratch.finish() {
            Ok(received) => Ok(self.install(Arc::new(received))),
            Err(_mismatch) => Err(self.mismatch(*at)),
        }
    }

    fn on_delta(&mut self, delta: Delta) -> Verdict {
        let (State::Following(scratch), Some(received)) = (&mut self.state, &mut self.received) else {
            return Err(Closed::Protocol);
        };
        let (own, to) = (*received.cursor(), delta.to);
        if to.store != own.store || to.incarnation != own.incarnation {
            return Err(Closed::Protocol);
        }
        if to.revision <= own.revision {
            return Ok(vec![Action::Repeated(to.revision)]);
        }
        if delta.from != own.revision {
            return Err(Closed::Gap);
        }
        let more = delta.more;
        let traceparent = delta.traceparent.clone();
        scratch
            .get_or_insert_with(|| DeltaScratch::new(to))
            .add(delta)
            .map_err(|_gap| Closed::Gap)?;
        if more {
            return Ok(Vec::new());
        }
        let upserts = scratch.take().map(DeltaScratch::finish).unwrap_or_default();
        // Shares all with the state that may still be compiling, but for what changes.
        let changed = Arc::make_mut(received);
        if changed.apply(to, upserts).is_err() {
            return Err(self.mismatch(to));
        }
        changed.traceparent = traceparent;
        let received = Arc::clone(received);
        Ok(self.install(received))
    }

    fn on_bookmark(&mut self, bookmark: &Bookmark) -> Vec<Action> {
        self.probe = bookmark.probe;
        self.is_proven = true;
        self.retry.reset();
        Vec::new()
    }

    fn install(&mut self, received: Arc<Received>) -> Vec<Action> {
        self.received = Some(Arc::clone(&received));
        self.state = State::Following(None);
        self.refusal = None;
        self.want_snapshot = false;
        self.mismatch.reset();
        vec![Action::Install(received)]
    }

    fn mismatch(&mut self, offered: Cursor) -> Closed {
        self.want_snapshot = true;
        self.refusal = Some(HistoryRefusal {
            why: RefusalWhy::StateMismatch,
            offered,
        });
        Closed::Mismatch
    }

    fn withhold(&mut self, now: Duration, why: RefusalWhy, offered: Cursor) {
        self.refusal = Some(HistoryRefusal { why, offered });
        let until = (self.addresses > 1).then(|| now + self.heartbeat);
        self.state = State::Withheld { until };
    }

    fn close(&mut self, now: Duration, why: Closed) -> Vec<Action> {
        let backoff = match why {
            Closed::Mismatch => &mut self.mismatch,
            Closed::Goodbye | Closed::Opening | Closed::Silent | Closed::Gap | Closed::Protocol | Closed::Refused => {
                &mut self.retry
            }
        };
        let wait = backoff.next(&mut self.random);
        self.go_down(now + wait);
        vec![Action::Close(why)]
    }

    fn go_down(&mut self, until: Duration) {
        self.state = State::Down { until };
    }

    fn silent_at(&self) -> Duration {
        self.heard + self.heartbeat.mul_f64(2.5)
    }

    fn cursor(&self) -> Option<&Cursor> {
        self.received.as_ref().map(|received| received.cursor())
    }
}

#[cfg(test)]
mod tests;
