//! How a cursor stands to the history: the rows of the table that decides what a follower is answered.

use std::cmp::Ordering;

use switchboard::history::{Cursor, View};

use super::Items;

/// How a cursor stands to the history, by the first row of the table that fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// It is of another store.
    OtherStore,
    /// It is of a newer life of the store, or of another one with the same number.
    StaleHistory,
    /// It is of an older life of the store.
    OlderLife,
    /// It is of a revision that does not exist yet.
    Ahead,
    /// The history up to it is another one.
    Diverged,
    /// The changes since it are no longer kept.
    Compacted,
    /// It is of another view.
    OtherView,
    /// Its state is not that of its revision.
    OtherState,
    /// The history has been there, and goes on from there.
    Fits,
}

impl Items {
    /// How a cursor stands to this history, for a stream that shows `view`.
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

    /// Whether the history has been at `cursor`, as far as it is still known: earlier lives and compacted revisions pass.
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
