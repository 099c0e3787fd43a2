//! Follows the registry's change stream and keeps the catalog in use up to date.
//!
//! It serves no calls and writes nothing to the registry. The one hard idea: what is received, what is compiled from it and
//! what is reported move at their own pace, each always from the newest of the one before; so a slow step skips states, and
//! never holds up the stream.

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

/// How far the router follows, for whoever asks.
#[derive(Debug, Clone)]
pub struct Progress {
    received: watch::Receiver<Option<Arc<Received>>>,
    applied: watch::Receiver<Applied>,
}

impl Progress {
    /// Where the newest state stands that was received whole. `None`: none was.
    #[must_use]
    pub fn received(&self) -> Option<Cursor> {
        self.received.borrow().as_ref().map(|received| *received.cursor())
    }

    /// The newest state that was received whole, and a bell for the next.
    #[must_use]
    pub fn states(&self) -> watch::Receiver<Option<Arc<Received>>> {
        self.received.clone()
    }

    /// What is in use, and a bell for the next.
    #[must_use]
    pub fn applications(&self) -> watch::Receiver<Applied> {
        self.applied.clone()
    }

    /// What is in use.
    #[must_use]
    pub fn applied(&self) -> Applied {
        self.applied.borrow().clone()
    }
}

impl Subscription {
    /// A subscription that puts its catalogs into `current`, and reports how the servers of `models` do. Nothing happens before [`Self::run`].
    #[must_use]
    pub fn new(config: SubscriptionConfig, current: Arc<Current>, models: LiveModels) -> Self {
        Self::within(Grpc, config, current, models)
    }
}

impl<S: Surroundings> Subscription<S> {
    /// The same in other surroundings.
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

    /// The same, which also makes the checks that the registry asks for.
    #[must_use]
    pub fn checking(self, checker: Checker) -> Self {
        Self {
            checker: Some(checker),
            ..self
        }
    }

    /// What is counted of the snapshot file.
    #[must_use]
    pub const fn metrics(&self) -> &PersistMetrics {
        &self.metrics
    }

    /// How far it follows, also after it has ended.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress {
            received: self.received.subscribe(),
            applied: self.applied.subscribe(),
        }
    }

    /// Goes on from the snapshot file, if there is one, and follows the registry until it is cancelled; then ends the stream
    /// in order, within about a second.
    ///
    /// Essential: it ends earlier only by a mistake of its own, which is logged; the last catalog stays in use then.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it ends all its tasks at once.
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
        // Both halves are held to the end: the stream reports what was persisted, also when nothing ever is.
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
        // The first two are useless without each other, and the third without them.
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                error!(%error, "the subscription to the registry broke off");
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
