//! The servers of models as this router's calls find them: which takes a call, which is taken out, and how it comes back.
//!
//! What is known belongs to a server's [`Identity`], so it survives a swap of the catalog; what no model has any longer is
//! dropped. The one hard idea: what takes a server out is evidence from calls, and what brings it back is too. Probes only
//! say when to try.
//!
//! The decisions are pure and lie in rooms beside it: `server` has the states of one server, `group` the choice among
//! those of a model.

mod attempt;
mod group;
mod health;
mod hints;
mod pace;
mod reports;
mod server;
#[cfg(test)]
mod tests;
mod window;

use std::{collections::HashMap, fmt, net::IpAddr, sync::Arc};

use parking_lot::{Mutex, MutexGuard, RwLock};
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use switchboard::{endpoint::EndpointUri, names::ModelName, resource::model::Platform, service::metrics::read_gauge};
use tokio::time::Instant;

pub use self::{
    attempt::InFlight,
    group::{ServerId, Status},
    health::{Health, Probed, Readiness, Verdict},
    hints::EngineLoad,
    pace::{Shape, Work},
    reports::{Change, Following},
};
use self::{
    group::{Changed, Group},
    reports::Reports,
};
use crate::{
    catalog::{Catalog, Model, ModelState, Tls},
    current::Current,
};

/// One server, told apart from all others. Whatever of it changes makes it another one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The model that it serves.
    pub model: ModelName,
    /// Its base URL.
    pub uri: EndpointUri,
    /// Its address, where the name has several. `None`: it is dialled by name.
    pub address: Option<IpAddr>,
    /// How it proves who it is.
    pub tls: Option<Arc<Tls>>,
    /// What it speaks.
    pub platform: Platform,
}

/// Knows the addresses behind names.
pub trait Addresses: Send + Sync + fmt::Debug {
    /// A number that changes whenever [`Self::of`] says something else.
    fn version(&self) -> u64;

    /// The addresses of an endpoint's name. Fewer than two: it is dialled by name.
    fn of(&self, uri: &EndpointUri) -> Arc<[IpAddr]>;
}

/// Every server is dialled by name.
#[derive(Debug, Clone, Copy)]
pub struct ByName;

impl Addresses for ByName {
    fn version(&self) -> u64 {
        0
    }

    fn of(&self, _: &EndpointUri) -> Arc<[IpAddr]> {
        Arc::default()
    }
}

/// What a server is wanted for.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// What keeps calls together. `None`: nothing.
    pub key: Option<u64>,
    /// The servers that this call has tried.
    pub tried: &'a [ServerId],
    /// What its time depends on.
    pub work: Work,
    /// When its caller stops waiting.
    pub deadline: Instant,
    /// Whether a server may be used as if it were well when all are failing.
    pub may_be_degraded: bool,
}

/// Who takes a call.
#[derive(Debug)]
pub struct Chosen {
    /// Which server.
    pub id: ServerId,
    /// The place of its endpoint in the model.
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

/// The servers of all models. A clone shares them.
#[derive(Debug, Clone)]
pub struct Endpoints(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    zone: Box<str>,
    addresses: Box<dyn Addresses>,
    groups: RwLock<HashMap<ModelName, Arc<Mutex<Group>>>>,
    reports: Reports,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    ejections: Counter,
    degraded: Counter,
}

impl Default for Endpoints {
    fn default() -> Self {
        Self::new("", ByName)
    }
}

impl Endpoints {
    /// Servers as a router in `zone` sees them; empty: nowhere in particular.
    #[must_use]
    pub fn new(zone: &str, addresses: impl Addresses + 'static) -> Self {
        Self(Arc::new(Shared {
            zone: zone.into(),
            addresses: Box::new(addresses),
            groups: RwLock::default(),
            reports: Reports::default(),
            counts: Counts::default(),
        }))
    }

    /// Chooses a server of a model, and begins an attempt there. `None`: none may be tried.
    #[must_use]
    pub fn choose(&self, model: &Arc<Model>, ask: &Ask<'_>) -> Option<Chosen> {
        let now = Instant::now();
        let group = self.group(&model.name);
        let choice = {
            let mut group = self.aligned(&group, model, now);
            group.choose(ask, now, fastrand::f64)?
        };
        if choice.is_degraded {
            self.0.counts.degraded.inc();
        }
        Some(Chosen {
            id: choice.id,
            endpoint: choice.endpoint,
            address: choice.address,
            listed: choice.listed,
            is_degraded: choice.is_degraded,
            in_flight: InFlight::new(self.clone(), group, choice.id, choice.ticket, ask, now),
        })
    }

