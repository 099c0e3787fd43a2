//! The run-time state of each model: all that this router knows of it besides the catalog, behind one handle for each
//! model.
//!
//! A [`LiveModel`] has the model's servers, its places with their queue, its retry budget and its refused credential. A
//! call gets the handle once for each candidate; using it afterwards needs no look-up and no lock that other models
//! use.
//!
//! The one hard idea: one rule of retention. The state of a model is kept while the catalog in use names the model, and
//! while a call is at it. It survives every swap of the catalog in between. The limits are those of the newest catalog
//! that was put in use or that a call brought with it.

mod in_flight;
#[cfg(test)]
mod places;
mod slot;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use parking_lot::{Mutex, MutexGuard, RwLock};
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use switchboard::{names::ModelName, reason::Reason, service::metrics::read_gauge};
use tokio::time::{Instant, timeout_at};

pub use self::{in_flight::InFlight, slot::Slot};
use crate::{
    catalog::{Catalog, CompiledModel, ModelState},
    current::Current,
    endpoints::{
        Addresses, Ask, ByName, EngineLoad, Following, Health, HealthTransition, ModelReadiness, Probed, Reports,
        ServerGroup, ServerId, ServerIdentity, Status,
    },
    permits::{Admitted, Gate, Overloaded, Party, Room},
};

/// The server that was chosen for a call.
#[derive(Debug)]
pub struct Chosen {
    /// The server.
    pub id: ServerId,
    /// The index of its endpoint in the model.
    pub endpoint: usize,
    /// The address to dial. `None`: the host name is dialled.
    pub address: Option<IpAddr>,
    /// The server's name for the model, from its model list. `None`: the list does not show it, or was not read yet.
    pub listed: Option<Arc<str>>,
    /// Whether all servers of the model are failing.
    pub is_degraded: bool,
    /// The attempt at the server, which takes its verdict.
    pub in_flight: InFlight,
}

/// The run-time state of all models. Clones share it.
#[derive(Debug, Clone)]
pub struct LiveModels(Arc<SharedModels>);

#[derive(Debug)]
struct SharedModels {
    zone: Box<str>,
    addresses: Box<dyn Addresses>,
    models: RwLock<HashMap<ModelName, Arc<ModelParts>>>,
    reports: Reports,
    counts: ModelCounts,
}

/// The run-time state of one model.
#[derive(Debug)]
struct ModelParts {
    servers: Mutex<ServerGroup>,
    gate: Mutex<Gate>,
}

#[derive(Debug, Default)]
struct ModelCounts {
    ejections: Counter,
    degraded: Counter,
    repeats_refused: Counter,
    hedges: Counter,
}

/// The handle of one model: its run-time state, and the version of the model that the call uses. Clones share both.
#[derive(Debug, Clone)]
pub struct LiveModel {
    all: LiveModels,
    parts: Arc<ModelParts>,
    /// The version of the model that the call uses.
    pub model: Arc<CompiledModel>,
}

/// The retry budget of the model that a call was resolved to.
#[derive(Debug, Clone)]
pub struct RetryBudget {
    all: LiveModels,
    parts: Arc<ModelParts>,
}

impl Default for LiveModels {
    fn default() -> Self {
        Self::new("", ByName)
    }
}

impl LiveModels {
    /// Creates the state of all models for a router in `zone`. Empty: the router is in no zone.
    #[must_use]
    pub fn new(zone: &str, addresses: impl Addresses + 'static) -> Self {
        Self(Arc::new(SharedModels {
            zone: zone.into(),
            addresses: Box::new(addresses),
            models: RwLock::default(),
            reports: Reports::default(),
            counts: ModelCounts::default(),
        }))
    }

    /// Returns the handle of a model.
    #[must_use]
    pub fn of(&self, model: &Arc<CompiledModel>) -> LiveModel {
        LiveModel {
            all: self.clone(),
            parts: self.parts(&model.name),
            model: Arc::clone(model),
        }
    }

    /// Returns the retry budget of a model.
    #[must_use]
    pub fn budget(&self, model: &ModelName) -> RetryBudget {
        RetryBudget {
            all: self.clone(),
            parts: self.parts(model),
        }
    }

