//! What goes down a change stream, before it becomes bytes.

use std::sync::Arc;

use bytes::Bytes;
use switchboard::stream::{Bookmark, Goodbye, RegistryMessage, Welcome};

use crate::{domain::items::Item, fleet::check::CheckOrder};

/// One message to a follower, be it a watcher or a router.
#[derive(Debug, Clone)]
pub enum Frame {
    /// First, once.
    Welcome(Welcome),
    /// A piece of the configuration, encoded once for all who get it.
    Shared(Bytes),
    /// A sign of life.
    Bookmark(Bookmark),
    /// The stream ends in order.
    Goodbye(Goodbye),
    /// A router is to check a model. Watchers never get it.
    Check(CheckOrder),
}

impl Frame {
    /// The frame as it goes out. What is shared is not encoded again.
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
