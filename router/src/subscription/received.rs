//! What the router has received whole: every resource at exactly one revision, proved by its digest.
//!
//! Pure. A state is never half changed: a snapshot is gathered beside it, and a delta is summed up before it is applied.

use std::{collections::BTreeMap, sync::Arc};

use switchboard::{digest::StateDigest, history::Cursor};

use super::resource::Resource;

/// Resources by name, ordered by the bytes of the names.
pub type Resources = BTreeMap<Arc<str>, Arc<Resource>>;

/// What becomes of each resource that a delta touches. `None`: it is gone.
pub type Changes = BTreeMap<Arc<str>, Option<Arc<Resource>>>;

/// Every resource at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    cursor: Cursor,
    resources: Resources,
    traceparent: Option<Arc<str>>,
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

    /// Applies a whole delta. That a name is gone which was not there changes nothing. On an error nothing is changed.
    ///
    /// # Errors
    ///
    /// [`StateMismatch`] when the state would not have the digest of `to`.
    pub fn apply(&mut self, to: Cursor, changes: Changes, traceparent: Option<Arc<str>>) -> Result<(), StateMismatch> {
        let mut state = self.cursor.state;
        for (name, resource) in &changes {
            if let Some(old) = self.resources.get(name) {
                state = state.minus(old.digest);
            }
            if let Some(resource) = resource {
                state = state.plus(resource.digest);
            }
        }
        if state != to.state {
            return Err(StateMismatch);
        }
        for (name, resource) in changes {
            match resource {
                Some(resource) => self.resources.insert(name, resource),
                None => self.resources.remove(&name),
            };
        }
        self.cursor = to;
        self.traceparent = traceparent;
        Ok(())
    }

    /// Where in the history it stands.
    #[must_use]
    pub const fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// The trace context of the newest of the writes that came with the last delta, if it was traced.
    #[must_use]
    pub fn traceparent(&self) -> Option<&str> {
        self.traceparent.as_deref()
    }

    /// The resources, ordered by name.
    #[must_use]
    pub const fn resources(&self) -> &Resources {
        &self.resources
    }
}
