//! How many calls of a feature there may be, and when one is made a second time.

use std::time::Duration;

use super::FeaturePartError;
use crate::domain::model::{Count, Positive};

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
}

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

    /// The span.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}
