//! How many calls each feature has. One more than it may have is refused at once: there is no queue.

use std::{collections::HashMap, sync::Arc};

use parking_lot::{Mutex, MutexGuard};
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use switchboard::names::FeatureName;

/// The feature has as many calls as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`{feature}` has {limit} calls at a time on this router, as many as it may")]
pub struct QuotaExceeded {
    /// The feature whose limit it is.
    pub feature: &'static FeatureName,
    /// How many it may have.
    pub limit: usize,
}

/// The calls of all features. A clone counts in the same place.
#[derive(Debug, Clone, Default)]
pub struct Quotas {
    /// Features without a limit are counted too: they may get one.
    running: Arc<Mutex<HashMap<&'static FeatureName, usize>>>,
    refused: Counter,
}

/// A call of a feature. Dropped, it no longer counts.
#[derive(Debug)]
pub struct FeaturePermit {
    feature: &'static FeatureName,
    quotas: Quotas,
}

impl Quotas {
    /// Counts a call of a feature that may have `max` at a time, until what is returned is dropped.
    ///
    /// # Errors
    ///
    /// [`QuotaExceeded`] when it has as many.
    pub fn begin(&self, feature: &'static FeatureName, max: Option<usize>) -> Result<FeaturePermit, QuotaExceeded> {
        let mut running = self.lock();
        let count = running.entry(feature).or_default();
        if let Some(limit) = max.filter(|max| *count >= *max) {
            self.refused.inc();
            return Err(QuotaExceeded { feature, limit });
        }
        *count += 1;
        Ok(FeaturePermit {
            feature,
            quotas: self.clone(),
        })
    }

    /// Whether a feature that may have `max` calls at a time has as many.
    #[must_use]
    pub fn is_spent(&self, feature: &FeatureName, max: Option<usize>) -> bool {
        let running = self.lock().get(feature).copied().unwrap_or_default();
        max.is_some_and(|max| running >= max)
    }

    /// Shows what is counted.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "feature_calls_refused",
            "Calls that were refused since their feature has as many as it may",
            self.refused.clone(),
        );
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<&'static FeatureName, usize>> {
        self.running.lock()
    }
}

impl Drop for FeaturePermit {
    fn drop(&mut self) {
        if let Some(count) = self.quotas.lock().get_mut(self.feature) {
            *count -= 1;
        }
    }
}
