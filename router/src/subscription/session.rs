//! The protocol of the change stream as a router speaks it: what each message means, and when to give up on a stream.
//!
//! Pure: time is an argument, counted from any fixed moment, and random numbers come from a seed. What is received only
//! ever moves forward, from one proved state to the next; the judgement is the router's own, whatever the registry says.

mod backoff;
mod guard;
mod scratch;
mod step;

use std::{sync::Arc, time::Duration};

use switchboard::{
    history::Cursor,
    stream::{
        Bookmark, Delta, GoodbyeWhy, HistoryRefusal, HistoryRefusalWhy, RegistryMessage, SnapshotWhy, Welcome,
        WelcomeMode, WithheldWhy,
    },
};

use self::scratch::{DeltaScratch, SnapshotScratch};
use super::{received::Received, resource::Resource};

pub(crate) use self::backoff::Backoff;
pub use self::step::{Action, Closed, End, SessionEvent};

/// How long a stream may take from the dial to its welcome.
pub const OPENING_MAX: Duration = Duration::from_secs(10);

/// A message of the registry as a router reads it. All cursors are of the routers' view.
pub type StreamMessage = RegistryMessage<Resource>;

const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);
const MISMATCH_MAX: Duration = Duration::from_secs(60);
/// No registry sends its routers away for longer.
const GOODBYE_MAX: Duration = Duration::from_secs(300);

/// What the router has to report of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamStanding {
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
enum SessionState {
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
    state: SessionState,
    received: Option<Arc<Received>>,
    want_snapshot: bool,
    refusal: Option<HistoryRefusal>,
    probe: i64,
    heartbeat: Duration,
    heard: Duration,
    /// Whether the stream that is open has brought a bookmark.
    is_proven: bool,
    /// What the newest bookmark said of the registry's writer.
    is_stalled: bool,
    retry: Backoff,
    /// Grows with each wrong digest in a row: a snapshot is costly for both sides.
    mismatch: Backoff,
    random: fastrand::Rng,
}

/// What a message leads to: the actions, or why the stream is closed.
type Reaction = Result<Vec<Action>, Closed>;

