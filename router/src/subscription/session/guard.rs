//! The router's own judgement on a history that it is offered, whatever the registry says of it.

use std::cmp::Ordering;

use switchboard::history::Cursor;

/// A history that the router refuses to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryRefusal {
    /// What is wrong with it.
    pub why: RefusalWhy,
    /// The cursor that was offered.
    pub offered: Cursor,
}

/// What is wrong with a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalWhy {
    /// It is older than what the router has, or an older life of the store.
    RevisionRegressed,
    /// It is the history of another store.
    StoreChanged,
    /// A snapshot or a delta did not have the digest that it claimed.
    StateMismatch,
}

/// Whether what is offered may follow what the router has. With nothing received everything may.
pub(super) fn judge(own: Option<&Cursor>, offered: &Cursor) -> Result<(), RefusalWhy> {
    let Some(own) = own else {
        return Ok(());
    };
    if own.store != offered.store {
        return Err(RefusalWhy::StoreChanged);
    }
    let (mine, theirs) = (own.incarnation, offered.incarnation);
    let goes_on = match theirs.number.cmp(&mine.number) {
        Ordering::Less => false,
        Ordering::Equal => theirs.id == mine.id && offered.revision >= own.revision,
        Ordering::Greater => true,
    };
    if goes_on {
        Ok(())
    } else {
        Err(RefusalWhy::RevisionRegressed)
    }
}
