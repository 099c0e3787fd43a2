//! The places that one model has for calls, and the queue for them.
//!
//! Callers are grouped by party: a feature, with or without a reservation at this model. A party below its reservation
//! always gets a place. Beyond their reservations, parties share the places that are not reserved. Within a party,
//! calls are served in the order in which they came. A place that becomes free goes in turn to the parties that may use
//! it, so that a call never waits behind a party whose share is used up.
//!
//! Pure: no clock, no locks, nothing async. The holder of a ticket waits, holds a place or was sent away, and gives the
//! ticket back in each case; so no place is lost, at whatever time a caller leaves.

#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

/// The ticket of a caller that waits, holds a place or was sent away. It is given back exactly once.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a ticket that is not given back keeps its place forever"]
pub struct Ticket<P> {
    party: P,
    number: u64,
}

/// What happens to a caller that enters.
#[derive(Debug, PartialEq, Eq)]
pub enum Entrance<P, W> {
    /// The caller has a place.
    Granted(Ticket<P>),
    /// The caller waits, and is called when it gets a place. If another caller is sent away to make room, that one is
    /// returned too.
    Waits(Ticket<P>, Option<W>),
    /// The caller is refused: the queue is full, or waiting would be of no use.
    Full,
}

/// Whether there is room for another call of a party.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// There is a free place, or room in the queue.
    Open,
    /// The queue is full.
    Full,
    /// Other parties have reserved every place: waiting would be of no use.
    Never,
}

/// Places and a queue. `P` identifies a party; `W` is used to call a waiting caller.
#[derive(Debug)]
pub struct Places<P, W> {
    capacity: Option<usize>,
    queue_max: usize,
    parties: BTreeMap<P, PartyPlaces<W>>,
    taken: usize,
    waiting: usize,
    /// The party that last got a place from the queue: the search for the next one starts after it.
    last: Option<P>,
    /// Ticket numbers of callers that were sent away and have not given their ticket back yet.
    sent_away: BTreeSet<u64>,
    next: u64,
}

#[derive(Debug)]
struct PartyPlaces<W> {
    reserved: usize,
    taken: usize,
    /// Waiting callers by ticket number, which is the order in which they came.
    waiting: BTreeMap<u64, W>,
}

impl<W> Default for PartyPlaces<W> {
    fn default() -> Self {
        Self {
            reserved: 0,
            taken: 0,
            waiting: BTreeMap::new(),
        }
    }
}

impl<P, W> Default for Places<P, W> {
    fn default() -> Self {
        Self {
            capacity: None,
            queue_max: 0,
            parties: BTreeMap::new(),
            taken: 0,
            waiting: 0,
            last: None,
            sent_away: BTreeSet::new(),
            next: 0,
        }
    }
}

impl<P: Copy + Ord, W> Places<P, W> {
    /// Sets the number of places (`None`: unlimited), the length of the queue, and the number of reserved places for
    /// each party. Callers that hold a place keep it.
    pub fn limit(
        &mut self,
        capacity: Option<usize>,
        queue_max: usize,
        reservations: impl IntoIterator<Item = (P, usize)>,
    ) {
        self.capacity = capacity;
        self.queue_max = queue_max;
        for party in self.parties.values_mut() {
            party.reserved = 0;
        }
        for (party, reserved) in reservations {
            self.parties.entry(party).or_default().reserved = reserved;
        }
    }

    /// Lets a caller of `party` enter. All callers that [`Self::admit`] would admit now must have been admitted before.
    pub fn enter(&mut self, party: P, caller: impl FnOnce() -> W) -> Entrance<P, W> {
        if let Some(ticket) = self.enter_now(party) {
            return Entrance::Granted(ticket);
        }
        let shed = if !self.could_start(party) {
            return Entrance::Full;
        } else if self.waiting < self.queue_max {
            None
        } else {
            match self.to_shed(party) {
                Some(newest) => self.send_away(newest),
                None => return Entrance::Full,
            }
        };
        let ticket = self.ticket(party);
        self.waiting += 1;
        let waiting = &mut self.parties.entry(party).or_default().waiting;
        waiting.insert(ticket.number, caller());
        Entrance::Waits(ticket, shed)
    }

