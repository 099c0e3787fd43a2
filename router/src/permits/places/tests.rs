use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Enter(usize),
    EnterNow(usize),
    /// The caller at this index among all that have not left leaves now, even if it does not know yet that it was
    /// called or sent away.
    Leave(prop::sample::Index),
    Limit(Setting),
}

#[derive(Debug, Clone)]
struct Setting {
    capacity: Option<usize>,
    queue_max: usize,
    /// Reservations of parties 0 and 1; party 2 has none.
    reserved: [usize; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Inside,
    Waits,
    SentAway,
}

/// The reference model: a plain list of all callers that have entered and not left, in the order in which they came.
#[derive(Debug, Default)]
struct Plain {
    everybody: Vec<(Ticket<usize>, State)>,
}

impl Plain {
    fn count(&self, party: usize, state: State) -> usize {
        let all = self.everybody.iter();
        all.filter(|(ticket, now)| ticket.party == party && *now == state)
            .count()
    }

    fn all(&self, state: State) -> usize {
        (0..3).map(|party| self.count(party, state)).sum()
    }

    /// Whether a caller of the party may have a place, by the rule of the design.
    fn may_start(&self, party: usize, setting: &Setting) -> bool {
        let Some(capacity) = setting.capacity else { return true };
        let reserved = |party: usize| setting.reserved.get(party).copied().unwrap_or_default();
        let beyond = |party| self.count(party, State::Inside).saturating_sub(reserved(party));
        let shared = capacity.saturating_sub(setting.reserved.iter().sum());
        self.all(State::Inside) < capacity
            && (self.count(party, State::Inside) < reserved(party) || (0..3).map(beyond).sum::<usize>() < shared)
    }

    /// Whether a place can become free for a party under this setting.
    fn could_start(party: usize, setting: &Setting) -> bool {
        let own = setting.reserved.get(party).copied().unwrap_or_default();
        let reserved: usize = setting.reserved.iter().sum();
        own > 0 || setting.capacity.is_none_or(|capacity| reserved < capacity)
    }

    fn set(&mut self, number: u64, state: State) -> State {
        let one = self.everybody.iter_mut().find(|(ticket, _)| ticket.number == number);
        std::mem::replace(&mut one.unwrap().1, state)
    }

    fn first_waiting(&self, party: usize) -> u64 {
        let mut all = self.everybody.iter();
        let first = all.find(|(ticket, state)| ticket.party == party && *state == State::Waits);
        first.unwrap().0.number
    }

    fn last_waiting(&self, party: usize) -> u64 {
        let mut all = self.everybody.iter().rev();
        let last = all.find(|(ticket, state)| ticket.party == party && *state == State::Waits);
        last.unwrap().0.number
    }

    fn party(&self, number: u64) -> usize {
        let mut all = self.everybody.iter();
        all.find(|(ticket, _)| ticket.number == number).unwrap().0.party
    }
}

fn setting() -> impl Strategy<Value = Setting> {
    (
        prop::option::weighted(0.9, 1_usize..6),
        0_usize..5,
        0_usize..3,
        0_usize..3,
    )
        .prop_map(|(capacity, queue_max, first, second)| {
            let capacity_or = capacity.unwrap_or(4);
            let first = first.min(capacity_or);
            Setting {
                capacity,
                queue_max,
                reserved: [first, second.min(capacity_or - first)],
            }
        })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0_usize..3).prop_map(Step::Enter),
        1 => (0_usize..3).prop_map(Step::EnterNow),
        6 => any::<prop::sample::Index>().prop_map(Step::Leave),
        1 => setting().prop_map(Step::Limit),
    ]
}

fn limited(setting: &Setting) -> Places<usize, u64> {
    let mut places = Places::default();
    limit(&mut places, setting);
    places
}

fn limit(places: &mut Places<usize, u64>, setting: &Setting) {
    let reservations = setting.reserved.iter().copied().enumerate();
    places.limit(setting.capacity, setting.queue_max, reservations);
}

