//! What decides whether a call may go to one model: its places and their queue, its retry budget, its refused credential.

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
    /// The newest refusal of its credential. `None`: none since the last call that was accepted.
    refusal: Option<CredentialRefusal>,
    /// The configuration that the limits are of: calls with an older one must not set them back.
    limits_of: Option<(i64, Revision)>,
    catalog: Weak<Catalog>,
}

/// A call that was let in.
#[derive(Debug)]
pub struct Admitted {
    /// To be given back.
    pub ticket: Ticket<Party>,
    /// Resolves when the call has a place. `None`: it has one.
    pub called: Option<oneshot::Receiver<()>>,
}

impl Gate {
    /// The gate of a model that was not called yet.
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

    /// Takes the limits of a catalog that is not older than that of the present ones.
    pub fn align(&mut self, catalog: &Arc<Catalog>, model: &CompiledModel) {
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
        self.call_waiting();
    }

    /// Whether a call of `party` would find room now.
    #[must_use]
    pub fn room(&self, party: Party) -> Room {
        self.places.room(party)
    }

    /// The HTTP status with which the model's credential was refused, for which calls pass it over now.
    #[must_use]
    pub fn refusal(&self, model: &CompiledModel, now: Instant) -> Option<u16> {
        self.refusal.as_ref()?.check(model, now)
    }

    /// Has a call go on unless the credential is refused. If it was refused long ago, one call goes on.
    ///
    /// # Errors
    ///
    /// The HTTP status that refused it.
    pub fn admit(&mut self, model: &CompiledModel, now: Instant) -> Result<(), u16> {
        self.refusal
            .as_mut()
            .map_or(Ok(()), |refusal| refusal.admit(model, now))
    }

    /// Notes that the model's credential was refused with this HTTP status, and there is no newer one.
    pub fn refuse(&mut self, model: &CompiledModel, status: u16, now: Instant) {
        self.refusal = Some(CredentialRefusal::new(model, status, now));
    }

    /// Notes that the model's credential was accepted.
    pub fn accept(&mut self, model: &CompiledModel) {
        self.refusal.take_if(|refusal| refusal.is_of(model));
    }

    /// Counts a call that was resolved to the model, which is about to reach a server.
    pub fn called(&mut self, now: Instant) {
        self.budget.call(now);
    }

    /// Whether a call that was resolved to the model may be tried once more, after an attempt that cost a server work. If so
    /// it is counted.
    #[must_use]
    pub fn repeat(&mut self, now: Instant) -> bool {
        self.budget.repeat(now)
    }

    /// Whether a call that was resolved to the model may be made a second time beside its first attempt. If so it is counted.
    #[must_use]
    pub const fn hedge(&mut self) -> bool {
        self.budget.hedge()
    }

    /// Lets a call of `party` in, or into the queue.
    ///
    /// # Errors
    ///
    /// [`Overloaded`] when there is room in neither.
    pub fn enter(&mut self, party: Party) -> Result<Admitted, Overloaded> {
        let (caller, called) = oneshot::channel();
        match self.places.enter(party, || caller) {
            Entrance::Granted(ticket) => Ok(Admitted { ticket, called: None }),
            // The caller that was sent away for it learns so because its sender is dropped here.
            Entrance::Waits(ticket, _sent_away) => Ok(Admitted {
                ticket,
                called: Some(called),
            }),
            Entrance::Full => Err(Overloaded),
        }
    }

    /// Lets a call of `party` in that does not wait.
    pub fn enter_now(&mut self, party: Party) -> Option<Ticket<Party>> {
        self.places.enter_now(party)
    }

    /// Takes a call's place back, or its place in the queue.
    pub fn give_back(&mut self, ticket: Ticket<Party>) {
        self.places.give_back(ticket);
        self.call_waiting();
    }

    /// How many calls hold a place.
    #[must_use]
    pub const fn taken(&self) -> usize {
        self.places.taken()
    }

    /// How many calls wait for a place.
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
