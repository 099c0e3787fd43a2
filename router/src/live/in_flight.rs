//! An attempt at a server, from the choice of the server to the end of the attempt.

use switchboard::reason::Reason;
use tokio::time::Instant;

use super::LiveModel;
use crate::endpoints::{Ask, AttemptTicket, ServerId, Verdict, Work};

/// An attempt that counts as in progress at its server. If it is dropped without a verdict, it says nothing about the
/// server: the caller has gone, or the failure is not the server's.
#[derive(Debug)]
pub struct InFlight {
    live: LiveModel,
    server: ServerId,
    ticket: AttemptTicket,
    work: Work,
    begun: Instant,
    deadline: Instant,
    /// Whether the duration of the attempt was recorded already.
    is_timed: bool,
}

impl InFlight {
    pub(super) fn new(live: LiveModel, server: ServerId, ticket: AttemptTicket, ask: &Ask<'_>, begun: Instant) -> Self {
        Self {
            live,
            server,
            ticket,
            work: ask.work,
            begun,
            deadline: ask.deadline,
            is_timed: false,
        }
    }

    /// Records that the first token has arrived.
    pub fn first_token(&mut self) {
        self.answers(Instant::now());
    }

    /// Records in words why the attempt failed, for the state of its server. To be called before [`Self::judge`].
    pub fn note_error(&self, reason: Reason, error: &str) {
        self.live.parts.servers.lock().note_error(self.server, reason, error);
    }

    /// Applies the verdict on the attempt, which is over.
    pub fn judge(&mut self, verdict: Verdict) {
        let now = Instant::now();
        match verdict {
            Verdict::Answered if !self.is_timed => self.answers(now),
            Verdict::Answered => {}
            Verdict::Late | Verdict::Soft(Reason::UpstreamFirstByteTimeout) => self.waited(now),
            Verdict::Hard(_) | Verdict::Soft(_) | Verdict::Busy(..) | Verdict::Misconfigured(_) => {
                self.is_timed = true;
                self.live.parts.servers.lock().failed(self.server, now);
            }
        }
        let mut servers = self.live.parts.servers.lock();
        let changed = servers.judge(self.server, &mut self.ticket, verdict, now, fastrand::f64());
        self.live.all.tell(&servers, changed);
    }

    fn answers(&mut self, now: Instant) {
        self.is_timed = true;
        let took = (self.work, now.saturating_duration_since(self.begun));
        let mut servers = self.live.parts.servers.lock();
        let changed = servers.answers(self.server, &mut self.ticket, took, now);
        self.live.all.tell(&servers, changed);
        drop(servers);
        self.live.parts.gate.lock().accept(&self.live.model);
    }

    fn waited(&mut self, now: Instant) {
        if !self.is_timed {
            self.is_timed = true;
            let waited = now.saturating_duration_since(self.begun);
            self.live
                .parts
                .servers
                .lock()
                .waited(self.server, self.work, waited, now);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let now = Instant::now();
        // A deadline that passes before the first token is not the server's fault, but it shows how slow the server is.
        if now >= self.deadline {
            self.waited(now);
        }
        self.live.parts.servers.lock().end(self.server, self.ticket);
    }
}
