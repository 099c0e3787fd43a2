//! How many calls of a feature there may be, and when one is made a second time.

use std::time::Duration;

use super::{super::fields::Fields, FeaturePartError};
use crate::{
    duration,
    pb::registry,
    reason::FieldReason,
    resource::model::{Count, Positive},
};

/// The path of what violations about reserved places name.
const RESERVED: &str = "limits.reserved_concurrency";

/// Limits of the calls of a feature: only what somebody has set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FeatureLimits {
    /// Calls at a time, for each router process.
    pub max_concurrency: Option<Positive>,
    /// Places of the feature's model that are kept for it, for each router process.
    pub reserved_concurrency: Option<Count<0, { i32::MAX }>>,
}

impl FeatureLimits {
    /// Whether more places are kept for the feature than it can use.
    #[must_use]
    pub fn reserves_too_much(&self) -> bool {
        let most = self.max_concurrency.map_or(i32::MAX, Count::get);
        self.reserved_concurrency.is_some_and(|reserved| reserved.get() > most)
    }

    /// Reads the limits; what they have to be together is asked by [`Self::check`] of what comes with them.
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

    /// A feature cannot keep more places than it may use.
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

    /// `None`: nobody has set any.
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

/// Whether the write itself gives the places that are kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReservedByWrite(bool);

/// How long a call waits for its first token before it is made a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HedgeDelay(Duration);

impl HedgeDelay {
    /// The shortest: less would make nearly every call a second time.
    pub const MIN: Duration = Duration::from_millis(10);
    /// The longest.
    pub const MAX: Duration = Duration::from_secs(60);

    /// Parses [`Self::MIN`] to [`Self::MAX`].
    ///
    /// # Errors
    ///
    /// [`FeaturePartError::HedgeDelayOutOfRange`] for any other span.
    pub fn parse(span: Duration) -> Result<Self, FeaturePartError> {
        if (Self::MIN..=Self::MAX).contains(&span) {
            Ok(Self(span))
        } else {
            Err(FeaturePartError::HedgeDelayOutOfRange)
        }
    }

    /// Reads a span; one that is negative or not normal is out of range like any other.
    pub(super) fn read(span: prost_types::Duration) -> Result<Self, FeaturePartError> {
        duration::read(span).map_or(Err(FeaturePartError::HedgeDelayOutOfRange), Self::parse)
    }

    /// The span.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}
