//! The state of one server, and how attempts and probes change it. Pure.
//!
//! The one hard idea: an epoch ends whenever the server is taken out or comes back, and an attempt belongs to the epoch
//! in which it began. Answers and failures from an older epoch are ignored. Only a request for less load and a
//! configuration error count in any epoch.

use std::time::Duration;

use switchboard::reason::Reason;
use tokio::time::Instant;

use super::{Health, Probed, Verdict, pace::Slowness, window::Window};

/// This many hard failures in a row take a server out.
const HARD_MAX: u32 = 3;
/// This many failed probes in a row take a server out, if no call succeeded in between.
const PROBES_MAX: u32 = 3;
/// How long a failing server rests before it is tried again: the first time, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// How long a call may take to prove that a server is back, before another call may try.
const TRIAL: Duration = Duration::from_secs(10);
/// How long a server that came back takes to reach its whole share of calls, and the fraction with which it begins.
const RAMP: Duration = Duration::from_secs(30);
const RAMP_BEGIN: f64 = 0.1;

/// The state of one server.
#[derive(Debug, Default)]
pub(super) struct ServerRecord {
    standing: Standing,
    /// Whether a probe must pass before a call may try a failing server.
    is_probed: bool,
    /// Counts how often the server was taken out or came back.
    epoch: u32,
    hard: u32,
    failed_probes: u32,
    window: Window,
    left_alone_until: Option<Instant>,
    /// Health according to the newest call, and according to the newest probe.
    called: Option<Health>,
    probed: Option<Health>,
    pub(super) in_flight: u32,
    pub(super) slowness: Slowness,
}

#[derive(Debug, Default)]
enum Standing {
    #[default]
    Well,
    /// It came back at this time, and its share of calls grows gradually.
    Back(Instant),
    Failing(Failing),
}

#[derive(Debug)]
struct Failing {
    reason: Reason,
    is_soft: bool,
    pause: Duration,
    stage: FailingStage,
}

#[derive(Debug)]
enum FailingStage {
    /// The server gets no calls until this time. Afterwards a probe decides whether it is tried, if it can be probed.
    Resting(Instant),
    /// One call may try the server.
    Open,
    /// A call is trying the server. From `until` on, another call may try.
    Trial { by: u64, until: Instant },
}

/// One attempt, as its server's state sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttemptTicket {
    id: u64,
    epoch: u32,
}

impl ServerRecord {
    /// Creates the state of a server of which nothing is known.
    pub(super) fn new(is_probed: bool) -> Self {
        Self {
            is_probed,
            ..Self::default()
        }
    }

    /// Begins an attempt. No other attempt at the server has the same `id`.
    pub(super) fn begin(&mut self, id: u64, now: Instant) -> AttemptTicket {
        if self.may_be_tried(now)
            && let Standing::Failing(failing) = &mut self.standing
        {
            failing.stage = FailingStage::Trial {
                by: id,
                until: now + TRIAL,
            };
        }
        self.in_flight += 1;
        AttemptTicket { id, epoch: self.epoch }
    }