    /// Applies the limits of a catalog that is about to be put in use. Waiting calls that get a place under these
    /// limits are admitted.
    pub fn align(&self, catalog: &Arc<Catalog>) {
        for model in ready(catalog) {
            if let Some(parts) = self.known(&model.name) {
                parts.gate.lock().align(catalog, model);
            }
        }
    }

    /// Returns the servers of a catalog that must be probed now: each about every ten seconds, or at once if only a
    /// probe is missing before a call may try it. To be called about once a second; the caller must probe what is
    /// returned.
    #[must_use]
    pub fn to_probe(&self, catalog: &Catalog) -> Vec<Arc<ServerIdentity>> {
        let now = Instant::now();
        let mut due = Vec::new();
        for model in ready(catalog) {
            due.append(&mut self.of(model).servers(now).due_probes(now));
        }
        due
    }

    /// Records in words why a probe failed, for the state of its server. To be called before [`Self::probed`].
    pub fn note_probe_error(&self, identity: &ServerIdentity, reason: Reason, error: &str) {
        if let Some(parts) = self.known(&identity.model) {
            parts.servers.lock().note_probe_error(identity, reason, error);
        }
    }

    /// Records the result of a probe. A server that is no longer known is ignored.
    pub fn probed(&self, identity: &ServerIdentity, probed: Probed) {
        if let Some(parts) = self.known(&identity.model) {
            let mut servers = parts.servers.lock();
            let changed = servers.probed(identity, probed, Instant::now(), fastrand::f64());
            self.tell(&servers, changed);
        }
    }

    /// Records a server's name for its model, from its model list.
    pub fn listed(&self, identity: &ServerIdentity, name: Option<String>) {
        if let Some(parts) = self.known(&identity.model) {
            parts.servers.lock().listed(identity, name);
        }
    }

    /// Whether to ask for the metrics of a server's engine: calls can choose among several servers, and this one may
    /// have metrics.
    #[must_use]
    pub fn wants_metrics(&self, identity: &ServerIdentity) -> bool {
        let parts = self.known(&identity.model);
        parts.is_some_and(|parts| parts.servers.lock().wants_metrics(identity, Instant::now()))
    }

    /// Records the load that a server's engine reported. `None`: it does not report any.
    pub fn measured(&self, identity: &ServerIdentity, load: Option<EngineLoad>) {
        if let Some(parts) = self.known(&identity.model) {
            parts.servers.lock().measured(identity, load, Instant::now());
        }
    }

    /// Returns the state of each server of a catalog.
    #[must_use]
    pub fn status(&self, catalog: &Catalog) -> Vec<Status> {
        let now = Instant::now();
        let mut models: Vec<_> = ready(catalog).collect();
        models.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let status = models
            .into_iter()
            .flat_map(|model| self.of(model).servers(now).status(now));
        status.collect()
    }

    /// Returns the models of a catalog whose servers are all failing.
    #[must_use]
    pub fn down(&self, catalog: &Catalog) -> Vec<ModelName> {
        let is_down = |model: &&Arc<CompiledModel>| matches!(self.of(model).readiness(), ModelReadiness::Down { .. });
        let down = ready(catalog).filter(is_down);
        let mut names: Vec<_> = down.map(|model| model.name.clone()).collect();
        names.sort_unstable();
        names
    }