    /// Gives a caller of `party` a place if one is free now. The caller does not wait.
    pub fn enter_now(&mut self, party: P) -> Option<Ticket<P>> {
        if !self.may_start(party) {
            return None;
        }
        self.take(party);
        Some(self.ticket(party))
    }

    /// Takes back the ticket of a caller that waited, had a place, or was sent away.
    pub fn give_back(&mut self, ticket: Ticket<P>) {
        let Ticket { party, number } = ticket;
        if self.sent_away.remove(&number) {
            return;
        }
        let Some(party) = self.parties.get_mut(&party) else {
            return;
        };
        if party.waiting.remove(&number).is_some() {
            self.waiting -= 1;
        } else {
            party.taken -= 1;
            self.taken -= 1;
        }
    }

    /// Gives a place to the next waiting caller that may have one, and returns that caller. To be called after every
    /// change until it returns `None`.
    pub fn admit(&mut self) -> Option<W> {
        if self.waiting == 0 {
            return None;
        }
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = self.parties.range((after, Bound::Unbounded));
        let party = *behind
            .chain(&self.parties)
            .find(|(name, party)| !party.waiting.is_empty() && self.may_start(**name))?
            .0;
        let (_, caller) = self.parties.get_mut(&party)?.waiting.pop_first()?;
        self.waiting -= 1;
        self.last = Some(party);
        self.take(party);
        Some(caller)
    }

    /// Returns whether a call of `party` that comes now gets a place, or a position in the queue.
    #[must_use]
    pub fn room(&self, party: P) -> Room {
        if self.may_start(party) {
            Room::Open
        } else if !self.could_start(party) {
            Room::Never
        } else if self.waiting < self.queue_max || self.to_shed(party).is_some() {
            Room::Open
        } else {
            Room::Full
        }
    }

    /// Whether all tickets were given back: no caller holds a place, waits or was sent away.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.taken == 0 && self.waiting == 0 && self.sent_away.is_empty()
    }

    /// Returns the number of callers that hold a place.
    #[must_use]
    pub const fn taken(&self) -> usize {
        self.taken
    }

    /// Returns the number of callers that wait.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether there is a free place that the party has reserved, or that no party has reserved.
    fn may_start(&self, party: P) -> bool {
        let Some(capacity) = self.capacity else { return true };
        if self.taken >= capacity {
            return false;
        }
        let is_own = |party: &PartyPlaces<W>| party.taken < party.reserved;
        if self.parties.get(&party).is_some_and(is_own) {
            return true;
        }
        // There are at most two parties for each feature.
        let parties = self.parties.values();
        let beyond: usize = parties.map(|party| party.taken.saturating_sub(party.reserved)).sum();
        beyond < capacity.saturating_sub(self.reserved())
    }

    /// Whether a place can become free for the party under the present limits.
    fn could_start(&self, party: P) -> bool {
        let has_own = self.parties.get(&party).is_some_and(|party| party.reserved > 0);
        has_own || self.capacity.is_none_or(|capacity| self.reserved() < capacity)
    }

    /// Returns the number of places that all parties together have reserved.
    fn reserved(&self) -> usize {
        self.parties.values().map(|party| party.reserved).sum()
    }

    /// Returns the party whose newest waiting caller is sent away if a caller of `party` comes to a full queue: the one
    /// with the most waiting callers, including the one that comes. `None`: the caller that comes is refused.
    fn to_shed(&self, party: P) -> Option<P> {
        if self.queue_max == 0 {
            return None;
        }
        let own = self.parties.get(&party).map_or(0, |own| own.waiting.len()) + 1;
        // Among equals the first, so that the result is always the same.
        let (most, longest) = self
            .parties
            .iter()
            .max_by_key(|(name, party)| (party.waiting.len(), Reverse(**name)))?;
        (longest.waiting.len() > own).then_some(*most)
    }

    fn send_away(&mut self, party: P) -> Option<W> {
        let (number, caller) = self.parties.get_mut(&party)?.waiting.pop_last()?;
        self.waiting -= 1;
        self.sent_away.insert(number);
        Some(caller)
    }

    fn take(&mut self, party: P) {
        self.taken += 1;
        self.parties.entry(party).or_default().taken += 1;
    }

    const fn ticket(&mut self, party: P) -> Ticket<P> {
        let number = self.next;
        self.next += 1;
        Ticket { party, number }
    }
}
