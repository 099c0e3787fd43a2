//! Follows the registry's change stream and keeps the catalog in use up to date.
//!
//! It serves no calls and writes nothing to the registry. The one hard idea: receiving, compiling and reporting each
//! run at their own pace, and each step always takes the newest result of the step before it. So a slow step skips
//! states, and never blocks the stream.

pub mod apply;
mod checks;
pub mod compile;
pub mod config;
mod credentials;
#[cfg(test)]
pub(crate) mod fixture;
mod link;
pub mod order;
pub mod persist;
pub mod received;
mod report;
pub mod resource;
pub mod session;
pub mod surroundings;

use std::sync::Arc;

use switchboard::history::Cursor;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, error, info_span};

pub use self::config::SubscriptionConfig;
use self::{
    apply::{Applied, Applier},
    link::{Link, Told},
    persist::{PersistMetrics, Persister, Restored},
    received::Received,
    surroundings::{Grpc, Surroundings},
};
use crate::{check::Checker, current::Current, live::LiveModels};

/// The router's side of the change stream.
#[derive(Debug)]
pub struct Subscription<S = Grpc> {
    surroundings: S,
    config: Arc<SubscriptionConfig>,
    current: Arc<Current>,
    models: LiveModels,
    checker: Option<Checker>,
    received: watch::Sender<Option<Arc<Received>>>,
    applied: watch::Sender<Applied>,
    metrics: PersistMetrics,
}

/// Read access to the router's progress in following the registry.
#[derive(Debug, Clone)]
pub struct Progress {
    received: watch::Receiver<Option<Arc<Received>>>,
    applied: watch::Receiver<Applied>,
}

impl Progress {
    /// Returns the cursor of the newest state that was received completely. `None`: none was.
    #[must_use]
    pub fn received(&self) -> Option<Cursor> {
        self.received.borrow().as_ref().map(|received| *received.cursor())
    }

    /// Returns a receiver of the newest state that was received completely. It is notified of each newer state.
    #[must_use]
    pub fn states(&self) -> watch::Receiver<Option<Arc<Received>>> {
        self.received.clone()
    }

    /// Returns a receiver of the state in use. It is notified of each change.
    #[must_use]
    pub fn applications(&self) -> watch::Receiver<Applied> {
        self.applied.clone()
    }

    /// Returns the state in use.
    #[must_use]
    pub fn applied(&self) -> Applied {
        self.applied.borrow().clone()
    }
}

impl Subscription {
    /// Creates a subscription that puts its catalogs into `current` and reports the health of the servers of `models`.
    /// It does nothing before [`Self::run`].
    #[must_use]
    pub fn new(config: SubscriptionConfig, current: Arc<Current>, models: LiveModels) -> Self {
        Self::within(Grpc, config, current, models)
    }
}

impl<S: Surroundings> Subscription<S> {
    /// Creates a subscription with other surroundings.
    #[must_use]
    pub fn within(surroundings: S, config: SubscriptionConfig, current: Arc<Current>, models: LiveModels) -> Self {
        Self {
            surroundings,
            config: Arc::new(config),
            current,
            models,
            checker: None,
            received: watch::Sender::new(None),
            applied: watch::Sender::new(Applied::default()),
            metrics: PersistMetrics::default(),
        }
    }

    /// Makes the subscription also run the checks that the registry requests.
    #[must_use]
    pub fn checking(self, checker: Checker) -> Self {
        Self {
            checker: Some(checker),
            ..self
        }
    }

    /// Returns the metrics of the snapshot file.
    #[must_use]
    pub const fn metrics(&self) -> &PersistMetrics {
        &self.metrics
    }

    /// Returns read access to the progress, which stays valid after the subscription has ended.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress {
            received: self.received.subscribe(),
            applied: self.applied.subscribe(),
        }
    }

    /// Continues from the snapshot file, if there is one, and follows the registry until it is cancelled. Then it ends
    /// the stream in order, within about a second.
    ///
    /// It ends earlier only if one of its tasks panics. The panic is logged, and the last catalog stays in use.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future aborts all its tasks at once.
    pub async fn run(self, cancel: CancellationToken) {
        let Self {
            surroundings,
            config,
            current,
            models,
            checker,
            received,
            applied,
            metrics,
        } = self;
        let span = info_span!("subscription");
        let (kept, kept_out) = watch::channel(None);
        // Both ends are kept until the end, so that the stream can report what was persisted even without a snapshot
        // file.
        let (persisted, persisted_out) = watch::channel(None);
        let persister = config
            .snapshot
            .clone()
            .map(|file| Persister::new(file, kept_out, persisted.clone(), metrics));
        let restored = load(persister.as_ref()).instrument(span.clone());
        let Some(restored) = cancel.run_until_cancelled(restored).await else {
            return;
        };
        if let Some(restored) = &restored {
            received.send_replace(Some(Arc::clone(&restored.kept.received)));
        }

        let (received_out, applied_out) = (received.subscribe(), applied.subscribe());
        let (connection, connection_out) = watch::channel(None);
        let told = Told {
            current: Arc::clone(&current),
            models: models.clone(),
            checker,
            applied: applied_out,
            persisted: persisted_out,
        };
        let link = Link::new(surroundings.clone(), config, received, connection, told);
        let mut applier = Applier::new(
            surroundings,
            (current, models),
            received_out,
            connection_out,
            applied,
            kept,
        );
        if let Some(restored) = restored {
            applier.restore(restored);
        }
        let mut tasks = JoinSet::new();
        tasks.spawn(link.run(cancel.clone()).instrument(span.clone()));
        tasks.spawn(applier.run(cancel.clone()).instrument(span.clone()));
        if let Some(persister) = persister {
            tasks.spawn(persister.run(cancel).instrument(span));
        }
        // The link and the applier are useless without each other, and the persister is useless without them.
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                error!(%error, "a task of the subscription to the registry failed");
                return;
            }
        }
        drop(persisted);
    }
}

async fn load(persister: Option<&Persister>) -> Option<Restored> {
    persister?.load().await
}

#[cfg(test)]
mod tests;
