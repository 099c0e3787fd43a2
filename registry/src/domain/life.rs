//! Lives of a store: what begins a new one, and above what.
//!
//! A new life has a number and a first revision above all that anybody is known to have seen, so that whoever followed an
//! earlier one takes it for newer, and never mistakes one for the other.

use std::{fmt, str::FromStr};

use switchboard::{
    digest::ChainDigest,
    history::Incarnation,
    names::{Revision, StoreId},
};

/// The highest incarnation number and the highest revision that are known, perhaps of different histories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    number: i64,
    revision: Revision,
}

/// The text or the numbers are no mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an incarnation number and a revision such as `2,1500`, neither above 2^60")]
pub struct MarkError;

impl Mark {
    /// Nothing is known.
    pub const NONE: Self = Self {
        number: 0,
        revision: Revision::ZERO,
    };

    /// Leaves room for more lives and revisions above it than there will ever be.
    const MAX: i64 = 1 << 60;

    /// Makes a mark.
    ///
    /// # Errors
    ///
    /// [`MarkError`] when a number is negative, or above 2^60.
    pub fn new(number: i64, revision: i64) -> Result<Self, MarkError> {
        let is_in_range = |number| (0..=Self::MAX).contains(&number);
        match Revision::new(revision) {
            Some(known) if is_in_range(number) && is_in_range(revision) => Ok(Self {
                number,
                revision: known,
            }),
            _ => Err(MarkError),
        }
    }

    /// The incarnation number.
    #[must_use]
    pub const fn number(self) -> i64 {
        self.number
    }

    /// The revision.
    #[must_use]
    pub const fn revision(self) -> Revision {
        self.revision
    }

    /// The higher of both numbers and of both revisions.
    #[must_use]
    pub fn or_higher(self, other: Self) -> Self {
        Self {
            number: self.number.max(other.number),
            revision: self.revision.max(other.revision),
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.number, self.revision)
    }
}

impl FromStr for Mark {
    type Err = MarkError;

    fn from_str(text: &str) -> Result<Self, MarkError> {
        let (number, revision) = text.split_once(',').ok_or(MarkError)?;
        let read = |text: &str| text.trim().parse().map_err(|_not_a_number| MarkError);
        Self::new(read(number)?, read(revision)?)
    }
}

/// Why a new life begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifeCause {
    /// A backup took the place of the database.
    Restore,
    /// The present content was declared the newest, whatever routers have seen.
    AcceptHistory,
}

impl LifeCause {
    /// As it is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Restore => "restore",
            Self::AcceptHistory => "accept-history",
        }
    }
}

/// A new life that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewLife {
    /// Why.
    pub cause: LifeCause,
    /// Begin above this, and above the present life.
    pub above: Mark,
    /// Go on under this store id. `None`: under the same as before.
    pub adopt: Option<StoreId>,
}

/// A life after the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// The store, which is another than before when its id was adopted.
    pub store: StoreId,
    /// Its number and id.
    pub incarnation: Incarnation,
    /// Its first revision, which changes nothing.
    pub first: Revision,
    /// The newest revision of the life before.
    pub parent: Revision,
    /// The history up to that.
    pub parent_chain: ChainDigest,
    /// Why it began.
    pub cause: LifeCause,
}

/// Where the history of a life begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beginning {
    /// Its first revision.
    pub first: Revision,
    /// What stands for the chain before that.
    pub chain: ChainDigest,
}

impl Beginning {
    /// That of the first life of a store.
    #[must_use]
    pub fn of_store(store: StoreId, incarnation: Incarnation) -> Self {
        Self {
            first: Revision::ZERO.next(),
            chain: ChainDigest::of_life(ChainDigest::NONE, store, incarnation.number, incarnation.id),
        }
    }

    /// That of a life after the first.
    #[must_use]
    pub fn of_life(life: &Life) -> Self {
        let Incarnation { number, id } = life.incarnation;
        Self {
            first: life.first,
            chain: ChainDigest::of_life(life.parent_chain, life.store, number, id),
        }
    }

    /// Whether it is that of a store's first life, which begins with nothing.
    #[must_use]
    pub fn is_of_store(&self) -> bool {
        self.first == Revision::ZERO.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_two_numbers() {
        let mark: Mark = "2, 1500".parse().unwrap();
        assert_eq!((mark.number(), mark.revision().get()), (2, 1500));
        assert_eq!(mark.to_string(), "2,1500");
        for bad in [
            "",
            "2",
            "2,",
            ",3",
            "-1,2",
            "1,-2",
            "1,2,3",
            "a,b",
            "1,9223372036854775807",
        ] {
            assert_eq!(bad.parse::<Mark>(), Err(MarkError), "{bad}");
        }
    }

    #[test]
    fn the_higher_mark_has_the_higher_of_each() {
        let (one, other) = (Mark::new(1, 90).unwrap(), Mark::new(3, 20).unwrap());
        assert_eq!(one.or_higher(other), Mark::new(3, 90).unwrap());
        assert_eq!(one.or_higher(Mark::NONE), one);
    }
}
