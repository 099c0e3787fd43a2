//! Calls during catalog swaps: each call tries one model after the other from the catalog with which it began.

use std::sync::Arc;

use fastrand::Rng;
use switchboard_router::{
    catalog::{Caller, Catalog, CompiledModel},
    current::Current,
};

use crate::{
    history::{Actor, Event, Process, Sent},
    mutants::Mutant,
    network::Network,
    time::between,
    writes::FEATURES,
};

/// The actor class of all calls, which do not affect each other.
const CLASS: u64 = 7;

/// Makes one call after the other until it is dropped.
pub(crate) async fn keep_calling(process: Process, current: Arc<Current>, network: Network, seed: u64) {
    let mut random = Rng::with_seed(seed);
    for call in 0.. {
        network.clock.pause(CLASS, between(&mut random, 50, 1_500)).await;
        let Some(catalog) = current.load() else { continue };
        let feature = FEATURES[random.usize(..FEATURES.len())];
        let began = Event::Called {
            process,
            call,
            feature,
            catalog: Arc::clone(&catalog),
        };
        network.log.write(Actor::Caller(process.router), began);
        // The pauses stand for a queue, and then for servers that do not answer.
        for attempt in 0..2 {
            network.clock.pause(CLASS, between(&mut random, 0, 2_500)).await;
            let catalog = match network.mutant {
                Some(Mutant::LoadedAgain) => current.load().unwrap(),
                _ => Arc::clone(&catalog),
            };
            let sent = Event::Sent {
                process,
                call,
                sent: send(&catalog, feature, attempt),
            };
            network.log.write(Actor::Caller(process.router), sent);
        }
    }
}

/// Returns what an attempt takes from a catalog.
pub(crate) fn send(catalog: &Catalog, feature: &str, attempt: usize) -> Sent {
    let decision = catalog.resolve(feature, &Caller::default()).ok();
    let model = decision.and_then(|decision| {
        let models = catalog
            .candidates(&decision)
            .filter_map(|candidate| candidate.model.ok());
        let models: Vec<&Arc<CompiledModel>> = models.collect();
        // If there is no other model, the same one is tried again.
        models.get(attempt).or_else(|| models.last()).copied()
    });
    Sent {
        attempt,
        revision: catalog.cursor.revision,
        model: model.map(|model| model.name.to_string()),
        uris: model
            .iter()
            .flat_map(|model| model.spec.servers())
            .map(|endpoint| endpoint.uri.as_str().to_owned())
            .collect(),
        token: model
            .and_then(|model| model.credential.as_ref())
            .map(|credential| credential.token.expose().to_owned()),
    }
}
