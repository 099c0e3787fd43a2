//! The servers of one model: their states, and the choice among them.

use std::{net::IpAddr, sync::Arc, time::Duration};

use switchboard::{endpoint::EndpointUri, reason::Reason};
use tokio::time::Instant;
use xxhash_rust::xxh3::Xxh3;

use super::{
    Addresses, Ask, EngineLoad, Health, ModelReadiness, Probed, ServerIdentity, Verdict,
    hints::Hints,
    pace::{Expected, Slowness, Work},
    server::{AttemptTicket, ServerRecord},
};
use crate::{
    balance,
    catalog::{CompiledModel, is_probed},
};

/// Time between two probes of a server.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// How long the state of a server is kept after the model has stopped naming it: the server may come back.
const KEPT: Duration = Duration::from_secs(10 * 60);

/// The servers of one model.
#[derive(Debug, Default)]
pub(crate) struct ServerGroup {
    entries: Vec<KnownServer>,
    members: Vec<ServerInUse>,
    /// The version of the model and the version of the addresses that `members` was made from.
    made_from: Option<(Arc<CompiledModel>, u64)>,
    expected: Expected,
    tickets: u64,
    /// Buffers of `pick`, kept only to save allocations.
    choices: Vec<balance::Choice>,
    places: Vec<usize>,
}

/// The state of a server, which the model may not name at the moment.
#[derive(Debug)]
struct KnownServer {
    id: ServerId,
    identity: Arc<ServerIdentity>,
    hash: u64,
    server: ServerRecord,
    hints: Hints,
    /// The newest error with each reason, in words. It has at most one entry for each reason.
    errors: Vec<(Reason, Arc<str>)>,
    /// The health that was reported last. `None`: none was reported.
    told: Option<Health>,
    probe_at: Instant,
    probe_asked: Option<Instant>,
    named_at: Instant,
}

impl KnownServer {
    fn note_error(&mut self, reason: Reason, error: &str) {
        match self.errors.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, newest)) => *newest = error.into(),
            None => self.errors.push((reason, error.into())),
        }
    }

    /// Returns the newest error with the reason of the server's health. `None`: the server is not failing.
    fn error(&self) -> Option<&Arc<str>> {
        let reason = self.server.health()?.reason()?;
        let newest = self.errors.iter().find(|(known, _)| *known == reason);
        newest.map(|(_, error)| error)
    }
}

/// A server that the model names.
#[derive(Debug, Clone, Copy)]
struct ServerInUse {
    entry: usize,
    endpoint: usize,
    weight: u32,
    is_near: bool,
}

/// Identifies a server of a model for as long as the router runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerId(u64);

/// A change in the health of a server.
pub(crate) struct HealthTransition {
    pub(crate) identity: Arc<ServerIdentity>,
    /// The worst health of all servers behind the same endpoint.
    pub(crate) worst: Health,
    /// The newest error with the reason of the server's own health, in words. `None`: the server is not failing.
    pub(crate) error: Option<Arc<str>>,
    pub(crate) is_taken_out: bool,
    pub(crate) is_back: bool,
}

/// The server that was chosen for a call.
pub(crate) struct Pick {
    pub(crate) id: ServerId,
    pub(crate) endpoint: usize,
    pub(crate) address: Option<IpAddr>,
    pub(crate) listed: Option<Arc<str>>,
    pub(crate) is_degraded: bool,
    pub(crate) ticket: AttemptTicket,
}

/// The current state of a server, for display.
#[derive(Debug, Clone)]
pub struct Status {
    /// The server.
    pub identity: Arc<ServerIdentity>,
    /// Its health. `None`: no call and no probe has shown it yet.
    pub health: Option<Health>,
    /// The newest error with the reason of that health, in words that name the server. `None`: the server is not
    /// failing.
    pub error: Option<Arc<str>>,
    /// Number of attempts in progress.
    pub in_flight: u32,
    /// How slow it is relative to the other servers of its model; 1 is the average.
    pub slowness: f64,
    /// Fraction of its share of calls that it gets, 0.1 to 1. Below 1 while it is coming back.
    pub ramp: f64,
    /// Load that its engine reported. `None`: not reported, or too long ago.
    pub engine: Option<EngineLoad>,
    /// How long it certainly gets no calls. `None`: it may get some now.
    pub rest: Option<Duration>,
}

