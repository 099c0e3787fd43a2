//! Lives of a store: when a new one begins, and above which revision.
//!
//! A life is an incarnation of the store. A new life has a number and a first revision above everything that any router
//! is known to have seen. Routers that followed an earlier life therefore accept it as newer and never confuse the two.

use std::{fmt, str::FromStr};

use switchboard::{
    digest::ChainDigest,
    history::Incarnation,
    names::{Revision, StoreId},
};

/// The highest known incarnation number and the highest known revision, which may belong to different histories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    number: i64,
    revision: Revision,
}

/// The text or the numbers do not form a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an incarnation number and a revision such as `2,1500`, neither above 2^60")]
pub struct MarkError;

impl Mark {
    /// The mark below all others, for when nothing is known.
    pub const NONE: Self = Self {
        number: 0,
        revision: Revision::ZERO,
    };

    /// Limit of both numbers. It leaves room for more lives and revisions than there will ever be.
    const MAX: i64 = 1 << 60;

    /// Creates a mark.
    ///
    /// # Errors
    ///
    /// [`MarkError`] if a number is negative or above 2^60.
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

    /// Returns the incarnation number.
    #[must_use]
    pub const fn number(self) -> i64 {
        self.number
    }

    /// Returns the revision.
    #[must_use]
    pub const fn revision(self) -> Revision {
        self.revision
    }

    /// Returns a mark with the higher of the two numbers and the higher of the two revisions.
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
    /// A backup replaced the database.
    Restore,
    /// The current content was declared the newest, whatever routers have seen.
    AcceptHistory,
}

impl LifeCause {
    /// Returns the text by which the cause is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Restore => "restore",
            Self::AcceptHistory => "accept-history",
        }
    }
}

/// A request to begin a new life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewLife {
    /// Why the life begins.
    pub cause: LifeCause,
    /// The life begins above this mark and above the current life.
    pub above: Mark,
    /// The store id of the new life. `None`: the store keeps its id.
    pub adopt: Option<StoreId>,
}

/// A life other than the first of its store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// Id of the store. It differs from the earlier one if another id was adopted.
    pub store: StoreId,
    /// Its incarnation number and id.
    pub incarnation: Incarnation,
    /// Its first revision, which changes nothing.
    pub first: Revision,
    /// The newest revision of the earlier life.
    pub parent: Revision,
    /// Chain digest of the earlier life at that revision.
    pub parent_chain: ChainDigest,
    /// Why the life began.
    pub cause: LifeCause,
}

/// The point at which the history of a life begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beginning {
    /// The first revision of the life.
    pub first: Revision,
    /// The digest from which the chain of the first revision is computed.
    pub chain: ChainDigest,
}

impl Beginning {
    /// Returns the beginning of the first life of a store.
    #[must_use]
    pub fn of_store(store: StoreId, incarnation: Incarnation) -> Self {
        Self {
            first: Revision::ZERO.next(),
            chain: ChainDigest::of_life(ChainDigest::NONE, store, incarnation.number, incarnation.id),
        }
    }

    /// Returns the beginning of a later life.
    #[must_use]
    pub fn of_life(life: &Life) -> Self {
        let Incarnation { number, id } = life.incarnation;
        Self {
            first: life.first,
            chain: ChainDigest::of_life(life.parent_chain, life.store, number, id),
        }
    }

    /// Returns whether this is the beginning of a store's first life, which begins without resources.
    #[must_use]
    pub fn is_of_store(&self) -> bool {
        self.first == Revision::ZERO.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_parsed_from_two_numbers() {
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
    fn or_higher_takes_the_higher_number_and_the_higher_revision() {
        let (one, other) = (Mark::new(1, 90).unwrap(), Mark::new(3, 20).unwrap());
        assert_eq!(one.or_higher(other), Mark::new(3, 90).unwrap());
        assert_eq!(one.or_higher(Mark::NONE), one);
    }
}
