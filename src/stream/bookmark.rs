//! Bookmarks: periodic messages that show that a stream is alive, and its position.

use super::{RegistryMessageError, fields::cursor_of};
use crate::{
    history::{Cursor, View},
    names::Revision,
    pb::registry,
};

/// A periodic message with the position of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bookmark {
    /// The cursor of the last state that was sent completely. `None`: no state was sent completely yet.
    pub at: Option<Cursor>,
    /// The newest revision of the registry.
    pub head: Revision,
    /// A number that a router returns in its next report.
    pub probe: i64,
    /// Whether the registry's writer has been busy with its current batch of writes for longer than a heartbeat.
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
