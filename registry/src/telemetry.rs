//! What the registry shows of itself: the writer, and who follows.
//!
//! Writes and credential fetches by their outcome are calls, which are counted as such.

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    metrics::{counter::Counter, histogram::Histogram},
    registry::Registry,
};
use switchboard::service::metrics::{durations, read_gauge};
use tokio::sync::watch;

use crate::{domain::state::State, feed::Feed};

/// What is counted of the writer. A clone counts in the same place.
#[derive(Debug, Clone)]
pub struct CommitMetrics {
    duration: Histogram,
    stored: Counter,
    failed: Counter,
}

impl Default for CommitMetrics {
    fn default() -> Self {
        Self {
            duration: durations(),
            stored: Counter::default(),
            failed: Counter::default(),
        }
    }
}

impl CommitMetrics {
    /// Counts a transaction of so many revisions.
    pub fn count(&self, revisions: usize, took: Duration, is_stored: bool) {
        self.duration.observe(took.as_secs_f64());
        if is_stored {
            self.stored.inc_by(u64::try_from(revisions).unwrap_or(u64::MAX));
        } else {
            self.failed.inc();
        }
    }

    /// Shows what is counted.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "commit_duration_seconds",
            "How long transactions took, with the sync of the disk",
            self.duration.clone(),
        );
        registry.register(
            "revisions_committed",
            "Revisions that were made durable",
            self.stored.clone(),
        );
        registry.register("commits_failed", "Transactions that failed", self.failed.clone());
    }
}

/// Shows the published state.
pub fn register_state(published: watch::Receiver<Arc<State>>, registry: &mut Registry) {
    read_gauge(registry, "revision", "The newest revision", move || {
        Some(number(published.borrow().items.revision().get()))
    });
}

/// Shows who follows the change stream.
pub fn register_feed(feed: &Feed, registry: &mut Registry) {
    let shown = feed.clone();
    read_gauge(registry, "routers_connected", "Routers that follow", move || {
        i64::try_from(shown.routers()).ok().map(number)
    });
    let withheld = feed.withheld();
    read_gauge(
        registry,
        "routers_withheld",
        "Routers that are connected and get no configuration, since their history contradicts this registry's",
        move || i64::try_from(withheld.connected()).ok().map(number),
    );
    let shown = feed.clone();
    read_gauge(
        registry,
        "watchers_connected",
        "Streams of `Watch` that are open",
        move || i64::try_from(shown.watchers()).ok().map(number),
    );
}

#[expect(clippy::cast_precision_loss, reason = "a metric is a float: exact up to 2^53")]
const fn number(number: i64) -> f64 {
    number as f64
}
