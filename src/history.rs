//! Where in which history a state stands: what a cursor says once it is read.

use crate::{
    digest::{ChainDigest, FORMAT, StateDigest},
    names::{IncarnationId, Revision, StoreId},
    pb,
};

/// One life of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Incarnation {
    /// Counts the lives, from 1.
    pub number: i64,
    /// Tells apart two lives that took the same number.
    pub id: IncarnationId,
}

/// What a change stream shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum View {
    /// Models, features and settings: what anybody may watch.
    Config,
    /// What routers need.
    Router,
}

/// A place in a history, with the proof of what it looks like there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The store.
    pub store: StoreId,
    /// The life of the store.
    pub incarnation: Incarnation,
    /// The revision, from 1.
    pub revision: Revision,
    /// The history up to it.
    pub chain: ChainDigest,
    /// The view that [`Self::state`] is of.
    pub view: View,
    /// The state at it.
    pub state: StateDigest,
}

/// The text on the wire is no cursor that this build can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a cursor that this version can read")]
pub struct CursorError;

impl TryFrom<&pb::types::Cursor> for Cursor {
    type Error = CursorError;

    fn try_from(wire: &pb::types::Cursor) -> Result<Self, CursorError> {
        if wire.format != FORMAT || wire.revision < 1 || wire.incarnation_number < 1 {
            return Err(CursorError);
        }
        let read = || {
            Some(Self {
                store: StoreId::parse(&wire.store).ok()?,
                incarnation: Incarnation {
                    number: wire.incarnation_number,
                    id: IncarnationId::parse(&wire.incarnation).ok()?,
                },
                revision: Revision::new(wire.revision)?,
                chain: ChainDigest::from_slice(&wire.chain_digest)?,
                view: match wire.view() {
                    pb::types::View::Config => View::Config,
                    pb::types::View::Router => View::Router,
                    pb::types::View::Unspecified => return None,
                },
                state: StateDigest::from_slice(&wire.state_digest)?,
            })
        };
        read().ok_or(CursorError)
    }
}

impl From<&Cursor> for pb::types::Cursor {
    fn from(cursor: &Cursor) -> Self {
        let view = match cursor.view {
            View::Config => pb::types::View::Config,
            View::Router => pb::types::View::Router,
        };
        Self {
            incarnation: cursor.incarnation.id.to_string(),
            revision: cursor.revision.get(),
            chain_digest: cursor.chain.as_bytes().to_vec(),
            state_digest: cursor.state.as_bytes().to_vec(),
            store: cursor.store.to_string(),
            incarnation_number: cursor.incarnation.number,
            view: view.into(),
            format: FORMAT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let cursor = Cursor {
            store: StoreId::random(),
            incarnation: Incarnation {
                number: 1,
                id: IncarnationId::random(),
            },
            revision: Revision::new(7).unwrap(),
            chain: ChainDigest::NONE,
            view: View::Router,
            state: StateDigest::EMPTY,
        };
        let wire = pb::types::Cursor::from(&cursor);
        assert_eq!(Cursor::try_from(&wire), Ok(cursor));

        for spoil in [
            |c: &mut pb::types::Cursor| c.format = 2,
            |c: &mut pb::types::Cursor| c.revision = 0,
            |c: &mut pb::types::Cursor| c.incarnation_number = 0,
            |c: &mut pb::types::Cursor| c.view = 9,
            |c: &mut pb::types::Cursor| c.store.clear(),
            |c: &mut pb::types::Cursor| c.incarnation.push('0'),
            |c: &mut pb::types::Cursor| c.chain_digest.clear(),
            |c: &mut pb::types::Cursor| c.state_digest.push(0),
        ] {
            let mut spoilt = wire.clone();
            spoil(&mut spoilt);
            assert_eq!(Cursor::try_from(&spoilt), Err(CursorError));
        }
    }
}
