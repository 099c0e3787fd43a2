//! Who may call a model now. Each model has as many places as its limit says, on this router alone.
//!
//! The places are kept by the model's name, so that they survive a swap of the catalog.

pub mod places;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use switchboard::{
    history::Cursor,
    names::{ModelName, Revision},
};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use self::places::{Entry, Places, Ticket};
use crate::catalog::Model;

/// The model has no place: too many run, and too many wait or it was waited in vain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overloaded;

/// The places of all models. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Permits(Arc<Mutex<HashMap<ModelName, Gate>>>);

#[derive(Debug, Default)]
struct Gate {
    places: Places<oneshot::Sender<()>>,
    /// The configuration that the limits are of: calls with an older one must not set them back.
    limits_of: (i64, Revision),
}

/// A place at a model, or in its queue. Dropped, it is free for the next.
#[derive(Debug)]
pub struct Place {
    permits: Permits,
    model: Arc<Model>,
    ticket: Option<Ticket>,
}

impl Permits {
    /// Waits for a place at a model, as long as its limits and `until` allow. `cursor` is that of the catalog that has the
    /// model.
    ///
    /// # Errors
    ///
    /// [`Overloaded`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the queue.
    pub async fn place(&self, model: &Arc<Model>, cursor: &Cursor, until: Instant) -> Result<Place, Overloaded> {
        let (place, called) = self.enter(model, cursor)?;
        if let Some(called) = called {
            let until = until.min(Instant::now() + model.limits.queue_timeout());
            // The other end is there as long as the place is.
            timeout_at(until, called).await.map_err(|_elapsed| Overloaded)?.ok();
        }
        Ok(place)
    }

    /// Whether a call of a model would find its queue full now.
    #[must_use]
    pub fn is_full(&self, model: &Model) -> bool {
        let gates = self.lock();
        gates.get(&model.name).is_some_and(|gate| gate.places.is_full())
    }

    /// A place, or one in the queue with what tells that it is one at the model.
    fn enter(&self, model: &Arc<Model>, cursor: &Cursor) -> Result<(Place, Option<oneshot::Receiver<()>>), Overloaded> {
        let mut gates = self.lock();
        if !gates.contains_key(&model.name) {
            gates.insert(model.name.clone(), Gate::default());
        }
        let gate = gates.get_mut(&model.name).ok_or(Overloaded)?;
        let configuration = (cursor.incarnation.number, cursor.revision);
        if configuration >= gate.limits_of {
            gate.limits_of = configuration;
            gate.places.limit(model.limits.max_concurrency, model.limits.queue());
            gate.admit();
        }
        let (caller, called) = oneshot::channel();
        let (ticket, called) = match gate.places.enter(|| caller) {
            Entry::Granted(ticket) => (ticket, None),
            Entry::Waits(ticket) => (ticket, Some(called)),
            Entry::Full => return Err(Overloaded),
        };
        let place = Place {
            permits: self.clone(),
            model: Arc::clone(model),
            ticket: Some(ticket),
        };
        Ok((place, called))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ModelName, Gate>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate {
    fn admit(&mut self) {
        while let Some(caller) = self.places.admit() {
            // Who has gone meanwhile gives the place back with the ticket.
            caller.send(()).ok();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut gates = self.permits.lock();
        let Some(gate) = gates.get_mut(&self.model.name) else {
            return;
        };
        if let Some(ticket) = self.ticket.take() {
            gate.places.give_back(ticket);
            gate.admit();
        }
        if gate.places.is_idle() {
            gates.remove(&self.model.name);
        }
    }
}
