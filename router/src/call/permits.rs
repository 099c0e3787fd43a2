//! Who may make a call now.
//!
//! A feature has as many calls at a time as its limit says, and a model as many places. A model has a budget for what is
//! tried once more, and is left alone for a while when its credential is refused. All of it counts on this router alone.
//!
//! They are kept by name, so that they survive a swap of the catalog; their limits are those of the newest catalog that a
//! call came with.

pub mod places;
mod quota;
mod refusals;
mod repeats;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::{Mutex, MutexGuard};
use prometheus_client::registry::Registry;
use switchboard::{
    names::{FeatureName, ModelName, Revision},
    resource::model::Count,
    service::metrics::read_gauge,
};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

pub use self::{
    places::Room,
    quota::{FeaturePermit, QuotaExceeded},
};
use self::{
    places::{Entry, Places, Ticket},
    quota::Quotas,
    refusals::Refusals,
    repeats::Repeats,
};
use crate::catalog::{Catalog, Model};

/// The model has no place: too many run, and too many wait or it was waited in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overloaded;

/// Whose calls are counted together at one model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Party {
    /// The feature whose setting is used.
    pub feature: &'static FeatureName,
    /// Whether the call comes to the feature's own model, where its reservation is. By rule or as a fallback it does not.
    pub has_reservation: bool,
}

/// The calls of all features and the places of all models. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Permits(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    models: Mutex<HashMap<ModelName, Gate>>,
    features: Quotas,
    repeats: Repeats,
    refusals: Mutex<Refusals>,
}

#[derive(Debug, Default)]
struct Gate {
    places: Places<Party, oneshot::Sender<()>>,
    /// The configuration that the limits are of: calls with an older one must not set them back.
    limits_of: Option<(i64, Revision)>,
    catalog: Weak<Catalog>,
}

/// A place at a model, or in its queue. Dropped, it is free for the next.
#[derive(Debug)]
pub struct Place {
    permits: Permits,
    model: Arc<Model>,
    ticket: Option<Ticket<Party>>,
}

impl Permits {
    /// Counts a call of a feature that may have `max` at a time, until what is returned is dropped.
    ///
    /// # Errors
    ///
    /// [`QuotaExceeded`] when it has as many.
    pub fn begin(&self, feature: &'static FeatureName, max: Option<usize>) -> Result<FeaturePermit, QuotaExceeded> {
        self.0.features.begin(feature, max)
    }

    /// Whether a feature that may have `max` calls at a time has as many.
    #[must_use]
    pub fn is_spent(&self, feature: &FeatureName, max: Option<usize>) -> bool {
        self.0.features.is_spent(feature, max)
    }

    /// Waits for a place at a model of `catalog`, as long as its limits and `until` allow.
    ///
    /// # Errors
    ///
    /// [`Overloaded`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the queue.
    pub async fn place(
        &self,
        catalog: &Arc<Catalog>,
        model: &Arc<Model>,
        party: Party,
        until: Instant,
    ) -> Result<Place, Overloaded> {
        let (place, called) = self.enter(catalog, model, party)?;
        if let Some(called) = called {
            let until = until.min(Instant::now() + model.spec.limits.queue_timeout());
            let called = timeout_at(until, called).await.map_err(|_elapsed| Overloaded)?;
            called.map_err(|_sent_away| Overloaded)?;
        }
        Ok(place)
    }

    /// A place at a model of `catalog`, if there is one now.
    #[must_use]
    pub fn place_now(&self, catalog: &Arc<Catalog>, model: &Arc<Model>, party: Party) -> Option<Place> {
        let mut models = self.lock();
        // Whoever asks for a second place holds a first.
        let gate = models.get_mut(&model.name)?;
        gate.configure(catalog, model);
        let ticket = gate.places.enter_now(party)?;
        Some(Place {
            permits: self.clone(),
            model: Arc::clone(model),
            ticket: Some(ticket),
        })
    }

    /// Whether a call of `party` would find room at a model of `catalog` now.
    #[must_use]
    pub fn room(&self, catalog: &Arc<Catalog>, model: &Model, party: Party) -> Room {
        let mut models = self.lock();
        let mut unknown = Gate::default();
        let gate = models.get_mut(&model.name).unwrap_or(&mut unknown);
        gate.configure(catalog, model);
        gate.places.room(party)
    }

    /// The HTTP status with which a model's credential was refused, for which calls pass it over now.
    #[must_use]
    pub fn refusal(&self, model: &Model) -> Option<u16> {
        self.refusals().check(model, Instant::now())
    }

    /// Has a call go on to a model unless its credential is refused. When it was refused long ago, one call goes on.
    ///
    /// # Errors
    ///
    /// The HTTP status that refused it.
    pub fn admit(&self, model: &Model) -> Result<(), u16> {
        self.refusals().admit(model, Instant::now())
    }