    /// Whether a model takes calls.
    #[must_use]
    pub fn readiness(&self, model: &Arc<Model>) -> Readiness {
        let now = Instant::now();
        let Some(group) = self.known_group(&model.name) else {
            return Readiness::Ready;
        };
        self.aligned(&group, model, now).readiness(now)
    }

    /// Whether a model has a server that takes calls and was not tried.
    #[must_use]
    pub fn has_another(&self, model: &Arc<Model>, tried: &[ServerId]) -> bool {
        let now = Instant::now();
        let group = self.group(&model.name);
        self.aligned(&group, model, now).has_another(tried, now)
    }

    /// The servers of a catalog that shall be probed now, each about every ten seconds, and at once where only a probe is
    /// missing for its return. To be asked about once a second; what is told must be probed.
    #[must_use]
    pub fn to_probe(&self, catalog: &Catalog) -> Vec<Arc<Identity>> {
        let now = Instant::now();
        let mut due = Vec::new();
        for model in ready(catalog) {
            let group = self.group(&model.name);
            due.append(&mut self.aligned(&group, model, now).due_probes(now));
        }
        due
    }

    /// Takes down what a probe has found. A server that is known no longer is passed over.
    pub fn probed(&self, identity: &Identity, probed: Probed) {
        if let Some(group) = self.known_group(&identity.model) {
            let mut group = lock(&group);
            let changed = group.probed(identity, probed, Instant::now(), fastrand::f64());
            self.tell(&group, changed);
        }
    }

    /// Takes down a server's name for its model, as its model list tells it.
    pub fn listed(&self, identity: &Identity, name: Option<String>) {
        if let Some(group) = self.known_group(&identity.model) {
            lock(&group).listed(identity, name);
        }
    }

    /// Whether to ask for the metrics of a server's engine: where calls have a choice, and it may have some.
    #[must_use]
    pub fn wants_metrics(&self, identity: &Identity) -> bool {
        let group = self.known_group(&identity.model);
        group.is_some_and(|group| lock(&group).wants_metrics(identity, Instant::now()))
    }

    /// Takes down what a server's engine has to do. `None`: it does not tell.
    pub fn measured(&self, identity: &Identity, load: Option<EngineLoad>) {
        if let Some(group) = self.known_group(&identity.model) {
            lock(&group).measured(identity, load, Instant::now());
        }
    }

    /// How each server of a catalog does.
    #[must_use]
    pub fn status(&self, catalog: &Catalog) -> Vec<Status> {
        let now = Instant::now();
        let mut models: Vec<_> = ready(catalog).collect();
        models.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let status = models.into_iter().flat_map(|model| {
            let group = self.group(&model.name);
            self.aligned(&group, model, now).status(now)
        });
        status.collect()
    }

    /// The models of a catalog all of whose servers are failing.
    #[must_use]
    pub fn down(&self, catalog: &Catalog) -> Vec<ModelName> {
        let is_down = |model: &&Arc<Model>| matches!(self.readiness(model), Readiness::Down { .. });
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

    /// Forgets the servers that no model of `catalog` has; that they are gone is the last that is told of them.
    pub fn keep(&self, catalog: &Catalog) {
        self.0
            .groups
            .write()
            .retain(|name, _| catalog.models.contains_key(name));
        self.0.reports.keep(catalog);
    }

    /// Begins to tell of all servers anew.
    #[must_use]
    pub fn follow(&self) -> Following {
        self.0.reports.follow()
    }

    /// Tells what has changed in `group`, which is still locked: what is told last is what holds.
    fn tell(&self, _group: &MutexGuard<'_, Group>, changed: Option<Changed>) {
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

    fn aligned<'a>(&self, group: &'a Mutex<Group>, model: &Arc<Model>, now: Instant) -> MutexGuard<'a, Group> {
        let mut group = lock(group);
        group.align(model, &self.0.zone, &*self.0.addresses, now);
        group
    }

    fn known_group(&self, model: &ModelName) -> Option<Arc<Mutex<Group>>> {
        let groups = self.0.groups.read();
        groups.get(model).cloned()
    }

    fn group(&self, model: &ModelName) -> Arc<Mutex<Group>> {
        self.known_group(model).unwrap_or_else(|| {
            let mut groups = self.0.groups.write();
            Arc::clone(groups.entry(model.clone()).or_default())
        })
    }
}

fn ready(catalog: &Catalog) -> impl Iterator<Item = &Arc<Model>> {
    catalog.models.values().filter_map(|state| match state {
        ModelState::Ready(model) => Some(model),
        ModelState::Disabled | ModelState::CredentialMissing | ModelState::NotReady => None,
    })
}

fn lock(group: &Mutex<Group>) -> MutexGuard<'_, Group> {
    group.lock()
}
