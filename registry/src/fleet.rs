//! The routers that are connected: who they are, how far they are, how the servers of models do that they call, and what
//! of it an operator should hear.
//!
//! It holds the newest report of each, in memory only, and decides nothing about the configuration. Waits for a revision
//! stand in it too, so that each is told of every router that comes, reports or goes, in that order.

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

/// The most routers at a time: four times what one registry is meant for, so that only a fault meets it. One more is
/// refused.
pub const ROUTERS_MAX: usize = 4_096;

/// How often the log tells of what a router reports, and how often at once: a router that never comes to rest must not fill
/// it.
const TELL_EVERY: Duration = Duration::from_secs(10);
const TELL_AT_ONCE: u32 = 10;

/// No more routers can be connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{ROUTERS_MAX} routers are connected already")]
pub struct FleetFull;

/// One process of a router.
pub type RouterInstance = (RouterId, InstanceId);

/// The routers that are connected.
#[derive(Debug, Default)]
pub struct Fleet {
    streams: Mutex<Streams>,
    /// Apart, since it may be large: nobody who reads it holds up a report. Locked after `streams`, if both are.
    health: Mutex<FleetHealth>,
    /// Locked after `streams`, if both are.
    checks: RunningChecks,
}

#[derive(Debug, Default)]
struct Streams {
    by_router: BTreeMap<RouterInstance, Connected>,
    /// Tells a stream from an earlier one of the same process.
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

/// A connected process of a router, for an operator.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Which it is.
    pub key: RouterInstance,
    /// What it belongs to.
    pub group: Group,
    /// The version of its program.
    pub build: Box<str>,
    /// How its stream began.
    pub mode: WelcomeMode,
    /// How long it is connected.
    pub connected: Duration,
    /// How old its newest report is. `None`: none has come yet.
    pub reported: Option<Duration>,
    /// Its newest report.
    pub report: Arc<Report>,
    /// Whether another process is connected under the same id.
    pub is_duplicate: bool,
    /// Whether it answers check requests.
    pub can_check: bool,
}

/// One router's place in the fleet, given up when dropped.
#[derive(Debug)]
pub struct Member {
    fleet: Arc<Fleet>,
    key: RouterInstance,
    stream: u64,
    replaced: CancellationToken,
    orders: Option<mpsc::Receiver<CheckOrder>>,
    /// The router has said that it shuts down.
    is_leaving: bool,
    voice: Mutex<Voice>,
}

/// What the log may still tell of a router.
#[derive(Debug)]
struct Voice {
    pace: Pace,
    /// What it has not told since it told something.
    untold: u64,
}

impl Fleet {
    /// Takes in a router that has been answered with `mode`.
    ///
    /// An older stream of the same process of the same router is told to end. Two processes under one id both stay, since
    /// they would evict each other in turns.
    ///
    /// # Errors
    ///
    /// [`FleetFull`] when [`ROUTERS_MAX`] are connected.
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
                "router id `{router}` is in use by two processes at a time"
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

    /// How many routers are connected.
    #[must_use]
    pub fn size(&self) -> usize {
        self.lock().by_router.len()
    }

    /// The connected routers behind `after`, by id, then instance; at most `count` of them.
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

    /// How the endpoints of each model do, with at most `routers_max` of those who tell of one.
    #[must_use]
    pub fn health_of<'a>(
        &self,
        models: impl IntoIterator<Item = &'a Model>,
        routers_max: usize,
    ) -> Vec<Vec<EndpointHealth>> {
        let health = self.health();
        models.into_iter().map(|model| health.of(model, routers_max)).collect()
    }

    /// The newest report of each router, for tests.
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
    /// Another process under the same router id.
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
    /// Resolves when a newer stream of the same process has taken this one's place.
    #[must_use]
    pub fn replaced(&self) -> CancellationToken {
        self.replaced.clone()
    }

    /// The checks that the router is asked for, to be sent down its stream. Taken once.
    pub fn orders(&mut self) -> Option<mpsc::Receiver<CheckOrder>> {
        self.orders.take()
    }

    /// Takes in what a check has found.
    pub fn check_findings(&self, findings: Findings) {
        self.fleet.checks.answer(self.stream, findings);
    }

    /// Takes in a report: it replaces the one before, but for what it adds about endpoints, of which those count that a
    /// model of `state` has.
    pub fn report(&self, mut report: Report, state: &State) {
        let endpoints = std::mem::take(&mut report.endpoints);
        let report = Arc::new(report);
        let now = Instant::now();
        let before = {
            let mut streams = self.fleet.lock();
            let Streams { by_router, waits, .. } = &mut *streams;
            // A newer stream may speak for the router by now.
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

    /// The router shuts down in order: nobody need wait for it any longer.
    pub fn leave(mut self) {
        self.is_leaving = true;
    }

    fn voice(&self) -> MutexGuard<'_, Voice> {
        self.voice.lock()
    }

    fn tell(&self, news: News<'_>, report: &Report) {
        let (router, instance) = &self.key;
        // What is told for debugging only may fill the log.
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
                "router `{router}` refuses to follow this registry's history and keeps what it has"
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
    /// Whether something may be told, and then how much was not told before it.
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
