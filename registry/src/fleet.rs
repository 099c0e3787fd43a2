//! The routers that are connected: who they are, how far they are, and what of it an operator should hear.
//!
//! It holds the newest report of each, in memory only, and decides nothing about the configuration.

pub mod report;
pub mod uplink;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use switchboard::names::InstanceId;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::report::{Hello, News, Report, RouterId};
use crate::feed::welcome::Mode;

/// The most routers at a time: four times what one registry is meant for, so that only a fault meets it. One more is
/// refused.
pub const ROUTERS_MAX: usize = 4_096;

/// No more routers can be connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{ROUTERS_MAX} routers are connected already")]
pub struct FleetFull;

/// The routers that are connected.
#[derive(Debug, Default)]
pub struct Fleet {
    streams: Mutex<Streams>,
}

#[derive(Debug, Default)]
struct Streams {
    by_router: BTreeMap<(RouterId, InstanceId), Connected>,
    /// Tells a stream from an earlier one of the same process.
    joined: u64,
}

#[derive(Debug)]
struct Connected {
    stream: u64,
    mode: Mode,
    since: Instant,
    replaced: CancellationToken,
    newest: Report,
}

/// One router's place in the fleet, given up when dropped.
#[derive(Debug)]
pub struct Member {
    fleet: Arc<Fleet>,
    key: (RouterId, InstanceId),
    stream: u64,
    replaced: CancellationToken,
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
    pub fn join(self: &Arc<Self>, hello: Hello, mode: Mode) -> Result<Member, FleetFull> {
        let Hello {
            router,
            instance,
            build,
            resume: _,
            want_snapshot: _,
        } = hello;
        let replaced = CancellationToken::new();
        let key = (router.clone(), instance);
        let mut streams = self.lock();
        if streams.by_router.len() >= ROUTERS_MAX && !streams.by_router.contains_key(&key) {
            return Err(FleetFull);
        }
        streams.joined += 1;
        let stream = streams.joined;
        let connected = Connected {
            stream,
            mode,
            since: Instant::now(),
            replaced: replaced.clone(),
            newest: Report::default(),
        };
        let older = streams.by_router.insert(key.clone(), connected);
        let twin = streams.twin_of(&key);
        drop(streams);

        if let Some(older) = older {
            older.replaced.cancel();
        }
        if let Mode::Withheld(why) = mode {
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
        })
    }

    /// How many routers are connected.
    #[must_use]
    pub fn size(&self) -> usize {
        self.lock().by_router.len()
    }

    /// The newest report of each router, for tests.
    #[cfg(test)]
    pub(crate) fn reports(&self) -> Vec<Report> {
        let streams = self.lock();
        let newest = streams.by_router.values().map(|connected| connected.newest.clone());
        newest.collect()
    }

    fn lock(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Streams {
    /// Another process under the same router id.
    fn twin_of(&self, (router, instance): &(RouterId, InstanceId)) -> Option<InstanceId> {
        self.by_router
            .keys()
            .filter(|(id, _)| id == router)
            .map(|(_, other)| *other)
            .find(|other| other != instance)
    }
}

impl Member {
    /// Resolves when a newer stream of the same process has taken this one's place.
    #[must_use]
    pub fn replaced(&self) -> CancellationToken {
        self.replaced.clone()
    }

    /// Replaces the router's report.
    pub fn report(&self, report: Report) {
        let before = {
            let mut streams = self.fleet.lock();
            match streams.by_router.get_mut(&self.key) {
                Some(connected) if connected.stream == self.stream => {
                    std::mem::replace(&mut connected.newest, report.clone())
                }
                // A newer stream speaks for the router.
                Some(_) | None => return,
            }
        };
        for news in report.news_since(&before) {
            self.tell(news, &report);
        }
    }

    fn tell(&self, news: News<'_>, report: &Report) {
        let (router, instance) = &self.key;
        match news {
            News::RefusesHistory(refusal) => tracing::warn!(
                router.id = %router, router.instance = %instance, reason = ?refusal.why,
                offered.revision = refusal.offered.map(|offered| offered.revision.get()),
                "router `{router}` refuses to follow this registry's history and keeps what it has"
            ),
            News::AcceptsHistory => tracing::info!(
                router.id = %router, router.instance = %instance,
                "router `{router}` follows this registry's history again"
            ),
            News::Holds(held) => tracing::warn!(
                router.id = %router, router.instance = %instance,
                resource = %held.resource, field = %held.field, reason = %held.reason, cause = ?held.why,
                revision = held.revision.get(), used_revision = held.used_revision.get(), held = report.held_total,
                "router `{router}` cannot use the newest state of `{}`", held.resource
            ),
            News::HoldsNothing => tracing::info!(
                router.id = %router, router.instance = %instance,
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
        drop(streams);
        let (router, instance) = &self.key;
        let revision = |cursor: Option<switchboard::history::Cursor>| cursor.map(|cursor| cursor.revision.get());
        tracing::info!(
            router.id = %router, router.instance = %instance, mode = mode_name(connected.mode),
            connected_ms = u64::try_from(connected.since.elapsed().as_millis()).unwrap_or(u64::MAX),
            received.revision = revision(connected.newest.received),
            applied.revision = revision(connected.newest.applied),
            held = connected.newest.held_total,
            "router `{router}` is disconnected"
        );
    }
}

const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Resumed(_) => "resumed",
        Mode::Snapshot(_) => "snapshot",
        Mode::Withheld(_) => "withheld",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::welcome::{Resume, SnapshotWhy};

    const MODE: Mode = Mode::Snapshot(SnapshotWhy::First);

    fn hello(router: &str, instance: InstanceId) -> Hello {
        Hello {
            router: RouterId::parse(router).unwrap(),
            instance,
            build: "1".into(),
            resume: Resume::Nothing,
            want_snapshot: false,
        }
    }

    fn holding(count: usize) -> Report {
        Report {
            held_total: count,
            ..Report::default()
        }
    }

    #[test]
    fn the_newer_stream_of_one_process_wins() {
        let fleet = Arc::new(Fleet::default());
        let instance = InstanceId::random();
        let older = fleet.join(hello("r", instance), MODE).unwrap();
        let newer = fleet.join(hello("r", instance), MODE).unwrap();
        assert!(older.replaced().is_cancelled() && !newer.replaced().is_cancelled());
        newer.report(holding(1));
        older.report(holding(2));
        assert_eq!(fleet.reports(), [holding(1)]);
        drop(older);
        assert_eq!(fleet.reports(), [holding(1)]);
        drop(newer);
        assert_eq!(fleet.reports(), []);
    }

    #[test]
    fn two_processes_under_one_id_both_stay() {
        let fleet = Arc::new(Fleet::default());
        let [one, two] = [(); 2].map(|()| fleet.join(hello("r", InstanceId::random()), MODE).unwrap());
        assert!(!one.replaced().is_cancelled() && !two.replaced().is_cancelled());
        assert_eq!(fleet.reports().len(), 2);
        let twin = fleet.lock().twin_of(&one.key);
        assert_eq!(twin, Some(two.key.1));
        let other = fleet.join(hello("s", InstanceId::random()), MODE).unwrap();
        assert_eq!(fleet.lock().twin_of(&other.key), None);
    }

    #[test]
    fn a_full_fleet_takes_nobody_new_but_those_it_knows() {
        let fleet = Arc::new(Fleet::default());
        let instance = InstanceId::random();
        let mut members: Vec<Member> = (0..ROUTERS_MAX)
            .map(|number| fleet.join(hello(&format!("r{number}"), instance), MODE).unwrap())
            .collect();
        assert_eq!(fleet.join(hello("new", instance), MODE).unwrap_err(), FleetFull);
        members.push(fleet.join(hello("r0", instance), MODE).unwrap());
        members.truncate(ROUTERS_MAX - 1);
        assert!(fleet.join(hello("new", instance), MODE).is_ok());
    }
}
