//! Which of a model's servers takes a call.
//!
//! Pure: chance is an argument. It knows nothing of connections, nor why a server may not be chosen: only those that may
//! are told to it.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// How far above its share a server may be before calls with a key go to the next.
const OVERLOAD: f64 = 1.25;

/// A server that may be chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// Its share of the calls, less what it does not get yet after it came back. Above 0.
    pub weight: f64,
    /// How many attempts are there now.
    pub in_flight: u32,
    /// How many requests of others are there, as its engine told. `None`: unknown.
    pub others: Option<f64>,
    /// How slow it is beside the others.
    pub slowness: f64,
    /// Whether it stands in the router's own zone.
    pub is_near: bool,
    /// A hash of its identity.
    pub identity: u64,
}

impl Choice {
    /// What one more call would cost there, with so much to do.
    fn cost(&self, load: f64) -> f64 {
        (load + 1.0) * self.slowness / self.weight
    }

    /// How high it stands in the order of the servers for a key: weighted rendezvous hashing, so that a server that comes
    /// or goes moves its own keys only.
    fn score(&self, key: u64) -> f64 {
        let hash = xxh3_64_with_seed(&self.identity.to_le_bytes(), key);
        // Above 0, below 1.
        let point = (upper_bits(hash) + 0.5) / f64::from(1_u32 << 31);
        -self.weight / point.ln()
    }
}

/// 31 bits of a hash: enough to tell servers apart, and exact in a float.
fn upper_bits(hash: u64) -> f64 {
    u32::try_from(hash >> 33).map_or(0.0, f64::from)
}

/// The index of the server that takes a call. With a key, calls of one key go to one server as long as it is not overloaded.
/// `chance` is uniform from 0 up to, not including, 1.
///
/// `None` only when there is none.
pub fn choose(choices: &[Choice], key: Option<u64>, mut chance: impl FnMut() -> f64) -> Option<usize> {
    if choices.len() < 2 {
        return (!choices.is_empty()).then_some(0);
    }
    let is_near_only = stays_near(choices);
    let narrowed = || {
        let numbered = choices.iter().enumerate();
        numbered.filter(move |(_, choice)| choice.is_near || !is_near_only)
    };
    match key {
        Some(key) => by_key(narrowed, key),
        None => {
            let first = draw(narrowed(), chance())?;
            let others = narrowed().filter(|(index, _)| *index != first);
            let Some(second) = draw(others, chance()) else {
                return Some(first);
            };
            let [a, b] = [choices.get(first)?, choices.get(second)?];
            // What is known of one alone says nothing about which has less to do.
            let others = a.others.zip(b.others).unwrap_or_default();
            let loads = (f64::from(a.in_flight) + others.0, f64::from(b.in_flight) + others.1);
            // Where nothing runs the draw decides, so that weights hold for few calls too.
            let is_idle = loads.0 + loads.1 <= 0.0;
            let is_first = is_idle || a.cost(loads.0) <= b.cost(loads.1);
            Some(if is_first { first } else { second })
        }
    }
}

/// Whether a server of the router's own zone has less than twice the mean load.
fn stays_near(choices: &[Choice]) -> bool {
    let (calls, weights) = total(choices.iter());
    choices.iter().filter(|choice| choice.is_near).any(|choice| {
        let mean = (calls + 1.0) * choice.weight / weights;
        f64::from(choice.in_flight) < 2.0 * mean.max(1.0)
    })
}

/// The first in the order of this key that is not overloaded.
fn by_key<'a, I: Iterator<Item = (usize, &'a Choice)>>(narrowed: impl Fn() -> I, key: u64) -> Option<usize> {
    let (calls, weights) = total(narrowed().map(|(_, choice)| choice));
    narrowed()
        .filter(|(_, choice)| {
            let share = calls * choice.weight / weights;
            f64::from(choice.in_flight) <= (OVERLOAD * share).ceil()
        })
        .max_by(|(_, a), (_, b)| a.score(key).total_cmp(&b.score(key)))
        .map(|(index, _)| index)
}

/// One of them by weight and speed.
fn draw<'a>(choices: impl Iterator<Item = (usize, &'a Choice)> + Clone, chance: f64) -> Option<usize> {
    let shares = choices.map(|(index, choice)| (index, choice.weight / choice.slowness));
    let total: f64 = shares.clone().map(|(_, share)| share).sum();
    let mut left = chance * total;
    let mut last = None;
    for (index, share) in shares {
        last = Some(index);
        left -= share;
        if left < 0.0 {
            break;
        }
    }
    // Rounding may leave a sliver behind the last one.
    last
}

/// The calls and the weights of all.
fn total<'a>(choices: impl Iterator<Item = &'a Choice>) -> (f64, f64) {
    choices.fold((0.0, 0.0), |(calls, weights), choice| {
        (calls + f64::from(choice.in_flight), weights + choice.weight)
    })
}

#[cfg(test)]
mod tests;