impl ServerGroup {
    /// Makes the members those that `model` names. The state of servers that stay is kept.
    pub(crate) fn align(&mut self, model: &Arc<CompiledModel>, zone: &str, addresses: &dyn Addresses, now: Instant) {
        let version = addresses.version();
        let is_same = |(made_from, at): &(Arc<CompiledModel>, u64)| Arc::ptr_eq(made_from, model) && *at == version;
        if self.made_from.as_ref().is_some_and(is_same) {
            return;
        }
        for member in &self.members {
            if let Some(entry) = self.entries.get_mut(member.entry) {
                entry.named_at = now;
            }
        }
        self.members.clear();
        let is_old = |entry: &KnownServer| now.saturating_duration_since(entry.named_at) > KEPT;
        self.entries
            .retain(|entry| entry.server.in_flight > 0 || !is_old(entry));
        for (place, endpoint) in model.spec.servers().iter().enumerate() {
            let known = addresses.of(&endpoint.uri);
            let several = if known.len() > 1 { &*known } else { &[] };
            let each = several.iter().copied().map(Some);
            for address in each.chain(several.is_empty().then_some(None)) {
                let entry = self.entry(model, &endpoint.uri, address, now);
                self.members.push(ServerInUse {
                    entry,
                    endpoint: place,
                    weight: u32::try_from(endpoint.weight.get()).unwrap_or_default(),
                    is_near: !zone.is_empty() && endpoint.zone.as_str() == zone,
                });
            }
        }
        self.made_from = Some((Arc::clone(model), version));
    }

    fn entry(&mut self, model: &CompiledModel, uri: &EndpointUri, address: Option<IpAddr>, now: Instant) -> usize {
        let is_it = |entry: &KnownServer| {
            let known = &entry.identity;
            known.uri == *uri
                && known.address == address
                && known.tls == model.tls
                && known.platform == model.spec.platform
        };
        if let Some(place) = self.entries.iter().position(is_it) {
            return place;
        }
        self.tickets += 1;
        let identity = ServerIdentity {
            model: model.name.clone(),
            uri: uri.clone(),
            address,
            tls: model.tls.clone(),
            platform: model.spec.platform.clone(),
        };
        self.entries.push(KnownServer {
            id: ServerId(self.tickets),
            hash: hash(&identity),
            server: ServerRecord::new(is_probed(&identity.platform)),
            identity: Arc::new(identity),
            hints: Hints::default(),
            errors: Vec::new(),
            told: None,
            // At a random time, so that a new catalog does not cause a burst of probes.
            probe_at: now + PROBE_INTERVAL.mul_f64(fastrand::f64()),
            probe_asked: None,
            named_at: now,
        });
        self.entries.len() - 1
    }

    /// Returns whether the model's servers take calls.
    pub(crate) fn readiness(&self, now: Instant) -> ModelReadiness {
        let (mut down, mut trial) = (None, None);
        // Servers that asked to be left alone. Failing ones are apart: only a working server is worth waiting for.
        let (mut asks, mut failing_asks) = (None, None);
        for (_, entry) in self.in_use() {
            let server = &entry.server;
            if server.is_available(now) {
                return ModelReadiness::Ready;
            }
            let reason = server.health().and_then(Health::reason);
            if server.may_be_tried(now) {
                trial = trial.or(reason);
            }
            match server.is_left_alone(now) {
                None => down = down.or(reason),
                Some(until) => {
                    let asks = if server.is_failing() {
                        &mut failing_asks
                    } else {
                        &mut asks
                    };
                    if asks.is_none_or(|(soonest, _)| until < soonest) {
                        *asks = Some((until, reason));
                    }
                }
            }
        }
        match (trial, asks, down) {
            // A working server asked to be left alone: the model is not failing.
            (Some(_), Some(_), _) => ModelReadiness::Ready,
            (Some(reason), None, _) => ModelReadiness::Trial { reason },
            (None, None, Some(reason)) => ModelReadiness::Down { reason },
            (None, asks, _) => {
                asks.or(failing_asks)
                    .map_or(ModelReadiness::Ready, |(until, reason)| ModelReadiness::LeftAlone {
                        reason: reason.unwrap_or(Reason::UpstreamRateLimited),
                        pause: until.saturating_duration_since(now),
                    })
            }
        }
    }

