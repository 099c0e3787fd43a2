//! What a server reports about itself outside of calls. Pure.
//!
//! All of this is a hint and never excludes a server: a value that is missing or too old is unknown.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

/// How long the load that an engine reported is considered valid.
const FRESH: Duration = Duration::from_secs(30);
/// How long a server without metrics is not asked for them again.
const LACKING: Duration = Duration::from_secs(5 * 60);

/// Load of an engine from all of its clients.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EngineLoad {
    /// Number of requests that are running or waiting at the engine.
    pub requests: f64,
    /// Fraction of its cache that is in use, 0 to 1. `None`: not reported.
    pub cache_used: Option<f64>,
}

/// What one server has reported about itself.
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// Its name for the model, from its model list. `None`: not known.
    pub(super) listed: Option<Arc<str>>,
    newest: Option<Sample>,
    lacks_metrics_until: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    load: EngineLoad,
    /// Number of requests that came from other clients than this router.
    others: f64,
    at: Instant,
}

impl Hints {
    /// Records the load of the engine at a time when `ours` of its requests came from this router. `None`: the server
    /// has no metrics that show the load.
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

    /// Returns the number of requests from other clients. `None`: unknown, which does not mean zero.
    pub(super) fn others(&self, now: Instant) -> Option<f64> {
        self.fresh(now).map(|sample| sample.others)
    }

    /// Returns the load that the engine reported. `None`: unknown.
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
    fn requests_from_other_clients_count_while_the_report_is_fresh() {
        let now = Instant::now();
        let mut hints = Hints::default();
        assert_eq!(hints.others(now), None, "unknown");
        hints.measured(Some(LOAD), 2, now);
        assert_eq!(hints.others(now + FRESH), Some(3.0));
        assert_eq!(hints.load(now), Some(LOAD));
        assert_eq!(hints.others(now + FRESH + Duration::from_millis(1)), None);
        hints.measured(Some(LOAD), 9, now);
        assert_eq!(
            hints.others(now),
            Some(0.0),
            "our requests arrived after the engine counted"
        );
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