    /// Notes that a model's credential was refused with this HTTP status, and there is no newer one.
    pub fn refuse(&self, model: &Model, status: u16) {
        self.refusals().refuse(model, status, Instant::now());
    }

    /// Notes that a model's credential was accepted.
    pub fn accept(&self, model: &Model) {
        self.refusals().accept(model);
    }

    /// Counts a call of a model that it was resolved to, which is about to reach a server.
    pub fn called(&self, model: &ModelName) {
        self.0.repeats.call(model);
    }

    /// Whether a call may be tried once more that was resolved to this model, after an attempt that cost a server work. If
    /// so it is counted.
    #[must_use]
    pub fn repeat(&self, model: &ModelName) -> bool {
        self.0.repeats.repeat(model)
    }

    /// Whether a call that was resolved to this model may be made a second time beside its first attempt. If so it is
    /// counted.
    #[must_use]
    pub fn hedge(&self, model: &ModelName) -> bool {
        self.0.repeats.hedge(model)
    }

    /// Shows what is counted.
    pub fn register(&self, registry: &mut Registry) {
        self.0.features.register(registry);
        self.0.repeats.register(registry);
        let shown = self.clone();
        read_gauge(
            registry,
            "model_places_taken",
            "Places that calls hold, of all models together",
            move || Some(shown.sum(Places::taken)),
        );
        let shown = self.clone();
        read_gauge(
            registry,
            "model_queue_length",
            "Calls that wait for a place, of all models together",
            move || Some(shown.sum(Places::waiting)),
        );
    }

    #[expect(clippy::cast_precision_loss, reason = "a metric is a float: exact up to 2^53")]
    fn sum(&self, count: impl Fn(&Places<Party, oneshot::Sender<()>>) -> usize) -> f64 {
        let models = self.lock();
        models.values().map(|gate| count(&gate.places)).sum::<usize>() as f64
    }

    /// A place, or one in the queue with what tells that it is one at the model.
    fn enter(
        &self,
        catalog: &Arc<Catalog>,
        model: &Arc<Model>,
        party: Party,
    ) -> Result<(Place, Option<oneshot::Receiver<()>>), Overloaded> {
        let mut models = self.lock();
        if !models.contains_key(&model.name) {
            models.insert(model.name.clone(), Gate::default());
        }
        let gate = models.get_mut(&model.name).ok_or(Overloaded)?;
        gate.configure(catalog, model);
        let (caller, called) = oneshot::channel();
        let (ticket, called) = match gate.places.enter(party, || caller) {
            Entry::Granted(ticket) => (ticket, None),
            // Whoever was sent away for it learns so as its caller goes.
            Entry::Waits(ticket, _sent_away) => (ticket, Some(called)),
            Entry::Full => {
                if gate.places.is_idle() {
                    models.remove(&model.name);
                }
                return Err(Overloaded);
            }
        };
        let place = Place {
            permits: self.clone(),
            model: Arc::clone(model),
            ticket: Some(ticket),
        };
        Ok((place, called))
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        self.0.refusals.lock()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ModelName, Gate>> {
        self.0.models.lock()
    }
}

impl Gate {
    /// Takes the limits of a catalog that is not older than that of the present ones.
    fn configure(&mut self, catalog: &Arc<Catalog>, model: &Model) {
        let configuration = Some((catalog.cursor.incarnation.number, catalog.cursor.revision));
        if std::ptr::eq(self.catalog.as_ptr(), Arc::as_ptr(catalog)) || configuration < self.limits_of {
            return;
        }
        self.limits_of = configuration;
        self.catalog = Arc::downgrade(catalog);
        let capacity = model.spec.limits.max_concurrency.map(Count::count);
        // Without a limit there is nothing to reserve.
        let reservations = capacity.map(|_limit| catalog.reservations(&model.name));
        let reservations = reservations.into_iter().flatten().map(|(feature, count)| {
            let has_reservation = true;
            (
                Party {
                    feature,
                    has_reservation,
                },
                count,
            )
        });
        self.places.limit(capacity, model.spec.limits.queue(), reservations);
        self.admit();
    }

    fn admit(&mut self) {
        while let Some(caller) = self.places.admit() {
            // Who has gone meanwhile gives the place back with the ticket.
            caller.send(()).ok();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut models = self.permits.lock();
        let Some(gate) = models.get_mut(&self.model.name) else {
            return;
        };
        if let Some(ticket) = self.ticket.take() {
            gate.places.give_back(ticket);
            gate.admit();
        }
        if gate.places.is_idle() {
            models.remove(&self.model.name);
        }
    }
}
