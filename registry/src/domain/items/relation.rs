//! The relation of a cursor to the history: the rows of the table that decides how a follower is answered.

use std::cmp::Ordering;

use switchboard::history::{Cursor, View};

use super::Items;

/// The relation of a cursor to the history: the first row of the table that applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// The cursor belongs to another store.
    OtherStore,
    /// The cursor belongs to a newer life of the store, or to a different life with the same number.
    StaleHistory,
    /// The cursor belongs to an older life of the store.
    OlderLife,
    /// The cursor's revision does not exist yet.
    Ahead,
    /// The cursor's history differs from this one.
    Diverged,
    /// The changes since the cursor are no longer kept.
    Compacted,
    /// The cursor belongs to another view.
    OtherView,
    /// The cursor's state differs from the state at its revision.
    OtherState,
    /// The cursor is part of this history, and deltas can follow.
    Fits,
}

impl Items {
    /// Returns the relation of a cursor to this history, for a stream that shows `view`.
    #[must_use]
    pub fn relation(&self, cursor: &Cursor, view: View) -> Relation {
        if cursor.store != self.store() {
            return Relation::OtherStore;
        }
        let present = self.incarnation();
        match cursor.incarnation.number.cmp(&present.number) {
            Ordering::Less => return Relation::OlderLife,
            Ordering::Equal if cursor.incarnation.id == present.id => {}
            Ordering::Equal | Ordering::Greater => return Relation::StaleHistory,
        }
        if cursor.revision > self.revision() {
            return Relation::Ahead;
        }
        if self.chain(cursor.revision).is_some_and(|chain| chain != cursor.chain) {
            return Relation::Diverged;
        }
        let past = self.past(cursor.revision);
        let Some(past) = past.filter(|_| cursor.revision >= self.oldest_resumable()) else {
            return Relation::Compacted;
        };
        if cursor.view != view {
            Relation::OtherView
        } else if past.state(view) != cursor.state {
            Relation::OtherState
        } else {
            Relation::Fits
        }
    }

    /// Returns whether `cursor` is part of this history, as far as that is still known: cursors of earlier lives and of
    /// compacted revisions are accepted.
    #[must_use]
    pub fn has_been_at(&self, cursor: &Cursor) -> bool {
        match self.relation(cursor, cursor.view) {
            Relation::OtherStore | Relation::StaleHistory | Relation::Ahead | Relation::Diverged => false,
            Relation::OlderLife | Relation::Compacted | Relation::OtherView | Relation::OtherState | Relation::Fits => {
                true
            }
        }
    }
}
