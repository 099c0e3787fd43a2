//! What the router has received whole: every resource at exactly one revision, proved by its digest.
//!
//! Pure. A state is never half changed: a snapshot is gathered beside it, and a delta is summed up before it is applied.

use std::{collections::BTreeMap, sync::Arc};

use switchboard::{digest::StateDigest, history::Cursor};

use super::resource::Resource;

/// Resources by name, ordered by the bytes of the names.
pub type Resources = BTreeMap<Arc<str>, Arc<Resource>>;

/// Every resource at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    cursor: Cursor,
    resources: Resources,
    /// The trace of the newest write that brought it here. `None`: a snapshot did, or it was not traced.
    pub traceparent: Option<Box<str>>,
}

/// What was sent is not the state that its cursor claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the state does not have the digest that was claimed")]
pub struct StateMismatch;

impl Received {
    /// The state that a snapshot made.
    ///
    /// # Errors
    ///
    /// [`StateMismatch`] when its digest is not that of the cursor.
    pub fn from_snapshot(cursor: Cursor, resources: Resources) -> Result<Self, StateMismatch> {
        let state = resources
            .values()
            .fold(StateDigest::EMPTY, |state, resource| state.plus(resource.digest));
        if state == cursor.state {
            Ok(Self {
                cursor,
                resources,
                traceparent: None,
            })
        } else {
            Err(StateMismatch)
        }
    }

    /// Applies a whole delta. On an error nothing is changed.
    ///
    /// # Errors
    ///
    /// [`StateMismatch`] when the state would not have the digest of `to`.
    pub fn apply(&mut self, to: Cursor, upserts: Resources) -> Result<(), StateMismatch> {
        let mut state = self.cursor.state;
        for (name, resource) in &upserts {
            if let Some(old) = self.resources.get(name) {
                state = state.minus(old.digest);
            }
            state = state.plus(resource.digest);
        }
        if state != to.state {
            return Err(StateMismatch);
        }
        self.resources.extend(upserts);
        self.cursor = to;
        Ok(())
    }

    /// Where in the history it stands.
    #[must_use]
    pub const fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// The resources, ordered by name.
    #[must_use]
    pub const fn resources(&self) -> &Resources {
        &self.resources
    }
}
