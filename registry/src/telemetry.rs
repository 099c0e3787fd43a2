//! The registry's own metrics: the writer and the connected followers.
//!
//! Writes and credential fetches are gRPC calls, which are counted by outcome like all calls.

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    metrics::{counter::Counter, histogram::Histogram},
    registry::Registry,
};
use switchboard::service::metrics::{durations, read_gauge};
use tokio::sync::watch;

use crate::{domain::state::State, feed::Feed};

/// Metrics of the writer. Clones share their values.
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
    /// Counts a transaction that contains `revisions` revisions.
    pub fn count(&self, revisions: usize, took: Duration, is_stored: bool) {
        self.duration.observe(took.as_secs_f64());
        if is_stored {
            self.stored.inc_by(u64::try_from(revisions).unwrap_or(u64::MAX));
        } else {
            self.failed.inc();
        }
    }

    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "commit_duration_seconds",
            "Duration of transactions, including the sync to disk",
            self.duration.clone(),
        );
        registry.register(
            "revisions_committed",
            "Revisions that were committed",
            self.stored.clone(),
        );
        registry.register("commits_failed", "Transactions that failed", self.failed.clone());
    }
}

/// Registers a gauge for the newest published revision.
pub fn register_state(published: watch::Receiver<Arc<State>>, registry: &mut Registry) {
    read_gauge(registry, "revision", "The newest revision", move || {
        Some(number(published.borrow().items.revision().get()))
    });
}

/// Registers gauges for the followers of the change stream.
pub fn register_feed(feed: &Feed, registry: &mut Registry) {
    let shown = feed.clone();
    read_gauge(
        registry,
        "routers_connected",
        "Routers that follow the change stream",
        move || i64::try_from(shown.routers()).ok().map(number),
    );
    let withheld = feed.withheld();
    read_gauge(
        registry,
        "routers_withheld",
        "Routers that are connected but get no configuration, because their history contradicts this registry's",
        move || i64::try_from(withheld.connected()).ok().map(number),
    );
    let shown = feed.clone();
    read_gauge(registry, "watchers_connected", "Open streams of `Watch`", move || {
        i64::try_from(shown.watchers()).ok().map(number)
    });
}

#[expect(clippy::cast_precision_loss, reason = "a metric is a float: exact up to 2^53")]
const fn number(number: i64) -> f64 {
    number as f64
}
