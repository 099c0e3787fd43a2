//! The messages of a change stream before they are encoded.

use std::sync::Arc;

use bytes::Bytes;
use switchboard::stream::{Bookmark, Goodbye, RegistryMessage, Welcome};

use crate::{domain::items::Item, fleet::check::CheckOrder};

/// One message to a follower, which is a watcher or a router.
#[derive(Debug, Clone)]
pub enum Frame {
    /// The first message, sent once.
    Welcome(Welcome),
    /// A part of the configuration, encoded once for all followers that get it.
    Shared(Bytes),
    /// A sign of life, sent at regular intervals.
    Bookmark(Bookmark),
    /// Announces that the stream ends normally.
    Goodbye(Goodbye),
    /// Asks a router to check a model. Never sent to watchers.
    Check(CheckOrder),
}

impl Frame {
    /// Encodes the frame. A shared frame is already encoded.
    #[must_use]
    pub fn encode(self) -> Bytes {
        let message: RegistryMessage<Arc<Item>> = match self {
            Self::Shared(bytes) => return bytes,
            Self::Welcome(welcome) => RegistryMessage::Welcome(welcome),
            Self::Bookmark(bookmark) => RegistryMessage::Bookmark(bookmark),
            Self::Goodbye(goodbye) => RegistryMessage::Goodbye(goodbye),
            Self::Check(order) => RegistryMessage::Check((&order).into()),
        };
        message.encode()
    }
}
