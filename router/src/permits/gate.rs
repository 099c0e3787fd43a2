//! Decides whether a call may go to one model, by the model's places and their queue, its retry budget and its refused
//! credential.

use std::sync::{Arc, Weak};

use switchboard::{names::Revision, resource::model::Count};
use tokio::{sync::oneshot, time::Instant};

use super::{
    Overloaded, Party, Room,
    budget::Budget,
    places::{Entrance, Places, Ticket},
    refusal::CredentialRefusal,
};
use crate::catalog::{Catalog, CompiledModel};

/// The gate of one model.
#[derive(Debug)]
pub struct Gate {
    places: Places<Party, oneshot::Sender<()>>,
    budget: Budget,
    /// The newest refusal of its credential. `None`: there was no refusal since the last call that was accepted.
    refusal: Option<CredentialRefusal>,
    /// The configuration that the limits come from. Calls with an older configuration must not restore its limits.
    limits_of: Option<(i64, Revision)>,
    catalog: Weak<Catalog>,
}

/// A call that has a place, or waits in the queue for one.
#[derive(Debug)]
pub struct Admitted {
    /// The call's ticket, which must be given back.
    pub ticket: Ticket<Party>,
    /// Resolves when the call gets a place, and fails if it is sent away. `None`: it already has a place.
    pub called: Option<oneshot::Receiver<()>>,
}

impl Gate {
    /// Creates the gate of a model that was not called yet.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            places: Places::default(),
            budget: Budget::new(now),
            refusal: None,
            limits_of: None,
            catalog: Weak::new(),
        }
    }

    /// Applies the limits of a catalog, unless the present limits come from a newer one.
    pub fn align(&mut self, catalog: &Arc<Catalog>, model: &CompiledModel) {
        let configuration = Some((catalog.cursor.incarnation.number, catalog.cursor.revision));
        if std::ptr::eq(self.catalog.as_ptr(), Arc::as_ptr(catalog)) || configuration < self.limits_of {
            return;
        }
        self.limits_of = configuration;
        self.catalog = Arc::downgrade(catalog);
        let capacity = model.spec.limits.max_concurrency.map(Count::count);
        // Without a limit, reservations have no meaning.
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
        self.call_waiting();
    }

    /// Returns whether a call of `party` would find room now.
    #[must_use]
    pub fn room(&self, party: Party) -> Room {
        self.places.room(party)
    }

    /// Returns the HTTP status of a refused credential for which calls pass the model over now. `None`: calls go to the
    /// model.
    #[must_use]
    pub fn refusal(&self, model: &CompiledModel, now: Instant) -> Option<u16> {
        self.refusal.as_ref()?.check(model, now)
    }

    /// Lets a call proceed unless the credential was refused recently. Some time after the refusal, one call may
    /// proceed to try it.
    ///
    /// # Errors
    ///
    /// The HTTP status of the refusal.
    pub fn admit(&mut self, model: &CompiledModel, now: Instant) -> Result<(), u16> {
        self.refusal
            .as_mut()
            .map_or(Ok(()), |refusal| refusal.admit(model, now))
    }

    /// Records that the model's credential was refused with this HTTP status, and that no newer one is known.
    pub fn refuse(&mut self, model: &CompiledModel, status: u16, now: Instant) {
        self.refusal = Some(CredentialRefusal::new(model, status, now));
    }

    /// Records that the model's credential was accepted.
    pub fn accept(&mut self, model: &CompiledModel) {
        self.refusal.take_if(|refusal| refusal.is_of(model));
    }

    /// Counts a call that was resolved to the model and is about to reach a server.
    pub fn called(&mut self, now: Instant) {
        self.budget.call(now);
    }

    /// Whether a call that was resolved to the model may be repeated after an attempt that cost a server work. If so,
    /// the repeat is charged to the budget.
    #[must_use]
    pub fn repeat(&mut self, now: Instant) -> bool {
        self.budget.repeat(now)
    }

    /// Whether a call that was resolved to the model may have a second attempt in parallel with its first. If so, the
    /// hedge is charged to the budget.
    #[must_use]
    pub const fn hedge(&mut self) -> bool {
        self.budget.hedge()
    }

    /// Gives a call of `party` a place, or a position in the queue.
    ///
    /// # Errors
    ///
    /// [`Overloaded`] if there is room in neither.
    pub fn enter(&mut self, party: Party) -> Result<Admitted, Overloaded> {
        let (caller, called) = oneshot::channel();
        match self.places.enter(party, || caller) {
            Entrance::Granted(ticket) => Ok(Admitted { ticket, called: None }),
            // If another caller is sent away for this one, dropping its sender here notifies it.
            Entrance::Waits(ticket, _sent_away) => Ok(Admitted {
                ticket,
                called: Some(called),
            }),
            Entrance::Full => Err(Overloaded),
        }
    }

    /// Gives a call of `party` a place if one is free. The call does not wait.
    pub fn enter_now(&mut self, party: Party) -> Option<Ticket<Party>> {
        self.places.enter_now(party)
    }

    /// Takes back a call's place, or its position in the queue.
    pub fn give_back(&mut self, ticket: Ticket<Party>) {
        self.places.give_back(ticket);
        self.call_waiting();
    }

    /// Returns the number of calls that hold a place.
    #[must_use]
    pub const fn taken(&self) -> usize {
        self.places.taken()
    }

    /// Returns the number of calls that wait for a place.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.places.waiting()
    }

    fn call_waiting(&mut self) {
        while let Some(caller) = self.places.admit() {
            // A caller that has gone meanwhile gives the place back with its ticket.
            caller.send(()).ok();
        }
    }
}
