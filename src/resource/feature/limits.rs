//! Limits of the calls of a feature, and the delay after which a call is hedged.

use std::time::Duration;

use super::{super::fields::Fields, FeaturePartError};
use crate::{
    duration,
    pb::registry,
    reason::FieldReason,
    resource::model::{Count, Positive},
};

/// The path in violations about reserved places.
const RESERVED: &str = "limits.reserved_concurrency";

/// Limits of the calls of a feature. `None`: the limit is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FeatureLimits {
    /// The maximum number of concurrent calls, for each router process.
    pub max_concurrency: Option<Positive>,
    /// The number of the model's places that are reserved for the feature, for each router process.
    pub reserved_concurrency: Option<Count<0, { i32::MAX }>>,
}

impl FeatureLimits {
    /// Whether the feature reserves more places than its own limit of concurrent calls.
    #[must_use]
    pub fn reserves_too_much(&self) -> bool {
        let most = self.max_concurrency.map_or(i32::MAX, Count::get);
        self.reserved_concurrency.is_some_and(|reserved| reserved.get() > most)
    }

    /// Reads the limits. [`Self::check`] checks them against each other; it needs the second part of the result.
    pub(super) fn read(wire: registry::FeatureLimits, fields: &mut Fields<'_>) -> (Self, ReservedByWrite) {
        let registry::FeatureLimits {
            max_concurrency,
            reserved_concurrency,
        } = wire;
        let max_concurrency = fields.read("limits.max_concurrency", max_concurrency, Count::parse);
        let reserved = fields.read(RESERVED, reserved_concurrency, Count::parse);
        let by_write = ReservedByWrite(reserved.is_given());
        let limits = Self {
            max_concurrency: max_concurrency.value,
            reserved_concurrency: reserved.value,
        };
        (limits, by_write)
    }

    /// Adds a violation if the feature reserves more places than its own limit of concurrent calls.
    pub(super) fn check(&self, by_write: ReservedByWrite, fields: &mut Fields<'_>) {
        if !self.reserves_too_much() {
            return;
        }
        let (path, description) = match by_write {
            ReservedByWrite(true) => (
                RESERVED,
                "must not be more than the feature's own `limits.max_concurrency`",
            ),
            ReservedByWrite(false) => (
                "limits.max_concurrency",
                "must not be less than the feature's `limits.reserved_concurrency`",
            ),
        };
        fields.push(path, FieldReason::ReservationTooLarge, description);
    }

    /// Converts the limits to a message. `None`: no limit is set.
    pub(super) fn to_message(self) -> Option<registry::FeatureLimits> {
        let Self {
            max_concurrency,
            reserved_concurrency,
        } = self;
        (self != Self::default()).then(|| registry::FeatureLimits {
            max_concurrency: max_concurrency.map(Count::get),
            reserved_concurrency: reserved_concurrency.map(Count::get),
        })
    }
}

/// Whether the write itself has set the number of reserved places.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReservedByWrite(bool);

/// How long a call waits for its first token before it is hedged: before a second attempt starts in parallel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HedgeDelay(Duration);

impl HedgeDelay {
    /// The minimum: with a shorter delay, nearly every call would be hedged.
    pub const MIN: Duration = Duration::from_millis(10);
    /// The maximum.
    pub const MAX: Duration = Duration::from_secs(60);

    /// Parses a delay from [`Self::MIN`] to [`Self::MAX`].
    ///
    /// # Errors
    ///
    /// [`FeaturePartError::HedgeDelayOutOfRange`] for any other duration.
    pub fn parse(span: Duration) -> Result<Self, FeaturePartError> {
        if (Self::MIN..=Self::MAX).contains(&span) {
            Ok(Self(span))
        } else {
            Err(FeaturePartError::HedgeDelayOutOfRange)
        }
    }

    /// Converts a protobuf duration. A negative or malformed one is out of range.
    pub(super) fn read(span: prost_types::Duration) -> Result<Self, FeaturePartError> {
        duration::read(span).map_or(Err(FeaturePartError::HedgeDelayOutOfRange), Self::parse)
    }

    /// The delay.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}
