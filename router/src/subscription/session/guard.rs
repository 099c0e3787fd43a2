//! Judges a history that a registry offers, independently of the registry's own judgement.

use std::cmp::Ordering;

use switchboard::{history::Cursor, stream::HistoryRefusalWhy};

/// Checks whether the offered history may follow the router's own. If the router has received nothing, every history
/// may.
pub(super) fn judge(own: Option<&Cursor>, offered: &Cursor) -> Result<(), HistoryRefusalWhy> {
    let Some(own) = own else {
        return Ok(());
    };
    if own.store != offered.store {
        return Err(HistoryRefusalWhy::StoreChanged);
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
        Err(HistoryRefusalWhy::RevisionRegressed)
    }
}
