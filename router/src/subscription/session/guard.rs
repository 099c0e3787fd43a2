//! The router's own judgement on a history that it is offered, whatever the registry says of it.

use std::cmp::Ordering;

use switchboard::{history::Cursor, stream::HistoryRefusalWhy};

/// Whether what is offered may follow what the router has. With nothing received everything may.
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
