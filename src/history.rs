//! Cursors: a cursor names one point in the history of one store, with digests that prove the history and the state
//! there.

use crate::{
    digest::{ChainDigest, FORMAT, StateDigest},
    names::{IncarnationId, Revision, StoreId},
    pb,
};

/// An incarnation: one life of a store. A restore starts a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Incarnation {
    /// The number of the incarnation, from 1.
    pub number: i64,
    /// A random id. It distinguishes two incarnations with the same number.
    pub id: IncarnationId,
}

/// The set of resources that a change stream sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum View {
    /// The view of watchers: models, features and settings.
    Config,
    /// The view of routers.
    Router,
}

/// A point in the history of a store, with digests of the history and of the state at that point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Id of the store.
    pub store: StoreId,
    /// The incarnation of the store.
    pub incarnation: Incarnation,
    /// The revision, from 1.
    pub revision: Revision,
    /// Digest of the history up to [`Self::revision`].
    pub chain: ChainDigest,
    /// The view whose state [`Self::state`] covers.
    pub view: View,
    /// Digest of the view's state at [`Self::revision`].
    pub state: StateDigest,
}

/// The message is not a cursor that this build can read.
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
    fn a_cursor_survives_the_conversion_to_a_message_and_back() {
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
