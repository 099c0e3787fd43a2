//! The router's side of the change stream protocol: what each message means, and when to give up a stream.
//!
//! Pure: time is an argument, counted from any fixed moment, and random numbers come from a seed. The received state
//! only moves forward, from one state whose digest was verified to the next. The router verifies every history by
//! itself, regardless of the registry's own judgement.

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

/// Time limit from connecting to the welcome.
pub const OPENING_MAX: Duration = Duration::from_secs(10);

/// A message of the registry as a router reads it. All its cursors have the routers' view.
pub type StreamMessage = RegistryMessage<Resource>;

const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);
const MISMATCH_MAX: Duration = Duration::from_secs(60);
/// Maximum wait in a goodbye. No registry sends its routers away for longer.
const GOODBYE_MAX: Duration = Duration::from_secs(300);

/// The state of the stream, as the router reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamStanding {
    /// The cursor of the newest state that was received completely. `None`: none was.
    pub received: Option<Cursor>,
    /// The refusal of the history that the registry offers. `None`: no history is refused.
    pub refusal: Option<HistoryRefusal>,
    /// `probe` of the newest bookmark.
    pub probe: i64,
    /// Maximum time between two reports.
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

/// The state machine of the change stream.
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
    /// Whether the open stream has delivered a bookmark.
    is_proven: bool,
    /// Whether the newest bookmark reported that the registry's writer makes no progress.
    is_stalled: bool,
    retry: Backoff,
    /// Grows with each wrong digest in a row, because a snapshot is expensive for both sides.
    mismatch: Backoff,
    random: fastrand::Rng,
}

/// The result of a message: the actions to take, or why the stream is closed.
type Reaction = Result<Vec<Action>, Closed>;

impl Session {
    /// Creates a session that has received nothing and connects at once. `addresses` is the number of registries, at
    /// least one.
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

    /// Continues from a state that an earlier session received.
    #[must_use]
    pub fn going_on_from(mut self, received: Option<Arc<Received>>) -> Self {
        self.received = received;
        self
    }

    /// Processes an event at the time `now`, and returns the actions to take, in order.
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

    /// Returns when [`SessionEvent::Timer`] is due.
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

    /// Returns the state of the stream for the reports.
    #[must_use]
    pub fn standing(&self) -> StreamStanding {
        StreamStanding {
            received: self.cursor().copied(),
            refusal: self.refusal,
            probe: self.probe,
            heartbeat: self.heartbeat,
        }
    }

    /// Returns the newest state that was received completely.
    #[must_use]
    pub const fn received(&self) -> Option<&Arc<Received>> {
        self.received.as_ref()
    }

    /// Returns whether the open stream has confirmed the received state.
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
                    // Without a minimum wait, the router would connect without pause to a registry that sends only
                    // goodbyes.
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
            // While a newer state is being loaded, checks run with the state that the router has.
            (SessionState::Loading(_) | SessionState::Following(_), StreamMessage::Check(request)) => {
                Ok(vec![Action::Check(request)])
            }
            // The router fetches no API token from a registry whose history it refuses.
            (SessionState::Withheld { .. }, StreamMessage::Check(_)) => Ok(Vec::new()),
            // The registry may consider its history valid and send it. The stream must stay open so that the refusal
            // can be reported, so these messages are ignored.
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
        // A wrong digest stays reported until a state with the right digest has been received.
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
        // The new state shares every unchanged resource with the old one, which may still be compiling.
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
