//! Chooses which of a model's servers takes a call.
//!
//! Pure: random numbers are arguments. It knows nothing of connections, nor why a server may not be chosen: it gets
//! only those servers that may be.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A server may have this multiple of its share of calls before calls with a key go to the next server.
const OVERLOAD: f64 = 1.25;

/// A server that may be chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// Its share of the calls, reduced while it is coming back. Above 0.
    pub weight: f64,
    /// Number of attempts in progress.
    pub in_flight: u32,
    /// Number of requests from other clients, as its engine reported. `None`: unknown.
    pub others: Option<f64>,
    /// How slow it is relative to the other servers; 1 is the average.
    pub slowness: f64,
    /// Whether it is in the router's own zone.
    pub is_near: bool,
    /// A hash of its identity.
    pub identity: u64,
}

impl Choice {
    /// Returns the cost of one more call at this server under the given load.
    fn cost(&self, load: f64) -> f64 {
        (load + 1.0) * self.slowness / self.weight
    }

    /// Returns the rank of the server for a key; the highest comes first. This is weighted rendezvous hashing: adding
    /// or removing a server moves only the keys of that server.
    fn score(&self, key: u64) -> f64 {
        let hash = xxh3_64_with_seed(&self.identity.to_le_bytes(), key);
        // Strictly between 0 and 1.
        let point = (upper_bits(hash) + 0.5) / f64::from(1_u32 << 31);
        -self.weight / point.ln()
    }
}

/// Returns 31 bits of a hash: enough to tell servers apart, and exact in a float.
fn upper_bits(hash: u64) -> f64 {
    u32::try_from(hash >> 33).map_or(0.0, f64::from)
}

/// Returns the index of the server that takes a call. Calls with the same key go to the same server as long as it is
/// not overloaded. `chance` is uniform from 0 up to, but not including, 1.
///
/// `None` only if `choices` is empty.
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
            // If other clients' requests are known for only one server, they do not show which one has less to do.
            let others = a.others.zip(b.others).unwrap_or_default();
            let loads = (f64::from(a.in_flight) + others.0, f64::from(b.in_flight) + others.1);
            // If both are idle the draw decides, so that weights hold for few calls too.
            let is_idle = loads.0 + loads.1 <= 0.0;
            let is_first = is_idle || a.cost(loads.0) <= b.cost(loads.1);
            Some(if is_first { first } else { second })
        }
    }
}

/// Whether some server in the router's own zone has less than twice the mean load.
fn stays_near(choices: &[Choice]) -> bool {
    let (calls, weights) = total(choices.iter());
    choices.iter().filter(|choice| choice.is_near).any(|choice| {
        let mean = (calls + 1.0) * choice.weight / weights;
        f64::from(choice.in_flight) < 2.0 * mean.max(1.0)
    })
}

/// Returns the server with the highest rank for this key that is not overloaded.
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

/// Draws a server at random. Its probability grows with its weight and its speed.
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
    // Rounding may leave a small remainder after the last one.
    last
}

/// Returns the sum of the calls and the sum of the weights.
fn total<'a>(choices: impl Iterator<Item = &'a Choice>) -> (f64, f64) {
    choices.fold((0.0, 0.0), |(calls, weights), choice| {
        (calls + f64::from(choice.in_flight), weights + choice.weight)
    })
}

#[cfg(test)]
mod tests;
