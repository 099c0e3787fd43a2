//! The connected routers: their identities, their progress, the health of model servers as they see it, and the events
//! in their reports that an operator should know about.
//!
//! The fleet keeps the newest report of each router, in memory only, and decides nothing about the configuration. It
//! also contains the waits for a revision, so that each wait is notified of every router that joins, reports or leaves,
//! in that order.

pub mod check;
pub mod health;
mod news;
mod pace;
pub mod uplink;
pub mod wait;
mod waiter;

use std::{collections::BTreeMap, ops::Bound, sync::Arc, time::Duration};

use parking_lot::{Mutex, MutexGuard};
use switchboard::{
    names::{Group, InstanceId, RouterId},
    resource::model::Model,
    stream::{Findings, Hello, Report, WelcomeMode},
};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use self::{
    check::{CheckOrder, RunningChecks},
    health::{EndpointHealth, FleetHealth},
    news::{News, news_since},
    pace::Pace,
    waiter::Wait,
};
use crate::domain::state::State;

/// Maximum number of connected routers. It is four times the intended maximum for one registry, so only a fault can
/// reach it. Further routers are refused.
pub const ROUTERS_MAX: usize = 4_096;

/// Long-term interval between log lines about a router's reports, and number of lines that may be written at once. A
/// router whose state keeps changing must not flood the log.
const TELL_EVERY: Duration = Duration::from_secs(10);
const TELL_AT_ONCE: u32 = 10;

/// The maximum number of routers is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the maximum of {ROUTERS_MAX} routers is already connected")]
pub struct FleetFull;

/// One process of a router.
pub type RouterInstance = (RouterId, InstanceId);

/// The connected routers.
#[derive(Debug, Default)]
pub struct Fleet {
    streams: Mutex<Streams>,
    /// Has a lock of its own, because it may be large and reading it must not delay a report. Locked after `streams` if
    /// both are needed.
    health: Mutex<FleetHealth>,
    /// Locked after `streams` if both are needed.
    checks: RunningChecks,
}

#[derive(Debug, Default)]
struct Streams {
    by_router: BTreeMap<RouterInstance, Connected>,
    /// Number of streams that ever joined. Distinguishes a stream from an earlier one of the same process.
    joined: u64,
    waits: BTreeMap<u64, Wait>,
    waits_begun: u64,
}

#[derive(Debug)]
struct Connected {
    stream: u64,
    group: Group,
    build: Box<str>,
    mode: WelcomeMode,
    since: Instant,
    replaced: CancellationToken,
    can_check: bool,
    orders: mpsc::Sender<CheckOrder>,
    newest: Arc<Report>,
    reported: Option<Instant>,
}

/// A connected router process, as it is shown to an operator.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Router id and instance id of the process.
    pub key: RouterInstance,
    /// The group that the router belongs to.
    pub group: Group,
    /// Version of the router's program.
    pub build: Box<str>,
    /// How its stream began.
    pub mode: WelcomeMode,
    /// How long the router has been connected.
    pub connected: Duration,
    /// Age of its newest report. `None`: no report has arrived yet.
    pub reported: Option<Duration>,
    /// Its newest report. Empty if none has arrived yet.
    pub report: Arc<Report>,
    /// Whether another process is connected under the same id.
    pub is_duplicate: bool,
    /// Whether the router answers check requests.
    pub can_check: bool,
}

/// The membership of one router in the fleet. Dropping it ends the membership.
#[derive(Debug)]
pub struct Member {
    fleet: Arc<Fleet>,
    key: RouterInstance,
    stream: u64,
    replaced: CancellationToken,
    orders: Option<mpsc::Receiver<CheckOrder>>,
    /// Whether the router has announced that it shuts down.
    is_leaving: bool,
    voice: Mutex<Voice>,
}

/// Limits the log lines about one router.
#[derive(Debug)]
struct Voice {
    pace: Pace,
    /// Number of events that were not logged since the last log line.
    untold: u64,
}