impl Session {
    /// A session that has received nothing and dials at once. `addresses`: how many registries there are, one at least.
    #[must_use]
    pub fn new(addresses: usize, seed: u64) -> Self {
        Self {
            addresses: addresses.max(1),
            next_address: 0,
            state: SessionState::Down { until: Duration::ZERO },
            received: None,
            want_snapshot: false,
            refusal: None,
            probe: 0,
            heartbeat: Welcome::HEARTBEAT_DEFAULT,
            heard: Duration::ZERO,
            is_proven: false,
            is_stalled: false,
            retry: Backoff::new(RETRY_MIN, RETRY_MAX),
            mismatch: Backoff::new(RETRY_MIN, MISMATCH_MAX),
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// Goes on from a state that an earlier session had received.
    #[must_use]
    pub fn going_on_from(mut self, received: Option<Arc<Received>>) -> Self {
        self.received = received;
        self
    }

    /// Takes in what happened at `now` and says what to do, in order.
    ///
    /// After [`Action::Close`], and after [`SessionEvent::Ended`], no event of that stream may follow.
    pub fn step(&mut self, now: Duration, event: SessionEvent) -> Vec<Action> {
        match event {
            SessionEvent::Timer => self.on_timer(now),
            SessionEvent::Ended(end) => {
                let wait = match end {
                    End::Ok if self.is_proven => Duration::ZERO,
                    End::Ok | End::Failed => self.retry.next(&mut self.random),
                };
                self.go_down(now + wait);
                Vec::new()
            }
            SessionEvent::Unreadable => self.close(now, Closed::Protocol),
            SessionEvent::Message(message) => {
                self.heard = now;
                match self.on_message(now, message) {
                    Ok(actions) => actions,
                    Err(why) => self.close(now, why),
                }
            }
        }
    }

    /// When [`SessionEvent::Timer`] is due.
    #[must_use]
    pub fn wake_at(&self) -> Duration {
        match self.state {
            SessionState::Down { until } | SessionState::Opening { until } => until,
            SessionState::Loading(_) | SessionState::Following(_) => self.silent_at(),
            SessionState::Withheld { until } => {
                until.map_or_else(|| self.silent_at(), |until| until.min(self.silent_at()))
            }
        }
    }

    /// What the router has to report.
    #[must_use]
    pub fn standing(&self) -> StreamStanding {
        StreamStanding {
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

    /// Whether the open stream has confirmed what has been received.
    #[must_use]
    pub const fn is_confirmed(&self) -> bool {
        matches!(self.state, SessionState::Following(_)) && self.is_proven
    }

    fn on_timer(&mut self, now: Duration) -> Vec<Action> {
        match self.state {
            _ if now < self.wake_at() => Vec::new(),
            SessionState::Down { .. } => {
                let address = self.next_address % self.addresses;
                self.next_address = address + 1;
                self.is_proven = false;
                self.state = SessionState::Opening {
                    until: now + OPENING_MAX,
                };
                vec![Action::Dial {
                    address,
                    resume: self.cursor().copied(),
                    want_snapshot: self.want_snapshot,
                }]
            }
            SessionState::Opening { .. } => self.close(now, Closed::Opening),
            SessionState::Withheld { until: Some(until) } if until <= now => self.close(now, Closed::Refused),
            SessionState::Loading(_) | SessionState::Following(_) | SessionState::Withheld { .. } => {
                self.close(now, Closed::Silent)
            }
        }
    }

    fn on_message(&mut self, now: Duration, message: StreamMessage) -> Reaction {
        match (&mut self.state, message) {
            (SessionState::Down { .. }, _) => Err(Closed::Protocol),
            (_, StreamMessage::Goodbye(goodbye)) => {
                let spread = backoff::up_to(goodbye.spread.min(GOODBYE_MAX), &mut self.random);
                let mut wait = goodbye.min_wait.min(GOODBYE_MAX) + spread;
                if !self.is_proven {
                    // Else a registry that says nothing but goodbye would be asked without end.
                    wait = wait.max(self.retry.next(&mut self.random));
                }
                self.go_down(now + wait);
                Ok(vec![Action::Close(match goodbye.why {
                    GoodbyeWhy::TooSlow => Closed::TooSlow,
                    GoodbyeWhy::Moved => Closed::Moved,
                    GoodbyeWhy::Rotation | GoodbyeWhy::Drain | GoodbyeWhy::Unknown => Closed::Goodbye,
                })])
            }
            (SessionState::Opening { .. }, StreamMessage::Welcome(welcome)) => self.on_welcome(now, &welcome),
            (SessionState::Loading(scratch @ None), StreamMessage::SnapshotBegin(begin)) => {
                *scratch = Some(SnapshotScratch::new(&begin));
                Ok(Vec::new())
            }
            (SessionState::Loading(Some(scratch)), StreamMessage::SnapshotPart(part)) => {
                scratch.add(part).map_err(|_gap| Closed::Gap)?;
                Ok(Vec::new())
            }
            (SessionState::Loading(scratch @ Some(_)), StreamMessage::SnapshotEnd(at)) => {
                let scratch = scratch.take();
                scratch.map_or(Err(Closed::Protocol), |scratch| self.on_snapshot(now, scratch, &at))
            }
            (SessionState::Following(_), StreamMessage::Delta(delta)) => self.on_delta(delta),
            (SessionState::Loading(_) | SessionState::Withheld { .. }, StreamMessage::Bookmark(bookmark)) => {
                Ok(self.on_bookmark(&bookmark))
            }
            (SessionState::Following(_), StreamMessage::Bookmark(bookmark)) => {
                if bookmark.at.as_ref() == self.cursor() {
                    Ok(self.on_bookmark(&bookmark))
                } else {
                    Err(Closed::Gap)
                }
            }
            // Who has an older state still tells what it finds by that.
            (SessionState::Loading(_) | SessionState::Following(_), StreamMessage::Check(request)) => {
                Ok(vec![Action::Check(request)])
            }
            // No API token is taken from a registry whose history is refused.
            (SessionState::Withheld { .. }, StreamMessage::Check(_)) => Ok(Vec::new()),
            // The registry may hold its history to be good and send it: the refusal is to be reported, so it is let pass.
            (
                SessionState::Withheld { .. },
                StreamMessage::SnapshotBegin(_)
                | StreamMessage::SnapshotPart(_)
                | StreamMessage::SnapshotEnd(_)
                | StreamMessage::Delta(_),
            ) => Ok(Vec::new()),
            (
                SessionState::Opening { .. }
                | SessionState::Loading(_)
                | SessionState::Following(_)
                | SessionState::Withheld { .. },
                StreamMessage::Welcome(_)
                | StreamMessage::SnapshotBegin(_)
                | StreamMessage::SnapshotPart(_)
                | StreamMessage::SnapshotEnd(_)
                | StreamMessage::Delta(_)
                | StreamMessage::Bookmark(_)
                | StreamMessage::Check(_),
            ) => Err(Closed::Protocol),
        }
    }

    fn on_welcome(&mut self, now: Duration, welcome: &Welcome) -> Reaction {
        self.heartbeat = welcome.heartbeat;
        let opened = Action::Opened(welcome.mode);
        if let Err(why) = guard::judge(self.cursor(), &welcome.head) {
            self.withhold(now, why, welcome.head);
            return Ok(vec![opened]);
        }
        let state = match (welcome.mode, self.cursor()) {
            (WelcomeMode::Withheld(why), _) => {
                let why = match why {
                    WithheldWhy::OtherStore => HistoryRefusalWhy::StoreChanged,
                    WithheldWhy::StaleHistory | WithheldWhy::Ahead | WithheldWhy::Diverged | WithheldWhy::Unknown => {
                        HistoryRefusalWhy::RevisionRegressed
                    }
                };
                self.withhold(now, why, welcome.head);
                return Ok(vec![opened]);
            }
            (WelcomeMode::Resumed, Some(own)) if own.incarnation == welcome.head.incarnation => {
                SessionState::Following(None)
            }
            (WelcomeMode::Resumed, _) => return Err(Closed::Protocol),
            (WelcomeMode::Snapshot(why), Some(own))
                if why != SnapshotWhy::Fork && own.incarnation != welcome.head.incarnation =>
            {
                return Err(Closed::Protocol);
            }
            (WelcomeMode::Snapshot(_), _) => SessionState::Loading(None),
        };
        self.state = state;
        // A wrong digest stays reported until a right one has come.
        self.refusal = self
            .refusal
            .filter(|refusal| refusal.why == HistoryRefusalWhy::StateMismatch);
        Ok(vec![opened])
    }

    fn on_snapshot(&mut self, now: Duration, scratch: SnapshotScratch, at: &Cursor) -> Reaction {
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

    fn on_delta(&mut self, delta: Delta<Resource>) -> Reaction {
        let (SessionState::Following(scratch), Some(received)) = (&mut self.state, &mut self.received) else {
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
        let mut gathered = scratch.take().unwrap_or_else(|| DeltaScratch::new(to));
        gathered.add(delta).map_err(|_gap| Closed::Gap)?;
        if more {
            *scratch = Some(gathered);
            return Ok(Vec::new());
        }
        // Shares all with the state that may still be compiling, but for what changes.
        if gathered.apply_to(Arc::make_mut(received)).is_err() {
            return Err(self.mismatch(to));
        }
        let received = Arc::clone(received);
        Ok(self.install(received))
    }

    fn on_bookmark(&mut self, bookmark: &Bookmark) -> Vec<Action> {
        self.probe = bookmark.probe;
        self.is_proven = true;
        self.retry.reset();
        if bookmark.stalled == self.is_stalled {
            return Vec::new();
        }
        self.is_stalled = bookmark.stalled;
        vec![if bookmark.stalled {
            Action::Stalled(bookmark.head)
        } else {
            Action::Unstalled
        }]
    }

    fn install(&mut self, received: Arc<Received>) -> Vec<Action> {
        self.received = Some(Arc::clone(&received));
        self.state = SessionState::Following(None);
        self.refusal = None;
        self.want_snapshot = false;
        self.mismatch.reset();
        vec![Action::Install(received)]
    }

    fn mismatch(&mut self, offered: Cursor) -> Closed {
        self.want_snapshot = true;
        self.refusal = Some(HistoryRefusal {
            why: HistoryRefusalWhy::StateMismatch,
            offered: Some(offered),
        });
        Closed::Mismatch
    }

    fn withhold(&mut self, now: Duration, why: HistoryRefusalWhy, offered: Cursor) {
        self.refusal = Some(HistoryRefusal {
            why,
            offered: Some(offered),
        });
        let until = (self.addresses > 1).then(|| now + self.heartbeat);
        self.state = SessionState::Withheld { until };
    }

    fn close(&mut self, now: Duration, why: Closed) -> Vec<Action> {
        let backoff = match why {
            Closed::Mismatch => &mut self.mismatch,
            Closed::Goodbye
            | Closed::TooSlow
            | Closed::Moved
            | Closed::Opening
            | Closed::Silent
            | Closed::Gap
            | Closed::Protocol
            | Closed::Refused => &mut self.retry,
        };
        let wait = backoff.next(&mut self.random);
        self.go_down(now + wait);
        vec![Action::Close(why)]
    }

    fn go_down(&mut self, until: Duration) {
        self.state = SessionState::Down { until };
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
