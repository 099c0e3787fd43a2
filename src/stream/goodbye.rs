//! The orderly end of a stream.

use std::time::Duration;

use super::fields::{from_span, span};
use crate::pb::registry;

/// The follower is to come back after `min_wait` plus a random part of `spread`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Goodbye {
    /// Why the stream ends.
    pub why: GoodbyeWhy,
    /// Wait at least this long.
    pub min_wait: Duration,
    /// Then a random time up to this.
    pub spread: Duration,
}

/// Why a stream ends in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoodbyeWhy {
    /// It has reached its age, or a newer stream of the same router takes its place.
    Rotation,
    /// The registry shuts down.
    Drain,
    /// The follower does not read, or reads so slowly that what it was being sent, or needs next, is no longer kept.
    TooSlow,
    /// A new life of the store has begun: the next stream brings a snapshot of it.
    Moved,
    /// A cause that this build does not know. Only read.
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
