//! An attempt at a server, from its choice to its end.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    Ask, Endpoints, Verdict,
    group::{Group, ServerId},
    lock,
    pace::Work,
    server::Ticket,
};

use switchboard::reason::Reason;

/// An attempt that its server counts as being there. Dropped without a verdict it has none: its caller has gone, or the
/// failure is not the server's.
#[derive(Debug)]
pub struct InFlight {
    endpoints: Endpoints,
    group: Arc<Mutex<Group>>,
    server: ServerId,
    ticket: Ticket,
    work: Work,
    begun: Instant,
    deadline: Instant,
    /// Whether its time has been taken.
    is_timed: bool,
}

impl InFlight {
    pub(super) fn new(
        endpoints: Endpoints,
        group: Arc<Mutex<Group>>,
        server: ServerId,
        ticket: Ticket,
        ask: &Ask<'_>,
        begun: Instant,
    ) -> Self {
        Self {
            endpoints,
            group,
            server,
            ticket,
            work: ask.work,
            begun,
            deadline: ask.deadline,
            is_timed: false,
        }
    }

    /// The first token has come.
    pub fn first_token(&mut self) {
        self.answers(Instant::now());
    }

    /// What the attempt says of its server, now that it is over.
    pub fn judge(&mut self, verdict: Verdict) {
        let now = Instant::now();
        match verdict {
            Verdict::Answered if !self.is_timed => self.answers(now),
            Verdict::Answered => {}
            Verdict::Late | Verdict::Soft(Reason::UpstreamFirstByteTimeout) => self.waited(now),
            Verdict::Hard(_) | Verdict::Soft(_) | Verdict::Busy(..) | Verdict::Misconfigured(_) => {
                self.is_timed = true;
                lock(&self.group).failed(self.server, now);
            }
        }
        let mut group = lock(&self.group);
        let changed = group.judge(self.server, &mut self.ticket, verdict, now, fastrand::f64());
        self.endpoints.tell(&group, changed);
    }

    fn answers(&mut self, now: Instant) {
        self.is_timed = true;
        let took = (self.work, now.saturating_duration_since(self.begun));
        let mut group = lock(&self.group);
        let changed = group.answers(self.server, &mut self.ticket, took, now);
        self.endpoints.tell(&group, changed);
    }

    fn waited(&mut self, now: Instant) {
        if !self.is_timed {
            self.is_timed = true;
            let waited = now.saturating_duration_since(self.begun);
            lock(&self.group).waited(self.server, self.work, waited, now);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let now = Instant::now();
        // A deadline that passes before the first token is nobody's fault, but it tells how slow the server is.
        if now >= self.deadline {
            self.waited(now);
        }
        lock(&self.group).end(self.server, self.ticket);
    }
}
