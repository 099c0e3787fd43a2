//! One router process: the real subscription in simulated surroundings.

use std::sync::Arc;

use switchboard::names::{Group, InstanceId, RouterId};
use switchboard_router::{
    current::Current,
    live::LiveModels,
    subscription::{Subscription, SubscriptionConfig},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    calls::keep_calling,
    history::{Actor, Event, Log, Process},
    network::Network,
    surroundings::Surroundings,
};

/// A running router.
#[derive(Debug)]
pub(crate) struct Router {
    /// Dropped together with the router, as in a kill.
    _tasks: JoinSet<()>,
}

impl Router {
    /// Starts a process that follows the registries at `addresses`.
    pub(crate) fn start(process: Process, addresses: usize, network: &Network, seed: u64, log: &Log) -> Self {
        let instance = InstanceId::random();
        log.write(Actor::Receiver(process.router), Event::Started { process, instance });
        let current = Arc::<Current>::default();
        let config = SubscriptionConfig {
            registry_addrs: (0..addresses)
                .map(|address| format!("http://10.0.0.{address}:1").parse().unwrap())
                .collect(),
            router_id: RouterId::parse(&process.id()).unwrap(),
            group: Group::default(),
            instance,
            build: "simulated".into(),
            snapshot: None,
        };
        let surroundings = Surroundings::new(network.clone(), process, Arc::clone(&current), seed);
        let subscription = Subscription::within(surroundings, config, Arc::clone(&current), LiveModels::default());
        let progress = subscription.progress();
        let mut tasks = JoinSet::new();
        // Calls have a seed of their own, so that everything else in the run stays the same.
        tasks.spawn(keep_calling(process, Arc::clone(&current), network.clone(), !seed));
        let (mut states, to) = (progress.states(), log.clone());
        tasks.spawn(async move {
            while states.changed().await.is_ok() {
                if let Some(state) = states.borrow_and_update().clone() {
                    to.write(Actor::Receiver(process.router), Event::Received { process, state });
                }
            }
        });
        let (mut applications, to) = (progress.applications(), log.clone());
        tasks.spawn(async move {
            while applications.changed().await.is_ok() {
                let applied = applications.borrow_and_update().clone();
                if let Some(catalog) = current.load() {
                    let event = Event::InUse {
                        process,
                        applied,
                        catalog,
                    };
                    to.write(Actor::Catalog(process.router), event);
                }
            }
        });
        tasks.spawn(async move {
            // The subscription draws its initial random values in the first poll.
            fastrand::seed(seed);
            subscription.run(CancellationToken::new()).await;
        });
        Self { _tasks: tasks }
    }
}
