//! What is known of one server, and what the end of an attempt or of a probe makes of it: pure.
//!
//! The one hard idea: an attempt tells of the time in which it began. What began before a server was taken out or came
//! back says nothing about it afterwards.

use std::time::Duration;

use switchboard::reason::Reason;
use tokio::time::Instant;

use super::{Health, Probed, Verdict, pace::Slowness, window::Window};

/// So many hard failures in a row take a server out.
const HARD_MAX: u32 = 3;
/// So many failed probes in a row do, when no call succeeded meanwhile.
const PROBES_MAX: u32 = 3;
/// How long a server is left alone before it is tried again: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// How long a call may take to prove a server before another is let through.
const TRIAL: Duration = Duration::from_secs(10);
/// How long a server that came back takes to have its whole share, and what it has at once.
const RAMP: Duration = Duration::from_secs(30);
const RAMP_BEGIN: f64 = 0.1;

/// What is known of one server.
#[derive(Debug, Default)]
pub(super) struct ServerRecord {
    standing: Standing,
    /// Whether a probe must pass before a call is let through.
    is_probed: bool,
    /// Counts how often it was taken out and came back.
    epoch: u32,
    hard: u32,
    failed_probes: u32,
    window: Window,
    left_alone_until: Option<Instant>,
    /// What the newest call said, and the newest probe.
    called: Option<Health>,
    probed: Option<Health>,
    pub(super) in_flight: u32,
    pub(super) slowness: Slowness,
}

#[derive(Debug, Default)]
enum Standing {
    #[default]
    Well,
    /// It came back then, and gets its calls little by little.
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
    /// It is left alone until then; afterwards a probe decides, if it can be probed.
    Resting(Instant),
    /// One call may try.
    Open,
    /// A call tries; from then on another may.
    Trial { by: u64, until: Instant },
}

/// One attempt, as its server knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttemptTicket {
    id: u64,
    epoch: u32,
}

impl ServerRecord {
    /// A server of which nothing is known.
    pub(super) fn new(is_probed: bool) -> Self {
        Self {
            is_probed,
            ..Self::default()
        }
    }

    /// Begins an attempt. `id` is told to no other.
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

    /// Ends an attempt, after all that is said of it: its place is free.
    pub(super) fn end(&mut self, ticket: AttemptTicket) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Standing::Failing(failing) = &mut self.standing
            && failing.is_tried_by(ticket)
        {
            failing.stage = FailingStage::Open;
        }
    }

    /// An attempt has its first token.
    pub(super) fn answers(&mut self, ticket: &mut AttemptTicket, now: Instant) {
        if ticket.epoch != self.epoch {
            return;
        }
        if self.is_failing() {
            self.turn(Standing::Back(now));
            // The rest is an ordinary call.
            ticket.epoch = self.epoch;
        }
        self.hard = 0;
        self.failed_probes = 0;
        self.called = Some(Health::Healthy);
    }

    /// What the end of an attempt says. `chance` is uniform from 0 to 1.
    pub(super) fn judge(&mut self, ticket: &mut AttemptTicket, verdict: Verdict, now: Instant, chance: f64) {
        let is_of_now = ticket.epoch == self.epoch;
        if is_of_now && !matches!(verdict, Verdict::Hard(_) | Verdict::Late) {
            // It was reached.
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

    /// What a probe says. A server that failed it in vain for long enough is taken out.
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

    /// Takes it out of the choice.
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

    /// Whether so many attempts fail that it should be taken out.
    pub(super) fn is_bad(&mut self, now: Instant) -> bool {
        self.window.is_bad(now)
    }

    /// Until when it has asked to be left alone.
    pub(super) fn is_left_alone(&self, now: Instant) -> Option<Instant> {
        self.left_alone_until.filter(|until| *until > now)
    }

    /// Whether it takes calls like any other.
    pub(super) fn is_available(&self, now: Instant) -> bool {
        !self.is_failing() && self.is_left_alone(now).is_none()
    }

    /// Whether one call may try if it is back.
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

    /// Whether only a probe is missing to let a call through, and none was `asked` for since.
    pub(super) fn wants_probe(&self, asked: Option<Instant>, now: Instant) -> bool {
        self.resting_until()
            .is_some_and(|until| until <= now && asked.is_none_or(|asked| asked < until))
    }

    /// Until when it is surely left alone, where it is failing.
    pub(super) const fn resting_until(&self) -> Option<Instant> {
        match &self.standing {
            Standing::Failing(Failing {
                stage: FailingStage::Resting(until),
                ..
            }) => Some(*until),
            Standing::Well | Standing::Back(_) | Standing::Failing(_) => None,
        }
    }

    /// Which part of its share it gets.
    pub(super) fn ramp(&self, now: Instant) -> f64 {
        match self.standing {
            Standing::Back(since) => {
                let done = now.saturating_duration_since(since).div_duration_f64(RAMP);
                (RAMP_BEGIN + (1.0 - RAMP_BEGIN) * done).min(1.0)
            }
            Standing::Well | Standing::Failing(_) => 1.0,
        }
    }

    /// How it does, as calls say, and where none was made, as probes say. `None`: nobody knows.
    pub(super) fn health(&self) -> Option<Health> {
        match &self.standing {
            Standing::Failing(failing) => Some(Health::Ejected(failing.reason)),
            Standing::Well | Standing::Back(_) => self.called.or(self.probed),
        }
    }

    fn failed(&mut self, reason: Reason) {
        self.called = Some(Health::Recovering(reason));
    }

    /// A call that should prove it failed.
    fn not_proved(&mut self, ticket: AttemptTicket, now: Instant, chance: f64) {
        if let Standing::Failing(failing) = &mut self.standing
            && failing.is_tried_by(ticket)
        {
            failing.rest(now, chance);
        }
    }

    /// A call that should prove it had too little time for that. Another tries when this one's time is over, lest calls wait
    /// in vain one after another.
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
    /// Leaves it alone for twice as long.
    fn rest(&mut self, now: Instant, chance: f64) {
        self.pause = (2 * self.pause).min(PAUSES.1);
        self.stage = FailingStage::Resting(now + jittered(self.pause, chance));
    }

    const fn is_tried_by(&self, ticket: AttemptTicket) -> bool {
        matches!(self.stage, FailingStage::Trial { by, .. } if by == ticket.id)
    }
}

/// A fifth more or less, so that servers and routers do not come back together.
fn jittered(pause: Duration, chance: f64) -> Duration {
    pause.mul_f64(0.8 + 0.4 * chance)
}
