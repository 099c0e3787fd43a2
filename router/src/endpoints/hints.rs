//! What a server tells of itself beside its calls: pure.
//!
//! All of it are hints, and no gate: what is missing or old is unknown.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

/// How long what an engine tells of its load is believed.
const FRESH: Duration = Duration::from_secs(30);
/// How long a server that has no metrics is not asked for them again.
const LACKING: Duration = Duration::from_secs(5 * 60);

/// What an engine has to do, of whomever.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EngineLoad {
    /// Requests that it works on, and that wait at it.
    pub requests: f64,
    /// How much of its cache is taken, 0 to 1. `None`: not told.
    pub cache_used: Option<f64>,
}

/// What one server has told of itself.
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// Its name for the model, by its model list.
    pub(super) listed: Option<Arc<str>>,
    newest: Option<Sample>,
    lacks_metrics_until: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    load: EngineLoad,
    /// Requests that were not this router's.
    others: f64,
    at: Instant,
}

impl Hints {
    /// Takes down what the engine has to do while `ours` of its requests are this router's. `None`: it has no metrics that
    /// tell it.
    pub(super) fn measured(&mut self, load: Option<EngineLoad>, ours: u32, now: Instant) {
        self.newest = load.map(|load| Sample {
            load,
            others: (load.requests - f64::from(ours)).max(0.0),
            at: now,
        });
        self.lacks_metrics_until = load.is_none().then_some(now + LACKING);
    }

    /// Whether the server may have metrics.
    pub(super) fn wants_metrics(&self, now: Instant) -> bool {
        self.lacks_metrics_until.is_none_or(|until| until <= now)
    }

    /// How many requests of others it has to do. `None`: unknown, which is not zero.
    pub(super) fn others(&self, now: Instant) -> Option<f64> {
        self.fresh(now).map(|sample| sample.others)
    }

    /// What its engine told.
    pub(super) fn load(&self, now: Instant) -> Option<EngineLoad> {
        self.fresh(now).map(|sample| sample.load)
    }

    fn fresh(&self, now: Instant) -> Option<Sample> {
        self.newest
            .filter(|sample| now.saturating_duration_since(sample.at) <= FRESH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: EngineLoad = EngineLoad {
        requests: 5.0,
        cache_used: None,
    };

    #[test]
    fn what_is_not_ours_counts_while_it_is_fresh() {
        let now = Instant::now();
        let mut hints = Hints::default();
        assert_eq!(hints.others(now), None, "unknown");
        hints.measured(Some(LOAD), 2, now);
        assert_eq!(hints.others(now + FRESH), Some(3.0));
        assert_eq!(hints.load(now), Some(LOAD));
        assert_eq!(hints.others(now + FRESH + Duration::from_millis(1)), None);
        hints.measured(Some(LOAD), 9, now);
        assert_eq!(hints.others(now), Some(0.0), "ours came while it counted");
    }

    #[test]
    fn a_server_without_metrics_is_not_asked_for_them_again_for_a_while() {
        let now = Instant::now();
        let mut hints = Hints::default();
        assert!(hints.wants_metrics(now));
        hints.measured(None, 0, now);
        assert!(!hints.wants_metrics(now + LACKING - Duration::from_millis(1)));
        assert!(hints.wants_metrics(now + LACKING));
        hints.measured(Some(LOAD), 0, now + LACKING);
        assert!(hints.wants_metrics(now + LACKING));
    }
}
