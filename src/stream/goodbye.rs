//! The message with which the registry ends a stream in an orderly way.

use std::time::Duration;

use super::fields::{from_span, span};
use crate::pb::registry;

/// The registry ends the stream. The follower connects again after `min_wait` plus a random part of `spread`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Goodbye {
    /// Why the stream ends.
    pub why: GoodbyeWhy,
    /// The minimum delay before the follower connects again.
    pub min_wait: Duration,
    /// The maximum of the random delay that the follower adds to [`Self::min_wait`].
    pub spread: Duration,
}

/// Why the registry ends a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoodbyeWhy {
    /// The stream has reached its maximum age, or a newer stream of the same router replaces it.
    Rotation,
    /// The registry is shutting down.
    Drain,
    /// The follower reads so slowly, or not at all, that the registry no longer stores the changes that it still needs.
    TooSlow,
    /// A new incarnation of the store has begun. The next stream starts with a snapshot of it.
    Moved,
    /// A reason that this build does not know. Only received, never sent.
    Unknown,
}

impl Goodbye {
    pub(super) fn read(wire: &registry::Goodbye) -> Self {
        Self {
            why: match wire.why() {
                registry::GoodbyeWhy::Rotation => GoodbyeWhy::Rotation,
                registry::GoodbyeWhy::Drain => GoodbyeWhy::Drain,
                registry::GoodbyeWhy::TooSlow => GoodbyeWhy::TooSlow,
                registry::GoodbyeWhy::Moved => GoodbyeWhy::Moved,
                registry::GoodbyeWhy::Unspecified => GoodbyeWhy::Unknown,
            },
            min_wait: span(wire.min_wait),
            spread: span(wire.spread),
        }
    }
}

impl From<Goodbye> for registry::Goodbye {
    fn from(goodbye: Goodbye) -> Self {
        let why = match goodbye.why {
            GoodbyeWhy::Rotation => registry::GoodbyeWhy::Rotation,
            GoodbyeWhy::Drain => registry::GoodbyeWhy::Drain,
            GoodbyeWhy::TooSlow => registry::GoodbyeWhy::TooSlow,
            GoodbyeWhy::Moved => registry::GoodbyeWhy::Moved,
            GoodbyeWhy::Unknown => registry::GoodbyeWhy::Unspecified,
        };
        Self {
            why: why.into(),
            min_wait: from_span(goodbye.min_wait),
            spread: from_span(goodbye.spread),
        }
    }
}
