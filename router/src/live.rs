//! All that this router knows of each model besides the catalog, behind one handle a model.
//!
//! A [`LiveModel`] has the model's servers, its places with their queue, its retry budget and its refused credential. A
//! call asks for it once for each candidate; what it asks of it then takes no look-up and no lock that other models use.
//!
//! The one hard idea: one rule of retention. What is known of a model is kept while the catalog in use names the model, and
//! while a call is at it. It survives every swap of the catalog in between, and limits are those of the newest catalog that
//! was put in use or that a call came with.

mod in_flight;
#[cfg(test)]
mod places;
mod slot;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use parking_lot::{Mutex, MutexGuard, RwLock};
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use switchboard::{names::ModelName, service::metrics::read_gauge};
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

/// Who takes a call.
#[derive(Debug)]
pub struct Chosen {
    /// Which server.
    pub id: ServerId,
    /// The index of its endpoint in the model.
    pub endpoint: usize,
    /// The address to dial. `None`: by name.
    pub address: Option<IpAddr>,
    /// The server's name for the model, as its model list tells it. `None`: it does not, or was not asked yet.
    pub listed: Option<Arc<str>>,
    /// Whether all servers of the model are failing.
    pub is_degraded: bool,
    /// The attempt there, to be told how it goes.
    pub in_flight: InFlight,
}

/// What is known of all models. A clone shares it.
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

/// What is known of one model.
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

/// One model, as a call finds it: what is known of it, and the version of it that the call has. A clone shares both.
#[derive(Debug, Clone)]
pub struct LiveModel {
    all: LiveModels,
    parts: Arc<ModelParts>,
    /// The version that the call has.
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
    /// Servers as a router in `zone` sees them; empty: nowhere in particular.
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

    /// What is known of a model.
    #[must_use]
    pub fn of(&self, model: &Arc<CompiledModel>) -> LiveModel {
        LiveModel {
            all: self.clone(),
            parts: self.parts(&model.name),
            model: Arc::clone(model),
        }
    }

    /// The retry budget of a model.
    #[must_use]
    pub fn budget(&self, model: &ModelName) -> RetryBudget {
        RetryBudget {
            all: self.clone(),
            parts: self.parts(model),
        }
    }

    /// Takes the limits of a catalog that is about to be put in use. Calls that wait and have a place by them are let in.
    pub fn align(&self, catalog: &Arc<Catalog>) {
        for model in ready(catalog) {
            if let Some(parts) = self.known(&model.name) {
                parts.gate.lock().align(catalog, model);
            }
        }
    }

    /// The servers of a catalog that shall be probed now, each about every ten seconds, and at once where only a probe is
    /// missing for its return. To be asked about once a second; what is told must be probed.
    #[must_use]
    pub fn to_probe(&self, catalog: &Catalog) -> Vec<Arc<ServerIdentity>> {
        let now = Instant::now();
        let mut due = Vec::new();
        for model in ready(catalog) {
            due.append(&mut self.of(model).servers(now).due_probes(now));
        }
        due
    }

    /// Takes down what a probe has found. A server that is known no longer is passed over.
    pub fn probed(&self, identity: &ServerIdentity, probed: Probed) {
        if let Some(parts) = self.known(&identity.model) {
            let mut servers = parts.servers.lock();
            let changed = servers.probed(identity, probed, Instant::now(), fastrand::f64());
            self.tell(&servers, changed);
        }
    }

    /// Takes down a server's name for its model, as its model list tells it.
    pub fn listed(&self, identity: &ServerIdentity, name: Option<String>) {
        if let Some(parts) = self.known(&identity.model) {
            parts.servers.lock().listed(identity, name);
        }
    }

    /// Whether to ask for the metrics of a server's engine: where calls have a choice, and it may have some.
    #[must_use]
    pub fn wants_metrics(&self, identity: &ServerIdentity) -> bool {
        let parts = self.known(&identity.model);
        parts.is_some_and(|parts| parts.servers.lock().wants_metrics(identity, Instant::now()))
    }

    /// Takes down what a server's engine has to do. `None`: it does not tell.
    pub fn measured(&self, identity: &ServerIdentity, load: Option<EngineLoad>) {
        if let Some(parts) = self.known(&identity.model) {
            parts.servers.lock().measured(identity, load, Instant::now());
        }
    }

    /// How each server of a catalog does.
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

    /// The models of a catalog all of whose servers are failing.
    #[must_use]
    pub fn down(&self, catalog: &Catalog) -> Vec<ModelName> {
        let is_down = |model: &&Arc<CompiledModel>| matches!(self.of(model).readiness(), ModelReadiness::Down { .. });
        let down = ready(catalog).filter(is_down);
        let mut names: Vec<_> = down.map(|model| model.name.clone()).collect();
        names.sort_unstable();
        names
    }

