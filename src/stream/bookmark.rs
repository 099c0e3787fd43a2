//! How far a stream is, sent as a sign of life.

use super::{RegistryMessageError, fields::cursor_of};
use crate::{
    history::{Cursor, View},
    names::Revision,
    pb::registry,
};

/// How far a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bookmark {
    /// The last cursor that was sent completely. `None`: none yet.
    pub at: Option<Cursor>,
    /// The newest revision.
    pub head: Revision,
    /// A number that a router gives back in its next report.
    pub probe: i64,
    /// Whether the writer has been in its present round for longer than a heartbeat.
    pub stalled: bool,
}

impl Bookmark {
    pub(super) fn read(wire: &registry::Bookmark, view: View) -> Result<Self, RegistryMessageError> {
        Ok(Self {
            at: wire.at.as_ref().map(|at| cursor_of(Some(at), view)).transpose()?,
            head: Revision::new(wire.head_revision).ok_or(RegistryMessageError)?,
            probe: wire.probe,
            stalled: wire.stalled,
        })
    }
}

impl From<Bookmark> for registry::Bookmark {
    fn from(bookmark: Bookmark) -> Self {
        Self {
            at: bookmark.at.as_ref().map(Into::into),
            head_revision: bookmark.head.get(),
            probe: bookmark.probe,
            stalled: bookmark.stalled,
        }
    }
}
