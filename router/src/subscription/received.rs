//! The newest state that the router has received completely: every resource at exactly one revision, verified by its
//! digest.
//!
//! Pure. A state is never partly changed: a snapshot is collected separately, and the digest of a delta is verified
//! before the delta is applied.

use std::{collections::BTreeMap, sync::Arc};

use switchboard::{digest::StateDigest, history::Cursor};

use super::resource::Resource;

/// Resources by name, ordered by the bytes of the names.
pub type Resources = BTreeMap<Arc<str>, Arc<Resource>>;

/// The changes of a delta by resource. `None`: the resource is deleted.
pub type Changes = BTreeMap<Arc<str>, Option<Arc<Resource>>>;

/// Every resource at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    cursor: Cursor,
    resources: Resources,
    traceparent: Option<Arc<str>>,
}

/// The error for resources whose digest is not the one in the cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the state does not have the digest of its cursor")]
pub struct StateMismatch;

impl Received {
    /// Creates the state from a snapshot.
    ///
    /// # Errors
    ///
    /// [`StateMismatch`] if the resources do not have the digest of the cursor.
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

    /// Applies a complete delta. Deleting a name that does not exist has no effect. An error leaves the state
    /// unchanged.
    ///
    /// # Errors
    ///
    /// [`StateMismatch`] if the resulting state would not have the digest of `to`.
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

    /// Returns the position of the state in the history.
    #[must_use]
    pub const fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Returns the trace context of the newest traced write in the last delta. `None`: there was none.
    #[must_use]
    pub fn traceparent(&self) -> Option<&str> {
        self.traceparent.as_deref()
    }

    /// Returns the resources, ordered by name.
    #[must_use]
    pub const fn resources(&self) -> &Resources {
        &self.resources
    }
}