    /// Chooses a server that was not tried yet, and begins an attempt there. `None`: no server may be chosen.
    pub(crate) fn choose(&mut self, ask: &Ask<'_>, now: Instant, mut chance: impl FnMut() -> f64) -> Option<Pick> {
        let is_untried = |entry: &KnownServer| !ask.tried.contains(&entry.id);
        let mut numbered = self.members.iter().enumerate();
        // One call has to try a server that may be back.
        let trial = numbered.find(|(_, member)| {
            let entry = self.entries.get(member.entry);
            let is_free = |entry: &KnownServer| is_untried(entry) && entry.server.may_be_tried(now);
            member.weight > 0 && entry.is_some_and(is_free)
        });
        let trial = trial.map(|(place, _)| place);
        let is_any_well = self.in_use().any(|(_, entry)| !entry.server.is_failing());
        let is_degraded = !is_any_well;
        let place = match trial {
            Some(place) => place,
            None if is_any_well => self.pick(ask.key, now, &mut chance, |entry| {
                is_untried(entry) && entry.server.is_available(now)
            })?,
            None if ask.may_be_degraded => self.pick(ask.key, now, &mut chance, |entry| {
                is_untried(entry) && entry.server.is_left_alone(now).is_none()
            })?,
            None => return None,
        };
        let member = *self.members.get(place)?;
        self.tickets += 1;
        let id = self.tickets;
        let entry = self.entries.get_mut(member.entry)?;
        Some(Pick {
            id: entry.id,
            endpoint: member.endpoint,
            address: entry.identity.address,
            listed: entry.hints.listed.clone(),
            is_degraded,
            ticket: entry.server.begin(id, now),
        })
    }

    /// Whether a server that was not tried yet takes calls.
    pub(crate) fn has_another(&self, tried: &[ServerId], now: Instant) -> bool {
        self.in_use()
            .any(|(_, entry)| !tried.contains(&entry.id) && entry.server.is_available(now))
    }

    /// Returns the index of the best member whose server `may_be` accepts.
    fn pick(
        &mut self,
        key: Option<u64>,
        now: Instant,
        chance: impl FnMut() -> f64,
        may_be: impl Fn(&KnownServer) -> bool,
    ) -> Option<usize> {
        self.choices.clear();
        self.places.clear();
        for (place, member) in self.members.iter().enumerate() {
            let Some(entry) = self.entries.get(member.entry).filter(|entry| may_be(entry)) else {
                continue;
            };
            if member.weight > 0 {
                self.places.push(place);
                self.choices.push(balance::Choice {
                    weight: f64::from(member.weight) * entry.server.ramp(now),
                    in_flight: entry.server.in_flight,
                    others: entry.hints.others(now),
                    slowness: entry.server.slowness.now(now),
                    is_near: member.is_near,
                    identity: entry.hash,
                });
            }
        }
        let chosen = balance::choose(&self.choices, key, chance)?;
        self.places.get(chosen).copied()
    }

