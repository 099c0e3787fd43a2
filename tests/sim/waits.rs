//! Clients that wait until a revision is in force.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use switchboard::names::Revision;
use switchboard_registry::fleet::wait::AwaitedRevision;

use crate::{
    history::{Actor, Event},
    network::Network,
    registry::RunLink,
    time::between,
};

/// The actor class of all waits, which run one after the other.
const CLASS: u64 = 6;

/// Maximum number of routers.
const ROUTERS_MAX: usize = 100;

/// Waits for one revision after the other until it is dropped.
pub(crate) async fn keep_waiting(network: Network, seed: u64) {
    let mut random = Rng::with_seed(seed);
    for number in 0.. {
        network.clock.pause(CLASS, between(&mut random, 200, 3_000)).await;
        let Some(run) = network.at(0).filter(|run| !run.dead.is_cancelled()) else {
            continue;
        };
        let timeout = between(&mut random, 500, 20_000);
        tokio::select! {
            biased;
            () = run.dead.cancelled() => {}
            () = wait(&network, &run, number, timeout) => {}
        }
    }
}

/// Waits for the newest revision and logs the result.
pub(crate) async fn wait(network: &Network, run: &RunLink, number: usize, timeout: Duration) {
    let (fleet, actor) = (Arc::clone(run.feed.fleet()), Actor::Waiter);
    let newest: Revision = run.commit.state().items.revision();
    let connected = fleet.routers(None, ROUTERS_MAX).into_iter().map(|seen| seen.key.1);
    let event = Event::Waiting {
        wait: number,
        revision: newest,
        connected: connected.collect(),
    };
    network.log.write(actor, event);
    let wanted = AwaitedRevision {
        revision: Some(newest),
        incarnation: None,
        group: Default::default(),
        min_routers: 0,
    };
    let shutdown = run.feed.shutdown().clone();
    let result = fleet.wait(wanted, timeout, run.feed.published(), shutdown).await;
    network.log.write(actor, Event::Waited { wait: number, result });
}