impl Fleet {
    /// Adds a router that was welcomed with `mode`.
    ///
    /// An older stream of the same process of the same router is asked to end. If two processes use one id, both stay,
    /// because they would otherwise replace each other again and again.
    ///
    /// # Errors
    ///
    /// [`FleetFull`] if [`ROUTERS_MAX`] routers are connected.
    pub fn join(self: &Arc<Self>, hello: Hello, mode: WelcomeMode) -> Result<Member, FleetFull> {
        let Hello {
            router,
            instance,
            group,
            build,
            can_check,
            resume: _,
            want_snapshot: _,
        } = hello;
        let replaced = CancellationToken::new();
        let (orders, ordered) = mpsc::channel(check::RUNNING_MAX);
        let key = (router.clone(), instance);
        let mut streams = self.lock();
        if streams.by_router.len() >= ROUTERS_MAX && !streams.by_router.contains_key(&key) {
            return Err(FleetFull);
        }
        streams.joined += 1;
        let stream = streams.joined;
        for wait in streams.waits.values_mut() {
            wait.tell(|set| set.join(&key, &group, mode));
        }
        let connected = Connected {
            stream,
            group,
            build: build.clone(),
            mode,
            since: Instant::now(),
            replaced: replaced.clone(),
            can_check,
            orders,
            newest: Arc::default(),
            reported: None,
        };
        let older = streams.by_router.insert(key.clone(), connected);
        let twin = streams.twin_of(&key);
        drop(streams);

        if let Some(older) = older {
            older.replaced.cancel();
            self.checks.forget(older.stream);
            self.health().forget(older.stream);
        }
        if let WelcomeMode::Withheld(why) = mode {
            tracing::warn!(
                router.id = %router, router.instance = %instance, router.build = %build, reason = ?why,
                "router `{router}` is connected, but its history contradicts this registry's: it gets no configuration"
            );
        } else {
            tracing::info!(
                router.id = %router, router.instance = %instance, router.build = %build, mode = mode_name(mode),
                "router `{router}` is connected"
            );
        }
        if let Some(twin) = twin {
            tracing::warn!(
                router.id = %router, router.instance = %instance, other.instance = %twin,
                "router id `{router}` is in use by two processes at the same time"
            );
        }
        Ok(Member {
            fleet: Arc::clone(self),
            key,
            stream,
            replaced,
            orders: Some(ordered),
            is_leaving: false,
            voice: Mutex::default(),
        })
    }

    /// Returns the number of connected routers.
    #[must_use]
    pub fn size(&self) -> usize {
        self.lock().by_router.len()
    }

    /// Returns up to `count` connected routers after `after`, ordered by id, then by instance.
    #[must_use]
    pub fn routers(&self, after: Option<&RouterInstance>, count: usize) -> Vec<Seen> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let streams = self.lock();
        let routers = streams.by_router.range((from, Bound::Unbounded)).take(count);
        let seen = routers.map(|(key, connected)| Seen {
            key: key.clone(),
            group: connected.group.clone(),
            build: connected.build.clone(),
            mode: connected.mode,
            connected: connected.since.elapsed(),
            reported: connected.reported.map(|reported| reported.elapsed()),
            report: Arc::clone(&connected.newest),
            is_duplicate: streams.twin_of(key).is_some(),
            can_check: connected.can_check,
        });
        seen.collect()
    }

    /// Returns the health of the endpoints of each model, with at most `routers_max` of the routers that report an
    /// endpoint.
    #[must_use]
    pub fn health_of<'a>(
        &self,
        models: impl IntoIterator<Item = &'a Model>,
        routers_max: usize,
    ) -> Vec<Vec<EndpointHealth>> {
        let health = self.health();
        models.into_iter().map(|model| health.of(model, routers_max)).collect()
    }

    /// Returns the newest report of each router, for tests.
    #[cfg(test)]
    pub(crate) fn reports(&self) -> Vec<Report> {
        let streams = self.lock();
        let newest = streams.by_router.values().map(|connected| (*connected.newest).clone());
        newest.collect()
    }

    fn health(&self) -> MutexGuard<'_, FleetHealth> {
        self.health.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock()
    }
}

impl Streams {
    /// Returns another process that is connected under the same router id.
    fn twin_of(&self, key: &RouterInstance) -> Option<InstanceId> {
        let (id, _) = key;
        let before = self.by_router.range(..key).next_back();
        let after = self.by_router.range((Bound::Excluded(key), Bound::Unbounded)).next();
        let twin = before.into_iter().chain(after).map(|(other, _)| other);
        twin.filter(|(other, _)| other == id)
            .map(|(_, instance)| *instance)
            .next()
    }
}

impl Member {
    /// Returns the token that is cancelled when a newer stream of the same process replaces this one.
    #[must_use]
    pub fn replaced(&self) -> CancellationToken {
        self.replaced.clone()
    }

    /// Returns the receiver of checks to be sent to the router. `None` after the first call.
    pub fn orders(&mut self) -> Option<mpsc::Receiver<CheckOrder>> {
        self.orders.take()
    }

    /// Passes on the findings of a check.
    pub fn check_findings(&self, findings: Findings) {
        self.fleet.checks.answer(self.stream, findings);
    }