    /// Shows what is counted.
    pub fn register(&self, current: &Arc<Current>, registry: &mut Registry) {
        let counts = &self.0.counts;
        registry.register(
            "endpoint_ejections",
            "How often a server was taken out because it failed repeatedly",
            counts.ejections.clone(),
        );
        registry.register(
            "degraded_attempts",
            "Attempts at a model all of whose servers are failing, where no other model could answer",
            counts.degraded.clone(),
        );
        registry.register(
            "repeats_refused",
            "Calls that were not tried once more after a failure, since too many were",
            counts.repeats_refused.clone(),
        );
        registry.register(
            "hedges",
            "Calls that were made a second time, since no token came in time",
            counts.hedges.clone(),
        );
        let shown = self.clone();
        read_gauge(
            registry,
            "model_places_taken",
            "Places that calls hold, of all models together",
            move || Some(shown.sum(Gate::taken)),
        );
        let shown = self.clone();
        read_gauge(
            registry,
            "model_queue_length",
            "Calls that wait for a place, of all models together",
            move || Some(shown.sum(Gate::waiting)),
        );
        let shown = (self.clone(), Arc::clone(current));
        read_gauge(
            registry,
            "endpoints_ejected",
            "Servers that get no calls for now",
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
            "Models all of whose servers are failing",
            move || {
                let (endpoints, current) = &shown;
                u32::try_from(endpoints.down(&*current.load()?).len())
                    .ok()
                    .map(f64::from)
            },
        );
    }

    /// Forgets the models that `catalog`, which is in use, does not name, unless a call is at them; that their servers are
    /// gone is the last that is told of them.
    pub fn keep(&self, catalog: &Catalog) {
        // A call clones what it needs under the lock.
        let is_needed = |name: &ModelName, parts: &mut Arc<ModelParts>| {
            catalog.models.contains_key(name) || Arc::strong_count(parts) > 1
        };
        self.0.models.write().retain(is_needed);
        self.0.reports.keep(catalog);
    }

    /// Begins to tell of all servers anew.
    #[must_use]
    pub fn follow(&self) -> Following {
        self.0.reports.follow()
    }

    /// Tells what has changed in `servers`, which are still locked: what is told last is what holds.
    fn tell(&self, _servers: &MutexGuard<'_, ServerGroup>, changed: Option<HealthTransition>) {
        if let Some(changed) = changed {
            let identity = &changed.identity;
            let (model, server) = (&identity.model, identity.uri.origin().host_and_port());
            if changed.is_taken_out {
                self.0.counts.ejections.inc();
                let reason = changed.worst.reason().map(tracing::field::display);
                tracing::warn!(model.name = %model, upstream.addr = %server, reason, "a server failed repeatedly: it gets no calls for now");
            } else if changed.is_back {
                tracing::info!(model.name = %model, upstream.addr = %server, "a server answers again: it gets its calls little by little");
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
    /// Chooses a server, and begins an attempt there. `None`: none may be tried.
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

    /// Whether the servers take calls.
    #[must_use]
    pub fn readiness(&self) -> ModelReadiness {
        let now = Instant::now();
        self.servers(now).readiness(now)
    }

    /// Whether there is a server that takes calls and was not tried.
    #[must_use]
    pub fn has_another(&self, tried: &[ServerId]) -> bool {
        let now = Instant::now();
        self.servers(now).has_another(tried, now)
    }

    /// The HTTP status with which the credential was refused, for which calls pass the model over now, and whether a call of
    /// `party` with `catalog` would find room.
    #[must_use]
    pub fn at_gate(&self, catalog: &Arc<Catalog>, party: Party) -> (Option<u16>, Room) {
        let gate = self.gate(catalog);
        (gate.refusal(&self.model, Instant::now()), gate.room(party))
    }

    /// Has a call go on unless the credential is refused. If it was refused long ago, one call goes on.
    ///
    /// # Errors
    ///
    /// The HTTP status that refused it.
    pub fn admit(&self) -> Result<(), u16> {
        self.parts.gate.lock().admit(&self.model, Instant::now())
    }

    /// Notes that the credential was refused with this HTTP status, and there is no newer one.
    pub fn refuse(&self, status: u16) {
        self.parts.gate.lock().refuse(&self.model, status, Instant::now());
    }

    /// Waits for a place, as long as the model's limits and `until` allow.
    ///
    /// # Errors
    ///
    /// [`Overloaded`].
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

    /// A place, if there is one now.
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
    /// Counts a call that was resolved to the model, which is about to reach a server.
    pub fn called(&self) {
        self.parts.gate.lock().called(Instant::now());
    }

    /// Whether a call may be tried once more, after an attempt that cost a server work. If so it is counted.
    #[must_use]
    pub fn repeat(&self) -> bool {
        let may_repeat = self.parts.gate.lock().repeat(Instant::now());
        if !may_repeat {
            self.all.0.counts.repeats_refused.inc();
        }
        may_repeat
    }

    /// Whether a call may be made a second time beside its first attempt. If so it is counted.
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