    /// Registers the metrics.
    pub fn register(&self, current: &Arc<Current>, registry: &mut Registry) {
        let counts = &self.0.counts;
        registry.register(
            "endpoint_ejections",
            "Number of times that a server was taken out because it failed repeatedly",
            counts.ejections.clone(),
        );
        registry.register(
            "degraded_attempts",
            "Attempts at a model whose servers are all failing, made because no other model could answer",
            counts.degraded.clone(),
        );
        registry.register(
            "repeats_refused",
            "Calls that were not repeated after a failure because the retry budget was used up",
            counts.repeats_refused.clone(),
        );
        registry.register(
            "hedges",
            "Second attempts that began in parallel because the first had no token in time",
            counts.hedges.clone(),
        );
        let shown = self.clone();
        read_gauge(
            registry,
            "model_places_taken",
            "Places that calls hold, sum of all models",
            move || Some(shown.sum(Gate::taken)),
        );
        let shown = self.clone();
        read_gauge(
            registry,
            "model_queue_length",
            "Calls that wait for a place, sum of all models",
            move || Some(shown.sum(Gate::waiting)),
        );
        let shown = (self.clone(), Arc::clone(current));
        read_gauge(
            registry,
            "endpoints_ejected",
            "Servers that are taken out at the moment because they failed repeatedly",
            move || {
                let (endpoints, current) = &shown;
                let status = endpoints.status(&*current.load()?);
                let ejected = status
                    .iter()
                    .filter(|status| matches!(status.health, Some(Health::Ejected(_))));
                u32::try_from(ejected.count()).ok().map(f64::from)
            },
        );
        let shown = (self.clone(), Arc::clone(current));
        read_gauge(
            registry,
            "models_down",
            "Models whose servers are all failing",
            move || {
                let (endpoints, current) = &shown;
                u32::try_from(endpoints.down(&*current.load()?).len())
                    .ok()
                    .map(f64::from)
            },
        );
    }

    /// Removes the state of the models that `catalog`, which is in use, does not name, unless a call is at them. The
    /// removal of their servers is the last change that is reported of them.
    pub fn keep(&self, catalog: &Catalog) {
        // A call clones what it needs under the lock, so the count cannot rise from 1 meanwhile.
        let is_needed = |name: &ModelName, parts: &mut Arc<ModelParts>| {
            catalog.models.contains_key(name) || Arc::strong_count(parts) > 1
        };
        self.0.models.write().retain(is_needed);
        self.0.reports.keep(catalog);
    }

    /// Returns a follower that reports all servers from the start.
    #[must_use]
    pub fn follow(&self) -> Following {
        self.0.reports.follow()
    }

    /// Logs and records a change in `servers`. Their lock is still held, so that changes are reported in the order in
    /// which they happen.
    fn tell(&self, _servers: &MutexGuard<'_, ServerGroup>, changed: Option<HealthTransition>) {
        if let Some(changed) = changed {
            let identity = &changed.identity;
            let (model, server) = (&identity.model, identity.uri.origin().host_and_port());
            if changed.is_taken_out {
                self.0.counts.ejections.inc();
                let reason = changed.worst.reason().map(tracing::field::display);
                tracing::warn!(model.name = %model, upstream.addr = %server, reason, error = changed.error.as_deref(), "a server failed repeatedly: it gets no calls at the moment");
            } else if changed.is_back {
                tracing::info!(model.name = %model, upstream.addr = %server, "a server answers again: its share of calls grows gradually");
            }
            self.0.reports.note(&identity.model, &identity.uri, changed.worst);
        }
    }

    fn known(&self, model: &ModelName) -> Option<Arc<ModelParts>> {
        self.0.models.read().get(model).cloned()
    }

    fn parts(&self, model: &ModelName) -> Arc<ModelParts> {
        self.known(model).unwrap_or_else(|| {
            let mut models = self.0.models.write();
            let parts = models.entry(model.clone()).or_insert_with(|| {
                Arc::new(ModelParts {
                    servers: Mutex::default(),
                    gate: Mutex::new(Gate::new(Instant::now())),
                })
            });
            Arc::clone(parts)
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "a metric is a float: exact up to 2^53")]
    fn sum(&self, count: impl Fn(&Gate) -> usize) -> f64 {
        let models = self.0.models.read();
        models.values().map(|parts| count(&parts.gate.lock())).sum::<usize>() as f64
    }
}

impl LiveModel {
    /// Chooses a server, and begins an attempt there. `None`: no server may be chosen.
    #[must_use]
    pub fn choose(&self, ask: &Ask<'_>) -> Option<Chosen> {
        let now = Instant::now();
        let choice = self.servers(now).choose(ask, now, fastrand::f64)?;
        if choice.is_degraded {
            self.all.0.counts.degraded.inc();
        }
        Some(Chosen {
            id: choice.id,
            endpoint: choice.endpoint,
            address: choice.address,
            listed: choice.listed,
            is_degraded: choice.is_degraded,
            in_flight: InFlight::new(self.clone(), choice.id, choice.ticket, ask, now),
        })
    }