    /// Records the first token, or the whole answer, of an attempt. Returns the change in the server's health, if there
    /// is one.
    pub(crate) fn answers(
        &mut self,
        id: ServerId,
        ticket: &mut AttemptTicket,
        took: (Work, Duration),
        now: Instant,
    ) -> Option<HealthTransition> {
        let ratio = self.expected.answered(took.0, took.1);
        let server = self.server(id)?;
        server.slowness.add(ratio, now);
        server.answers(ticket, now);
        self.told(id)
    }

    /// Records how long an attempt waited without getting an answer.
    pub(crate) fn waited(&mut self, id: ServerId, work: Work, waited: Duration, now: Instant) {
        let ratio = self.expected.waited(work, waited);
        if let Some(server) = self.server(id) {
            server.slowness.add(ratio, now);
        }
    }

    /// Records a failed attempt in the server's slowness.
    pub(crate) fn failed(&mut self, id: ServerId, now: Instant) {
        if let Some(server) = self.server(id) {
            server.slowness.add(Slowness::FAILED, now);
        }
    }

    /// Records an error of an attempt in words, before its verdict is applied.
    pub(crate) fn note_error(&mut self, id: ServerId, reason: Reason, error: &str) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == id) {
            entry.note_error(reason, error);
        }
    }

    /// Applies the verdict on an attempt. Returns the change in the server's health, if there is one.
    pub(crate) fn judge(
        &mut self,
        id: ServerId,
        ticket: &mut AttemptTicket,
        verdict: Verdict,
        now: Instant,
        chance: f64,
    ) -> Option<HealthTransition> {
        let server = self.server(id)?;
        server.judge(ticket, verdict, now, chance);
        if let Verdict::Soft(reason) = verdict
            && server.is_bad(now)
            && self.may_take_out(id, now)
        {
            self.server(id)?.take_out(reason, true, now, chance);
        }
        self.told(id)
    }

    /// Whether soft verdicts may take this server out. They take out at most half of the servers, as long as one of the
    /// others is healthy.
    fn may_take_out(&mut self, id: ServerId, now: Instant) -> bool {
        let in_use = || self.in_use();
        let out = in_use().filter(|(_, entry)| entry.server.is_failing_softly()).count();
        if 2 * (out + 1) <= in_use().count() {
            return true;
        }
        let places: Vec<usize> = in_use().map(|(member, _)| member.entry).collect();
        !places.into_iter().any(|place| {
            let passes = |entry: &mut KnownServer| {
                let server = &mut entry.server;
                entry.id != id && !server.is_failing() && !server.is_bad(now)
            };
            self.entries.get_mut(place).is_some_and(passes)
        })
    }

    /// Ends an attempt.
    pub(crate) fn end(&mut self, id: ServerId, ticket: AttemptTicket) {
        if let Some(server) = self.server(id) {
            server.end(ticket);
        }
    }

    /// Returns the servers that must be probed now, and schedules the next probe of each.
    pub(crate) fn due_probes(&mut self, now: Instant) -> Vec<Arc<ServerIdentity>> {
        let mut due = Vec::new();
        for member in &self.members {
            let Some(entry) = self.entries.get_mut(member.entry) else {
                continue;
            };
            let is_due = entry.probe_at <= now || entry.server.wants_probe(entry.probe_asked, now);
            if is_due && is_probed(&entry.identity.platform) {
                entry.probe_at = now + PROBE_INTERVAL.mul_f64(0.8 + 0.4 * fastrand::f64());
                entry.probe_asked = Some(now);
                due.push(Arc::clone(&entry.identity));
            }
        }
        due
    }

    /// Records the error of a failed probe in words, before its result is applied.
    pub(crate) fn note_probe_error(&mut self, identity: &ServerIdentity, reason: Reason, error: &str) {
        if let Some(entry) = self.known(identity) {
            entry.note_error(reason, error);
        }
    }

    /// Applies the result of a probe. Returns the change in the server's health, if there is one.
    pub(crate) fn probed(
        &mut self,
        identity: &ServerIdentity,
        probed: Probed,
        now: Instant,
        chance: f64,
    ) -> Option<HealthTransition> {
        let entry = self.known(identity)?;
        let id = entry.id;
        entry.server.probe(probed, now, chance);
        self.told(id)
    }

    /// Records the server's name for the model.
    pub(crate) fn listed(&mut self, identity: &ServerIdentity, name: Option<String>) {
        if let Some(entry) = self.known(identity) {
            entry.hints.listed = name.map(Into::into);
        }
    }

    /// Whether to ask the server for its engine's metrics. They are of use only if calls can choose among several
    /// servers.
    pub(crate) fn wants_metrics(&mut self, identity: &ServerIdentity, now: Instant) -> bool {
        let has_choice = self.in_use().count() > 1;
        has_choice && self.known(identity).is_some_and(|entry| entry.hints.wants_metrics(now))
    }

    /// Records the load that the server's engine reported.
    pub(crate) fn measured(&mut self, identity: &ServerIdentity, load: Option<EngineLoad>, now: Instant) {
        if let Some(entry) = self.known(identity) {
            entry.hints.measured(load, entry.server.in_flight, now);
        }
    }

    /// Returns the state of each server.
    pub(crate) fn status(&self, now: Instant) -> Vec<Status> {
        let members = self.members.iter().filter_map(|member| self.entries.get(member.entry));
        let status = members.map(
            |entry @ KnownServer {
                 identity,
                 server,
                 hints,
                 ..
             }| {
                let until = server.resting_until().max(server.is_left_alone(now));
                Status {
                    identity: Arc::clone(identity),
                    health: server.health(),
                    error: entry.error().cloned(),
                    in_flight: server.in_flight,
                    slowness: server.slowness.now(now),
                    ramp: server.ramp(now),
                    engine: hints.load(now),
                    rest: until.map(|until| until.saturating_duration_since(now)),
                }
            },
        );
        status.collect()
    }

    /// Compares the server's health with the last reported one. If it changed, returns the change with the worst health
    /// of all servers behind the same endpoint.
    fn told(&mut self, id: ServerId) -> Option<HealthTransition> {
        let entry = self.entries.iter_mut().find(|entry| entry.id == id)?;
        let health = entry.server.health()?;
        let before = entry.told.replace(health);
        if before == Some(health) {
            return None;
        }
        let (identity, error) = (Arc::clone(&entry.identity), entry.error().cloned());
        let is_out = |health: Health| matches!(health, Health::Ejected(_));
        let others = self.members.iter().filter_map(|member| self.entries.get(member.entry));
        let same = others.filter(|entry| entry.identity.uri == identity.uri);
        let worst = same
            .filter_map(|entry| entry.server.health())
            .max_by_key(|health| health.badness())?;
        Some(HealthTransition {
            identity,
            worst,
            error,
            is_taken_out: is_out(health) && !before.is_some_and(is_out),
            is_back: !is_out(health) && before.is_some_and(is_out),
        })
    }

    /// Returns the members that may get calls: those with a weight above 0.
    fn in_use(&self) -> impl Iterator<Item = (&ServerInUse, &KnownServer)> {
        let members = self.members.iter().filter(|member| member.weight > 0);
        members.filter_map(|member| Some((member, self.entries.get(member.entry)?)))
    }

    fn known(&mut self, identity: &ServerIdentity) -> Option<&mut KnownServer> {
        self.entries.iter_mut().find(|entry| *entry.identity == *identity)
    }

    fn server(&mut self, id: ServerId) -> Option<&mut ServerRecord> {
        let entry = self.entries.iter_mut().find(|entry| entry.id == id);
        entry.map(|entry| &mut entry.server)
    }
}

/// Hashes an identity. The hash is the same on every router, so that calls of one key go to the same server from every
/// router.
fn hash(identity: &ServerIdentity) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(identity.uri.as_str().as_bytes());
    if let Some(address) = identity.address {
        hash.update(address.to_string().as_bytes());
    }
    hash.digest()
}