proptest! {
    #[test]
    fn places_follow_the_rules_and_none_is_lost(first in setting(), steps in prop::collection::vec(step(), 0..200)) {
        let mut setting = first;
        let mut places = limited(&setting);
        let mut plain = Plain::default();
        // A reservation is guaranteed only to callers that came after it was made.
        let mut since_change = 0;
        for step in steps {
            let before = plain.all(State::Inside);
            match step {
                Step::Enter(party) => {
                    let may_start = plain.may_start(party, &setting);
                    let could_start = Plain::could_start(party, &setting);
                    prop_assert!(could_start || !may_start);
                    let room = places.room(party);
                    prop_assert_eq!(room == Room::Never, !could_start);
                    prop_assert_eq!(room == Room::Full, could_start && {
                        let own = plain.count(party, State::Waits) + 1;
                        let most = (0..3).map(|party| plain.count(party, State::Waits)).max().unwrap();
                        let has_room = plain.all(State::Waits) < setting.queue_max;
                        !may_start && !has_room && (setting.queue_max == 0 || most <= own)
                    });
                    let next = places.next;
                    match places.enter(party, || next) {
                        Entrance::Granted(ticket) => {
                            prop_assert!(may_start);
                            plain.everybody.push((ticket, State::Inside));
                        }
                        Entrance::Waits(ticket, shed) => {
                            prop_assert!(!may_start);
                            prop_assert_eq!(room, Room::Open);
                            if let Some(shed) = shed {
                                let loser = plain.party(shed);
                                prop_assert!(plain.all(State::Waits) >= setting.queue_max);
                                prop_assert_eq!(shed, plain.last_waiting(loser), "the newest caller is sent away");
                                let of_loser = plain.count(loser, State::Waits);
                                prop_assert!((0..3).all(|other| plain.count(other, State::Waits) <= of_loser));
                                prop_assert!(of_loser > plain.count(party, State::Waits) + 1);
                                plain.set(shed, State::SentAway);
                            }
                            plain.everybody.push((ticket, State::Waits));
                        }
                        Entrance::Full => {
                            prop_assert!(!may_start && (!could_start || plain.all(State::Waits) >= setting.queue_max));
                            prop_assert_ne!(room, Room::Open);
                        }
                    }
                }
                Step::EnterNow(party) => {
                    let may_start = plain.may_start(party, &setting);
                    let ticket = places.enter_now(party);
                    prop_assert_eq!(ticket.is_some(), may_start);
                    plain.everybody.extend(ticket.map(|ticket| (ticket, State::Inside)));
                }
                Step::Leave(index) => {
                    if !plain.everybody.is_empty() {
                        let place = index.index(plain.everybody.len());
                        places.give_back(plain.everybody.remove(place).0);
                    }
                }
                Step::Limit(new) => {
                    setting = new;
                    limit(&mut places, &setting);
                    since_change = plain.all(State::Inside);
                }
            }
            while let Some(called) = places.admit() {
                let party = plain.party(called);
                prop_assert!(plain.may_start(party, &setting), "only callers that may start are called");
                prop_assert_eq!(called, plain.first_waiting(party), "first come, first served");
                prop_assert_eq!(plain.set(called, State::Inside), State::Waits);
            }
            let inside = plain.all(State::Inside);
            since_change = since_change.min(inside);
            if let Some(capacity) = setting.capacity {
                prop_assert!(inside <= capacity.max(before), "never above the limit");
            }
            for party in 0..3 {
                prop_assert!(
                    plain.count(party, State::Waits) == 0 || !plain.may_start(party, &setting),
                    "no caller waits while there is a place that it may have"
                );
                let reserved = setting.reserved.get(party).copied().unwrap_or_default();
                if since_change == 0 && plain.count(party, State::Inside) < reserved {
                    prop_assert!(plain.may_start(party, &setting), "a reservation is never refused");
                }
            }
            prop_assert_eq!(places.taken(), inside);
            prop_assert_eq!(places.waiting(), plain.all(State::Waits));
            prop_assert_eq!(places.is_idle(), plain.everybody.is_empty());
        }
    }
}

/// Lets the callers inside leave one after the other, and returns the order in which waiting callers get in.
fn order(places: &mut Places<usize, u64>, mut inside: Vec<Ticket<usize>>) -> Vec<u64> {
    let mut order = Vec::new();
    while let Some(ticket) = inside.pop() {
        places.give_back(ticket);
        order.extend(places.admit());
    }
    order
}

#[test]
fn free_places_go_in_turn_to_the_features_that_wait() {
    let mut places = Places::<usize, u64>::default();
    places.limit(Some(4), 10, []);
    let inside = (0..4).filter_map(|_| places.enter_now(9)).collect();
    let waiting: Vec<_> = [0, 0, 0, 1, 2]
        .into_iter()
        .zip(10..)
        .map(|(party, name)| places.enter(party, || name))
        .collect();
    assert_eq!(waiting.len(), 5);
    assert_eq!(
        order(&mut places, inside),
        [10, 13, 14, 11],
        "a feature with many waiting calls does not delay the others"
    );
}

#[test]
fn no_call_waits_behind_a_feature_whose_share_is_used_up() {
    let mut places = Places::<usize, u64>::default();
    places.limit(Some(2), 10, [(1, 1)]);
    let reserved = places.enter_now(1).unwrap();
    let _shared = places.enter_now(0).unwrap();
    let _flood: Vec<_> = (0..5).map(|name| places.enter(0, || name)).collect();
    let _waits = places.enter(1, || 7);
    places.give_back(reserved);
    assert_eq!(places.admit(), Some(7));
    assert_eq!(places.admit(), None);
}

#[test]
fn a_party_does_not_wait_for_places_that_others_have_reserved() {
    let mut places = Places::<usize, u64>::default();
    places.limit(Some(2), 10, [(1, 2)]);
    assert_eq!((places.room(0), places.room(1)), (Room::Never, Room::Open));
    assert_eq!(places.enter(0, || 7), Entrance::Full);
    let inside = [places.enter_now(1).unwrap(), places.enter_now(1).unwrap()];
    assert_eq!(places.room(1), Room::Open, "it may wait for one of its own places");
    places.limit(Some(3), 10, [(1, 2)]);
    assert!(matches!(places.enter(0, || 8), Entrance::Granted(_)));
    drop(inside);
}

#[test]
fn a_full_queue_sends_away_the_newest_call_of_the_party_with_most_waiting() {
    let mut places = Places::<usize, u64>::default();
    places.limit(Some(1), 3, []);
    let _inside = places.enter_now(9).unwrap();
    let _flood: Vec<_> = (0..3).map(|name| places.enter(0, || name)).collect();
    assert_eq!(
        places.enter(0, || 3),
        Entrance::Full,
        "the arriving call would be the newest of the longest part"
    );
    assert_eq!(places.room(1), Room::Open);
    assert!(matches!(places.enter(1, || 4), Entrance::Waits(_, Some(2))));
    assert_eq!(
        places.enter(1, || 5),
        Entrance::Full,
        "both parties have equally many waiting calls"
    );
    assert!(!places.is_idle());
}
