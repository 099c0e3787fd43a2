//! Follows the registry's change stream and keeps the catalog in use up to date.
//!
//! It serves no calls and writes nothing to the registry. The one hard idea: what is received, what is compiled from it and
//! what is reported move at their own pace, each always from the newest of the one before; so a slow step skips states, and
//! never holds up the stream.

pub mod apply;
pub mod compile;
mod credentials;
#[cfg(test)]
pub(crate) mod fixture;
mod link;
pub mod received;
pub mod resource;
pub mod session;

use std::sync::Arc;

use switchboard::{history::Cursor, names::InstanceId};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, error, info_span};

use self::{
    apply::{Applied, Applier},
    link::Link,
    received::Received,
};
use crate::{current::Current, endpoints::Endpoints};

/// Whom to follow, and as whom.
#[derive(Debug, Clone)]
pub struct SubscriptionConfig {
    /// The registries' base addresses, `http://host:port`, one at least: tried in turn.
    pub registry_addrs: Vec<http::Uri>,
    /// The router's stable id, 1 to 255 visible ASCII characters.
    pub router_id: String,
    /// What the router belongs to. Empty: nothing.
    pub group: String,
    /// The id of this start of the process.
    pub instance: InstanceId,
    /// The version of this program, for people.
    pub build: String,
}

/// The router's side of the change stream.
#[derive(Debug)]
pub struct Subscription {
    config: Arc<SubscriptionConfig>,
    current: Arc<Current>,
    endpoints: Endpoints,
    received: watch::Sender<Option<Arc<Received>>>,
    applied: watch::Sender<Applied>,
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

    /// What is in use.
    #[must_use]
    pub fn applied(&self) -> Applied {
        self.applied.borrow().clone()
    }
}

impl Subscription {
    /// A subscription that puts its catalogs into `current`, and reports how `endpoints` do. Nothing happens before [`Self::run`].
    #[must_use]
    pub fn new(config: SubscriptionConfig, current: Arc<Current>, endpoints: Endpoints) -> Self {
        Self {
            config: Arc::new(config),
            current,
            endpoints,
            received: watch::Sender::new(None),
            applied: watch::Sender::new(Applied::default()),
        }
    }

    /// How far it follows, also after it has ended.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress {
            received: self.received.subscribe(),
            applied: self.applied.subscribe(),
        }
    }

    /// Follows the registry until it is cancelled, then ends the stream in order, within about a second.
    ///
    /// Essential: it ends earlier only by a mistake of its own, which is logged; the last catalog stays in use then.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it ends all its tasks at once.
    pub async fn run(self, cancel: CancellationToken) {
        let Self {
            config,
            current,
            endpoints,
            received,
            applied,
        } = self;
        let (received_out, applied_out) = (received.subscribe(), applied.subscribe());
        let (channel, channel_out) = watch::channel(None);
        let link = Link::new(config, Arc::clone(&current), endpoints, received, channel, applied_out);
        let applier = Applier::new(current, received_out, channel_out, applied);
        let span = info_span!("subscription");
        let mut tasks = JoinSet::new();
        tasks.spawn(link.run(cancel.clone()).instrument(span.clone()));
        tasks.spawn(applier.run(cancel).instrument(span));
        // Each is useless without the other.
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                error!(%error, "the subscription to the registry broke off");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
