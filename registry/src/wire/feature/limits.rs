//! Limits and the hedge delay of a feature on the wire, in both directions.

use switchboard::{duration, pb::registry, violation::Violations};

use super::super::mask::Mask;
use crate::domain::{
    feature::{FeatureLimits, FeaturePartError, HedgeDelay},
    model::Count,
    write::FeatureLimitsPatch,
};

/// What the leaves of `limits` ask for, by a mask.
pub(super) fn patch(wire: registry::FeatureLimits, mask: &Mask, violations: &mut Violations) -> FeatureLimitsPatch {
    FeatureLimitsPatch {
        max_concurrency: mask.edit("limits.max_concurrency", wire.max_concurrency).parsed(
            "feature.limits.max_concurrency",
            violations,
            Count::parse,
        ),
        reserved_concurrency: mask
            .edit("limits.reserved_concurrency", wire.reserved_concurrency)
            .parsed("feature.limits.reserved_concurrency", violations, Count::parse),
    }
}

/// Reads a hedge delay; a span that is no time is out of range like any other.
pub(super) fn hedge_delay(span: prost_types::Duration) -> Result<HedgeDelay, FeaturePartError> {
    duration::read(span).map_or(Err(FeaturePartError::HedgeDelayOutOfRange), HedgeDelay::parse)
}

/// The limits as they are answered and stored. `None`: nobody has set one.
pub(in crate::wire) fn limits_message(limits: &FeatureLimits) -> Option<registry::FeatureLimits> {
    (*limits != FeatureLimits::default()).then(|| registry::FeatureLimits {
        max_concurrency: limits.max_concurrency.map(Count::get),
        reserved_concurrency: limits.reserved_concurrency.map(Count::get),
    })
}

/// The hedge delay as it is answered and stored.
pub(in crate::wire) fn hedge_delay_message(delay: Option<HedgeDelay>) -> Option<prost_types::Duration> {
    delay.and_then(|delay| prost_types::Duration::try_from(delay.get()).ok())
}