    /// Ends an attempt, after its verdict if it has one. It no longer counts as in flight.
    pub(super) fn end(&mut self, ticket: AttemptTicket) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Standing::Failing(failing) = &mut self.standing
            && failing.is_tried_by(ticket)
        {
            failing.stage = FailingStage::Open;
        }
    }

    /// Records that an attempt has its first token.
    pub(super) fn answers(&mut self, ticket: &mut AttemptTicket, now: Instant) {
        if ticket.epoch != self.epoch {
            return;
        }
        if self.is_failing() {
            self.turn(Standing::Back(now));
            // From here on the attempt counts as an ordinary call.
            ticket.epoch = self.epoch;
        }
        self.hard = 0;
        self.failed_probes = 0;
        self.called = Some(Health::Healthy);
    }

    /// Applies the verdict on an attempt. `chance` is uniform from 0 to 1.
    pub(super) fn judge(&mut self, ticket: &mut AttemptTicket, verdict: Verdict, now: Instant, chance: f64) {
        let is_of_now = ticket.epoch == self.epoch;
        if is_of_now && !matches!(verdict, Verdict::Hard(_) | Verdict::Late) {
            // The server was reached.
            self.hard = 0;
        }
        match verdict {
            Verdict::Answered => {
                self.answers(ticket, now);
                if ticket.epoch == self.epoch {
                    self.window.add(false, now);
                }
            }
            Verdict::Late => self.not_proved_yet(*ticket),
            Verdict::Busy(reason, pause) => {
                if let Some(pause) = pause {
                    self.left_alone_until = self.left_alone_until.max(Some(now + pause));
                }
                self.called = Some(Health::BackingOff(reason));
            }
            Verdict::Misconfigured(reason) => {
                self.called = Some(Health::Misconfigured(reason));
                self.not_proved(*ticket, now, chance);
            }
            Verdict::Hard(reason) if is_of_now => {
                self.failed(reason);
                self.not_proved(*ticket, now, chance);
                self.hard += 1;
                if self.hard >= HARD_MAX {
                    self.take_out(reason, false, now, chance);
                }
            }
            Verdict::Soft(reason) if is_of_now => {
                self.failed(reason);
                self.not_proved(*ticket, now, chance);
                self.window.add(true, now);
            }
            Verdict::Hard(_) | Verdict::Soft(_) => {}
        }
    }

    /// Applies the result of a probe. A server that failed several probes in a row is taken out.
    pub(super) fn probe(&mut self, probed: Probed, now: Instant, chance: f64) {
        let is_due = self.resting_until().is_some_and(|until| until <= now);
        match probed {
            Probed::Passed => {
                self.failed_probes = 0;
                self.probed = Some(Health::Healthy);
                if is_due && let Standing::Failing(failing) = &mut self.standing {
                    failing.stage = FailingStage::Open;
                }
            }
            Probed::Failed(reason) => {
                self.failed_probes += 1;
                self.probed = Some(Health::Recovering(reason));
                if is_due && let Standing::Failing(failing) = &mut self.standing {
                    failing.rest(now, chance);
                } else if self.failed_probes >= PROBES_MAX {
                    self.take_out(reason, false, now, chance);
                }
            }
        }
    }

    /// Takes the server out: calls no longer choose it.
    pub(super) fn take_out(&mut self, reason: Reason, is_soft: bool, now: Instant, chance: f64) {
        if self.is_failing() {
            return;
        }
        let pause = PAUSES.0;
        self.turn(Standing::Failing(Failing {
            reason,
            is_soft,
            pause,
            stage: FailingStage::Resting(now + jittered(pause, chance)),
        }));
    }

    pub(super) const fn is_failing(&self) -> bool {
        matches!(self.standing, Standing::Failing(_))
    }

    pub(super) const fn is_failing_softly(&self) -> bool {
        matches!(self.standing, Standing::Failing(Failing { is_soft: true, .. }))
    }

    /// Whether so many recent attempts failed that the server should be taken out.
    pub(super) fn is_bad(&mut self, now: Instant) -> bool {
        self.window.is_bad(now)
    }

    /// Returns until when the server has asked to be left alone. `None`: it has not asked, or that time is over.
    pub(super) fn is_left_alone(&self, now: Instant) -> Option<Instant> {
        self.left_alone_until.filter(|until| *until > now)
    }

    /// Whether the server takes calls like any other.
    pub(super) fn is_available(&self, now: Instant) -> bool {
        !self.is_failing() && self.is_left_alone(now).is_none()
    }

    /// Whether one call may try the failing server to see if it is back.
    pub(super) fn may_be_tried(&self, now: Instant) -> bool {
        let Standing::Failing(failing) = &self.standing else {
            return false;
        };
        let is_free = match failing.stage {
            FailingStage::Resting(until) => !self.is_probed && until <= now,
            FailingStage::Open => true,
            FailingStage::Trial { until, .. } => until <= now,
        };
        is_free && self.is_left_alone(now).is_none()
    }

    /// Whether only a probe is missing before a call may try the server. `asked` is the time of the last probe request.
    pub(super) fn wants_probe(&self, asked: Option<Instant>, now: Instant) -> bool {
        self.resting_until()
            .is_some_and(|until| until <= now && asked.is_none_or(|asked| asked < until))
    }

    /// Returns until when a failing server certainly gets no calls. `None`: it is not failing, or its rest is over.
    pub(super) const fn resting_until(&self) -> Option<Instant> {
        match &self.standing {
            Standing::Failing(Failing {
                stage: FailingStage::Resting(until),
                ..
            }) => Some(*until),
            Standing::Well | Standing::Back(_) | Standing::Failing(_) => None,
        }
    }

    /// Returns the fraction of its share of calls that the server gets.
    pub(super) fn ramp(&self, now: Instant) -> f64 {
        match self.standing {
            Standing::Back(since) => {
                let done = now.saturating_duration_since(since).div_duration_f64(RAMP);
                (RAMP_BEGIN + (1.0 - RAMP_BEGIN) * done).min(1.0)
            }
            Standing::Well | Standing::Failing(_) => 1.0,
        }
    }

    /// Returns the server's health: according to calls, or, if there were none, according to probes. `None`: neither
    /// has shown it.
    pub(super) fn health(&self) -> Option<Health> {
        match &self.standing {
            Standing::Failing(failing) => Some(Health::Ejected(failing.reason)),
            Standing::Well | Standing::Back(_) => self.called.or(self.probed),
        }
    }

    fn failed(&mut self, reason: Reason) {
        self.called = Some(Health::Recovering(reason));
    }

    /// Records that a call failed. If the call was to prove that the server is back, the server rests again.
    fn not_proved(&mut self, ticket: AttemptTicket, now: Instant, chance: f64) {
        if let Standing::Failing(failing) = &mut self.standing
            && failing.is_tried_by(ticket)
        {
            failing.rest(now, chance);
        }
    }

    /// Records that a call had too little time. If it was to prove that the server is back, another call may try only
    /// when the trial time of this one is over: otherwise calls would wait without success one after another.
    fn not_proved_yet(&mut self, ticket: AttemptTicket) {
        if let Standing::Failing(failing) = &mut self.standing
            && let FailingStage::Trial { by, until } = failing.stage
            && by == ticket.id
        {
            failing.stage = FailingStage::Resting(until);
        }
    }

    fn turn(&mut self, standing: Standing) {
        self.standing = standing;
        self.epoch = self.epoch.wrapping_add(1);
        self.hard = 0;
        self.failed_probes = 0;
        self.window = Window::default();
    }
}

impl Failing {
    /// Lets the server rest for twice as long as before.
    fn rest(&mut self, now: Instant, chance: f64) {
        self.pause = (2 * self.pause).min(PAUSES.1);
        self.stage = FailingStage::Resting(now + jittered(self.pause, chance));
    }

    const fn is_tried_by(&self, ticket: AttemptTicket) -> bool {
        matches!(self.stage, FailingStage::Trial { by, .. } if by == ticket.id)
    }
}

/// Adds a random deviation of up to 20 percent, so that servers and routers do not resume at the same time.
fn jittered(pause: Duration, chance: f64) -> Duration {
    pause.mul_f64(0.8 + 0.4 * chance)
}