    /// Returns whether the model's servers take calls.
    #[must_use]
    pub fn readiness(&self) -> ModelReadiness {
        let now = Instant::now();
        self.servers(now).readiness(now)
    }

    /// Whether a server that was not tried yet takes calls.
    #[must_use]
    pub fn has_another(&self, tried: &[ServerId]) -> bool {
        let now = Instant::now();
        self.servers(now).has_another(tried, now)
    }

    /// Returns what the gate decides: the HTTP status of a refused credential for which calls pass the model over now,
    /// and whether a call of `party` that uses `catalog` would find room.
    #[must_use]
    pub fn at_gate(&self, catalog: &Arc<Catalog>, party: Party) -> (Option<u16>, Room) {
        let gate = self.gate(catalog);
        (gate.refusal(&self.model, Instant::now()), gate.room(party))
    }

    /// Lets a call proceed unless the credential was refused recently. Some time after the refusal, one call may
    /// proceed to try it.
    ///
    /// # Errors
    ///
    /// The HTTP status of the refusal.
    pub fn admit(&self) -> Result<(), u16> {
        self.parts.gate.lock().admit(&self.model, Instant::now())
    }

    /// Records that the credential was refused with this HTTP status, and that no newer one is known.
    pub fn refuse(&self, status: u16) {
        self.parts.gate.lock().refuse(&self.model, status, Instant::now());
    }

    /// Waits for a place, as long as the model's limits and `until` allow.
    ///
    /// # Errors
    ///
    /// [`Overloaded`] if the call gets no place.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the queue.
    pub async fn place(&self, catalog: &Arc<Catalog>, party: Party, until: Instant) -> Result<Slot, Overloaded> {
        let Admitted { ticket, called } = self.gate(catalog).enter(party)?;
        let slot = Slot::new(Arc::clone(&self.parts), ticket);
        if let Some(called) = called {
            let until = until.min(Instant::now() + self.model.spec.limits.queue_timeout());
            let called = timeout_at(until, called).await.map_err(|_elapsed| Overloaded)?;
            called.map_err(|_sent_away| Overloaded)?;
        }
        Ok(slot)
    }

    /// Returns a place if one is free now. `None`: no place is free.
    #[must_use]
    pub fn place_now(&self, catalog: &Arc<Catalog>, party: Party) -> Option<Slot> {
        let ticket = self.gate(catalog).enter_now(party)?;
        Some(Slot::new(Arc::clone(&self.parts), ticket))
    }

    fn servers(&self, now: Instant) -> MutexGuard<'_, ServerGroup> {
        let mut servers = self.parts.servers.lock();
        let shared = &self.all.0;
        servers.align(&self.model, &shared.zone, &*shared.addresses, now);
        servers
    }

    fn gate(&self, catalog: &Arc<Catalog>) -> MutexGuard<'_, Gate> {
        let mut gate = self.parts.gate.lock();
        gate.align(catalog, &self.model);
        gate
    }
}

impl RetryBudget {
    /// Counts a call that was resolved to the model and is about to reach a server.
    pub fn called(&self) {
        self.parts.gate.lock().called(Instant::now());
    }

    /// Whether a call may be repeated after an attempt that cost a server work. If so, the repeat is charged to the
    /// budget.
    #[must_use]
    pub fn repeat(&self) -> bool {
        let may_repeat = self.parts.gate.lock().repeat(Instant::now());
        if !may_repeat {
            self.all.0.counts.repeats_refused.inc();
        }
        may_repeat
    }

    /// Whether a call may have a second attempt in parallel with its first. If so, the hedge is charged to the budget.
    #[must_use]
    pub fn hedge(&self) -> bool {
        let may_hedge = self.parts.gate.lock().hedge();
        if may_hedge {
            self.all.0.counts.hedges.inc();
        }
        may_hedge
    }
}

fn ready(catalog: &Catalog) -> impl Iterator<Item = &Arc<CompiledModel>> {
    catalog.models.values().filter_map(|state| match state {
        ModelState::Ready(model) => Some(model),
        ModelState::Disabled | ModelState::CredentialMissing | ModelState::NotReady => None,
    })
}
