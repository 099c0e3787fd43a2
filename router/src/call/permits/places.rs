//! The places that one model has for calls, and who waits for one: first come, first served.
//!
//! Pure: no clock, no locks, nothing async. Whoever has a ticket either waits or holds a place, and gives the ticket back in
//! either case; so nothing is lost whenever somebody goes.

use std::collections::BTreeMap;

/// Somebody who waits or holds a place. It is given back exactly once.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a ticket that is not given back holds its place for ever"]
pub struct Ticket(u64);

/// What becomes of somebody who comes.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    /// There is a place.
    Granted(Ticket),
    /// All places are taken: the one who comes is called when it is his turn.
    Waits(Ticket),
    /// All places are taken, and as many wait as may.
    Full,
}

/// Places and a queue. `W` is what calls somebody who waits.
#[derive(Debug)]
pub struct Places<W> {
    capacity: Option<usize>,
    queue_max: usize,
    taken: usize,
    /// By the number of the ticket, which is the order in which they came.
    waiting: BTreeMap<u64, W>,
    next: u64,
}

impl<W> Default for Places<W> {
    fn default() -> Self {
        Self {
            capacity: None,
            queue_max: 0,
            taken: 0,
            waiting: BTreeMap::new(),
            next: 0,
        }
    }
}

impl<W> Places<W> {
    /// Sets how many places there are (`None`: any number) and how many may wait. Nobody who is in is sent away.
    pub const fn limit(&mut self, capacity: Option<usize>, queue_max: usize) {
        self.capacity = capacity;
        self.queue_max = queue_max;
    }

    /// Somebody comes. Those whom [`Self::admit`] would let in now must have been let in before.
    pub fn enter(&mut self, caller: impl FnOnce() -> W) -> Entry {
        if self.is_full() {
            return Entry::Full;
        }
        let number = self.next;
        self.next += 1;
        if self.waiting.is_empty() && self.has_place() {
            self.taken += 1;
            return Entry::Granted(Ticket(number));
        }
        self.waiting.insert(number, caller());
        Entry::Waits(Ticket(number))
    }

    /// Somebody goes, who waited or had a place.
    pub fn give_back(&mut self, ticket: Ticket) {
        let Ticket(number) = ticket;
        if self.waiting.remove(&number).is_none() {
            self.taken -= 1;
        }
    }

    /// The next who waits and has a place now. To be asked until there is none, whenever something has changed.
    pub fn admit(&mut self) -> Option<W> {
        if !self.has_place() {
            return None;
        }
        let (_, caller) = self.waiting.pop_first()?;
        self.taken += 1;
        Some(caller)
    }

    /// Whether somebody who comes now would be sent away.
    #[must_use]
    pub fn is_full(&self) -> bool {
        !(self.waiting.is_empty() && self.has_place()) && self.waiting.len() >= self.queue_max
    }

    /// Whether nobody is in and nobody waits.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.taken == 0 && self.waiting.is_empty()
    }

    fn has_place(&self) -> bool {
        self.capacity.is_none_or(|capacity| self.taken < capacity)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Enter,
        /// Whoever stands at this place among those inside or waiting goes, told or not.
        Leave(prop::sample::Index),
        Limit(Option<usize>, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Enter),
            3 => any::<prop::sample::Index>().prop_map(Step::Leave),
            1 => (prop::option::of(1_usize..4), 0_usize..4).prop_map(|(capacity, queue)| Step::Limit(capacity, queue)),
        ]
    }

    proptest! {
        /// Against a plain list of who is in and who waits.
        #[test]
        fn never_above_the_limit_in_order_and_no_place_is_lost(steps in prop::collection::vec(step(), 0..200)) {
            let mut places = Places::<u64>::default();
            let (mut capacity, mut queue_max) = (Some(2), 2);
            places.limit(capacity, queue_max);
            let mut inside: Vec<Ticket> = Vec::new();
            let mut waiting: VecDeque<Ticket> = VecDeque::new();
            for step in steps {
                let before = inside.len();
                match step {
                    Step::Enter => {
                        let has_place = capacity.is_none_or(|capacity| inside.len() < capacity);
                        let next = places.next;
                        match places.enter(|| next) {
                            Entry::Granted(ticket) => {
                                prop_assert!(has_place && waiting.is_empty());
                                inside.push(ticket);
                            }
                            Entry::Waits(ticket) => {
                                prop_assert!(!has_place && waiting.len() < queue_max);
                                waiting.push_back(ticket);
                            }
                            Entry::Full => prop_assert!(!has_place && waiting.len() >= queue_max),
                        }
                    }
                    Step::Leave(index) => {
                        let all = inside.len() + waiting.len();
                        if all > 0 {
                            let place = index.index(all);
                            let ticket = if place < inside.len() {
                                inside.remove(place)
                            } else {
                                waiting.remove(place - inside.len()).unwrap()
                            };
                            places.give_back(ticket);
                        }
                    }
                    Step::Limit(new_capacity, new_queue) => {
                        (capacity, queue_max) = (new_capacity, new_queue);
                        places.limit(capacity, queue_max);
                    }
                }
                while let Some(called) = places.admit() {
                    let first = waiting.pop_front();
                    prop_assert_eq!(&first, &Some(Ticket(called)), "first come, first served");
                    inside.extend(first);
                }
                if let Some(capacity) = capacity {
                    prop_assert!(inside.len() <= capacity.max(before), "never above the limit");
                    prop_assert!(waiting.is_empty() || inside.len() >= capacity, "nobody waits beside a free place");
                } else {
                    prop_assert!(waiting.is_empty());
                }
                prop_assert_eq!(places.taken, inside.len());
                prop_assert_eq!(places.is_idle(), inside.is_empty() && waiting.is_empty());
            }
        }
    }
}
