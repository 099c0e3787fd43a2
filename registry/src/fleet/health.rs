//! The health of model servers as the connected routers see it. It is kept in memory only, and removed when the stream
//! that reported it ends. Pure.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use switchboard::{
    names::{ModelName, RouterId},
    resource::model::Model,
    stream::{EndpointReport, EndpointState},
};
use tokio::time::Instant;

use crate::domain::state::State;

/// Maximum number of endpoints that are kept per router and for the whole fleet. Further ones are ignored.
pub(crate) const OF_ROUTER_MAX: usize = 10_000;
const OF_FLEET_MAX: usize = 200_000;

/// The health of a server as one router sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterHealth {
    /// The router.
    pub router: RouterId,
    /// The state that the router sees.
    pub state: EndpointState,
    /// Reason of the state, for programs. Empty if the server is healthy.
    pub reason: Box<str>,
    /// When the router reported this state.
    pub since: Instant,
}

/// The health of one server of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointHealth {
    /// URI of the endpoint, as the model contains it.
    pub uri: Arc<str>,
    /// Number of routers that report this endpoint.
    pub router_count: usize,
    /// The reports, worst first. At least one.
    pub routers: Vec<RouterHealth>,
}

/// The reports of all routers.
#[derive(Debug, Default)]
pub(super) struct FleetHealth {
    by_model: BTreeMap<ModelName, ByEndpoint>,
    by_stream: HashMap<u64, BTreeSet<(ModelName, Arc<str>)>>,
    count: usize,
}

/// The reports about one model: by endpoint, then by stream.
type ByEndpoint = BTreeMap<Arc<str>, BTreeMap<u64, RouterHealth>>;

impl FleetHealth {
    /// Stores the reports that a router sends on one of its streams. Endpoints that no model of `state` has are not
    /// stored.
    pub(super) fn tell(
        &mut self,
        stream: u64,
        router: &RouterId,
        told: Vec<EndpointReport>,
        state: &State,
        now: Instant,
    ) {
        for report in told {
            let EndpointReport {
                model,
                uri,
                state: seen,
                reason,
            } = report;
            let Some(seen) = seen.filter(|_| has_endpoint(state, &model, &uri)) else {
                self.remove(stream, &(model, uri.into()));
                continue;
            };
            let fact = RouterHealth {
                router: router.clone(),
                state: seen,
                reason,
                since: now,
            };
            self.put(stream, model, &uri, fact);
        }
    }

    fn put(&mut self, stream: u64, model: ModelName, uri: &str, fact: RouterHealth) {
        let known = self.by_model.get_mut(&model).and_then(|model| model.get_mut(uri));
        if let Some(known) = known.and_then(|endpoint| endpoint.get_mut(&stream)) {
            *known = fact;
            return;
        }
        let of_stream = self.by_stream.entry(stream).or_default();
        if of_stream.len() >= OF_ROUTER_MAX || self.count >= OF_FLEET_MAX {
            return;
        }
        let endpoints = self.by_model.entry(model.clone()).or_default();
        // All routers share the text of the URI.
        let uri = endpoints
            .get_key_value(uri)
            .map_or_else(|| uri.into(), |(known, _)| Arc::clone(known));
        of_stream.insert((model, Arc::clone(&uri)));
        endpoints.entry(uri).or_default().insert(stream, fact);
        self.count += 1;
    }

    fn remove(&mut self, stream: u64, known: &(ModelName, Arc<str>)) {
        let of_stream = self.by_stream.get_mut(&stream);
        if of_stream.is_some_and(|of_stream| of_stream.remove(known)) {
            self.take_out(stream, known);
        }
    }

    /// Removes everything that was reported on a stream.
    pub(super) fn forget(&mut self, stream: u64) {
        for known in self.by_stream.remove(&stream).unwrap_or_default() {
            self.take_out(stream, &known);
        }
    }

    fn take_out(&mut self, stream: u64, (model, uri): &(ModelName, Arc<str>)) {
        let Some(endpoints) = self.by_model.get_mut(model) else {
            return;
        };
        if let Some(endpoint) = endpoints.get_mut(uri) {
            self.count -= usize::from(endpoint.remove(&stream).is_some());
            if endpoint.is_empty() {
                endpoints.remove(uri);
            }
        }
        if endpoints.is_empty() {
            self.by_model.remove(model);
        }
    }

    /// Returns the health of a model's endpoints, in the model's order, with at most `routers_max` reports each.
    /// Endpoints without a report are left out.
    pub(super) fn of(&self, model: &Model, routers_max: usize) -> Vec<EndpointHealth> {
        let Some(told) = self.by_model.get(&model.name) else {
            return Vec::new();
        };
        model
            .spec
            .uris()
            .filter_map(|uri| {
                let (uri, told) = told.get_key_value(uri.as_str())?;
                let mut worst_first: Vec<&RouterHealth> = told.values().collect();
                worst_first.sort_by_key(|told| (Reverse(told.state), &told.router));
                Some(EndpointHealth {
                    uri: Arc::clone(uri),
                    router_count: worst_first.len(),
                    routers: worst_first.into_iter().take(routers_max).cloned().collect(),
                })
            })
            .collect()
    }
}

fn has_endpoint(state: &State, model: &ModelName, uri: &str) -> bool {
    let model = state.models.get(model);
    model.is_some_and(|model| model.value.spec.uris().any(|known| known.as_str() == uri))
}
