//! The places that one model has for calls, and who waits for one.
//!
//! Calls are told apart by their party: a feature, or what of it has no reservation here. A party below its reservation
//! always finds a place; what parties have beyond theirs shares the places that nobody has reserved. Within a party it is
//! first come, first served; a place that comes free goes round the parties that may use it, so that nobody stands behind a
//! party whose share is used up.
//!
//! Pure: no clock, no locks, nothing async. Whoever has a ticket waits, holds a place or was sent away, and gives the ticket
//! back in either case; so nothing is lost whenever somebody goes.

#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

/// Somebody who waits, holds a place or was sent away. It is given back exactly once.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a ticket that is not given back holds its place for ever"]
pub struct Ticket<P> {
    party: P,
    number: u64,
}

/// What becomes of somebody who comes.
#[derive(Debug, PartialEq, Eq)]
pub enum Entrance<P, W> {
    /// There is a place.
    Granted(Ticket<P>),
    /// There is none: the one who comes is called when it is his turn. Somebody else may have to go for it.
    Waits(Ticket<P>, Option<W>),
    /// There is none, and as many wait as may, or waiting would be in vain.
    Full,
}

/// Whether there is room for another call of a party.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// There is a place, or one in the queue.
    Open,
    /// As many calls wait as may.
    Full,
    /// Other parties have reserved every place: waiting would be in vain.
    Never,
}

/// Places and a queue. `P` tells parties apart, `W` is what calls somebody who waits.
#[derive(Debug)]
pub struct Places<P, W> {
    capacity: Option<usize>,
    queue_max: usize,
    parties: BTreeMap<P, PartyPlaces<W>>,
    taken: usize,
    waiting: usize,
    /// Who got a place from the queue last: the round goes on behind it.
    last: Option<P>,
    /// The numbers of those who were sent away and have not gone yet.
    sent_away: BTreeSet<u64>,
    next: u64,
}

#[derive(Debug)]
struct PartyPlaces<W> {
    reserved: usize,
    taken: usize,
    /// By the number of the ticket, which is the order in which they came.
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
    /// Sets how many places there are (`None`: any number), how many may wait, and how many places are whose. Nobody who is
    /// in is sent away.
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

    /// Somebody of `party` comes. Those whom [`Self::admit`] would let in now must have been let in before.
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

    /// Somebody of `party` comes who does not wait: a place, if there is one now.
    pub fn enter_now(&mut self, party: P) -> Option<Ticket<P>> {
        if !self.may_start(party) {
            return None;
        }
        self.take(party);
        Some(self.ticket(party))
    }

    /// Somebody goes who waited, had a place, or was sent away.
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

    /// The next who waits and has a place now. To be asked until there is none, whenever something has changed.
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

    /// Whether a call of `party` that comes now gets a place, or one in the queue.
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

    /// Whether nobody is in, nobody waits and nobody is about to go.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.taken == 0 && self.waiting == 0 && self.sent_away.is_empty()
    }

    /// How many hold a place.
    #[must_use]
    pub const fn taken(&self) -> usize {
        self.taken
    }

    /// How many wait.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.waiting
    }

    /// There is a place, and it is the party's own or nobody's.
    fn may_start(&self, party: P) -> bool {
        let Some(capacity) = self.capacity else { return true };
        if self.taken >= capacity {
            return false;
        }
        let is_own = |party: &PartyPlaces<W>| party.taken < party.reserved;
        if self.parties.get(&party).is_some_and(is_own) {
            return true;
        }
        // There are as many parties as features at most.
        let parties = self.parties.values();
        let beyond: usize = parties.map(|party| party.taken.saturating_sub(party.reserved)).sum();
        beyond < capacity.saturating_sub(self.reserved())
    }

    /// Whether a place may come free for the party, as long as the limits are as they are.
    fn could_start(&self, party: P) -> bool {
        let has_own = self.parties.get(&party).is_some_and(|party| party.reserved > 0);
        has_own || self.capacity.is_none_or(|capacity| self.reserved() < capacity)
    }

    /// How many places parties have reserved together.
    fn reserved(&self) -> usize {
        self.parties.values().map(|party| party.reserved).sum()
    }

    /// Who goes when somebody of `party` comes to a full queue: the newest of the party with most who wait, the one who
    /// comes counted. `None`: the one who comes.
    fn to_shed(&self, party: P) -> Option<P> {
        if self.queue_max == 0 {
            return None;
        }
        let own = self.parties.get(&party).map_or(0, |own| own.waiting.len()) + 1;
        // Among equals the first, so that it is always the same.
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
