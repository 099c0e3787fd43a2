//! Counts the calls of each feature. A call above the feature's limit is refused at once: there is no queue.

use std::{collections::HashMap, sync::Arc};

use parking_lot::{Mutex, MutexGuard};
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use switchboard::names::FeatureName;

/// The feature has reached its limit of concurrent calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`{feature}` has reached its limit of {limit} concurrent calls on this router")]
pub struct QuotaExceeded {
    /// The feature whose limit was reached.
    pub feature: &'static FeatureName,
    /// The feature's limit of concurrent calls.
    pub limit: usize,
}

/// The number of running calls of each feature. Clones share the counts.
#[derive(Debug, Clone, Default)]
pub struct Quotas {
    /// Features without a limit are counted too: they may get a limit later.
    running: Arc<Mutex<HashMap<&'static FeatureName, usize>>>,
    refused: Counter,
}

/// Counts one call of a feature until it is dropped.
#[derive(Debug)]
pub struct FeaturePermit {
    feature: &'static FeatureName,
    quotas: Quotas,
}

impl Quotas {
    /// Counts a call of a feature until the returned permit is dropped. `max` is the feature's limit of concurrent
    /// calls. `None`: no limit.
    ///
    /// # Errors
    ///
    /// [`QuotaExceeded`] if the feature has reached its limit.
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

    /// Whether a feature has reached its limit of `max` concurrent calls. `None`: no limit.
    #[must_use]
    pub fn is_spent(&self, feature: &FeatureName, max: Option<usize>) -> bool {
        let running = self.lock().get(feature).copied().unwrap_or_default();
        max.is_some_and(|max| running >= max)
    }

    /// Registers the metric.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "feature_calls_refused",
            "Calls that were refused because their feature had reached its limit of concurrent calls",
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