    /// Stores a report in place of the earlier one. Reports about endpoints are merged instead, and only count for
    /// endpoints that a model of `state` has.
    pub fn report(&self, mut report: Report, state: &State) {
        let endpoints = std::mem::take(&mut report.endpoints);
        let report = Arc::new(report);
        let now = Instant::now();
        let before = {
            let mut streams = self.fleet.lock();
            let Streams { by_router, waits, .. } = &mut *streams;
            // A newer stream may have replaced this one.
            let Some(connected) = by_router.get_mut(&self.key).filter(|it| it.stream == self.stream) else {
                return;
            };
            connected.reported = Some(now);
            for wait in waits.values_mut() {
                wait.tell(|set| set.report(&self.key, &report));
            }
            if !endpoints.is_empty() {
                let (router, _) = &self.key;
                self.fleet.health().tell(self.stream, router, endpoints, state, now);
            }
            std::mem::replace(&mut connected.newest, Arc::clone(&report))
        };
        for news in news_since(&report, &before) {
            self.tell(news, &report);
        }
    }

    /// Ends the membership of a router that shuts down properly, so that no wait waits for it any longer.
    pub fn leave(mut self) {
        self.is_leaving = true;
    }

    fn voice(&self) -> MutexGuard<'_, Voice> {
        self.voice.lock()
    }

    fn tell(&self, news: News<'_>, report: &Report) {
        let (router, instance) = &self.key;
        // Messages at debug level may flood the log.
        let untold = match news {
            News::Applied(_) => Some(0),
            News::RefusesHistory(_) | News::AcceptsHistory | News::Holds(_) | News::HoldsNothing => {
                self.voice().admit(Instant::now())
            }
        };
        let Some(untold) = untold else { return };
        match news {
            News::RefusesHistory(refusal) => tracing::warn!(
                router.id = %router, router.instance = %instance, reason = ?refusal.why,
                offered.revision = refusal.offered.map(|offered| offered.revision.get()), untold,
                "router `{router}` refuses to follow this registry's history and keeps its configuration"
            ),
            News::AcceptsHistory => tracing::info!(
                router.id = %router, router.instance = %instance, untold,
                "router `{router}` follows this registry's history again"
            ),
            News::Holds(held) => tracing::warn!(
                router.id = %router, router.instance = %instance,
                resource = %held.resource, field = %held.field, reason = %held.reason, cause = ?held.kind,
                revision = held.revision.get(), used_revision = held.used_revision.get(), held = report.held_total, untold,
                "router `{router}` cannot use the newest state of `{}`", held.resource
            ),
            News::HoldsNothing => tracing::info!(
                router.id = %router, router.instance = %instance, untold,
                "router `{router}` can use everything again"
            ),
            News::Applied(applied) => tracing::debug!(
                router.id = %router, router.instance = %instance, revision = applied.revision.get(),
                duration_ms = u64::try_from(report.apply_duration.as_millis()).unwrap_or(u64::MAX),
                "router `{router}` uses revision {}", applied.revision
            ),
        }
    }
}

impl Default for Voice {
    fn default() -> Self {
        Self {
            pace: Pace::new(TELL_EVERY, TELL_AT_ONCE),
            untold: 0,
        }
    }
}

impl Voice {
    /// Returns whether an event may be logged. If so, returns how many events were not logged before it.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.pace.admits(now) {
            return Some(std::mem::take(&mut self.untold));
        }
        self.untold += 1;
        None
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut streams = self.fleet.lock();
        let is_mine = |connected: &Connected| connected.stream == self.stream;
        if !streams.by_router.get(&self.key).is_some_and(is_mine) {
            return;
        }
        let Some(connected) = streams.by_router.remove(&self.key) else {
            return;
        };
        for wait in streams.waits.values_mut() {
            wait.tell(|set| {
                if self.is_leaving {
                    set.leave(&self.key);
                } else {
                    set.lose(&self.key);
                }
            });
        }
        drop(streams);
        self.fleet.health().forget(self.stream);
        self.fleet.checks.forget(self.stream);
        let (router, instance) = &self.key;
        let revision = |cursor: Option<switchboard::history::Cursor>| cursor.map(|cursor| cursor.revision.get());
        tracing::info!(
            router.id = %router, router.instance = %instance, mode = mode_name(connected.mode),
            connected_ms = u64::try_from(connected.since.elapsed().as_millis()).unwrap_or(u64::MAX),
            received.revision = revision(connected.newest.received),
            applied.revision = revision(connected.newest.applied),
            held = connected.newest.held_total, untold = self.voice().untold,
            "router `{router}` is disconnected"
        );
    }
}

const fn mode_name(mode: WelcomeMode) -> &'static str {
    match mode {
        WelcomeMode::Resumed => "resumed",
        WelcomeMode::Snapshot(_) => "snapshot",
        WelcomeMode::Withheld(_) => "withheld",
    }
}

#[cfg(test)]
mod tests;
