//! Collects changes in the health of servers, for reports to the registry.
//!
//! The number of entries is bounded by the endpoints of the catalogs that calls have used.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use parking_lot::{Mutex, MutexGuard};
use switchboard::{endpoint::EndpointUri, names::ModelName};
use tokio::sync::watch;

use super::Health;
use crate::catalog::{Catalog, ModelState};

/// How the health of one server has changed since it was reported last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthChange {
    /// The model.
    pub model: ModelName,
    /// The base URL of the server.
    pub uri: EndpointUri,
    /// The server's health. `None`: no model has this server any longer.
    pub health: Option<Health>,
}

/// The health of each server. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reports {
    shared: Arc<SharedReports>,
}

#[derive(Debug, Default)]
struct SharedReports {
    known: Mutex<ReportedServers>,
    /// The number of the newest change.
    newest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct ReportedServers {
    by_place: HashMap<ServerKey, Fact>,
    /// The same keys, in the order in which their servers changed.
    by_change: BTreeMap<u64, ServerKey>,
    changes: u64,
}

type ServerKey = (ModelName, EndpointUri);

#[derive(Debug)]
struct Fact {
    change: u64,
    health: Option<Health>,
}

impl Reports {
    /// Records the health of a server of a model.
    pub(crate) fn note(&self, model: &ModelName, uri: &EndpointUri, health: Health) {
        let mut known = self.known();
        let place = (model.clone(), uri.clone());
        if known
            .by_place
            .get(&place)
            .is_some_and(|fact| fact.health == Some(health))
        {
            return;
        }
        known.put(place, Some(health));
        self.wake(&known);
    }

    /// Removes the servers that no model of `catalog` has. Their removal is the last change that is reported of them.
    pub(crate) fn keep(&self, catalog: &Catalog) {
        let mut known = self.known();
        let facts = known.by_place.iter();
        let gone = facts.filter(|(place, fact)| fact.health.is_some() && !has(catalog, place));
        let gone: Vec<ServerKey> = gone.map(|(place, _)| place.clone()).collect();
        for place in gone {
            known.put(place, None);
        }
        self.wake(&known);
    }

    /// Returns a follower that reports all servers from the start.
    #[must_use]
    pub(crate) fn follow(&self) -> Following {
        Following {
            newest: self.shared.newest.subscribe(),
            reports: self.clone(),
            told: 0,
        }
    }

    fn known(&self) -> MutexGuard<'_, ReportedServers> {
        self.shared.known.lock()
    }

    fn wake(&self, known: &ReportedServers) {
        let newest = known.changes;
        self.shared
            .newest
            .send_if_modified(|told| std::mem::replace(told, newest) != newest);
    }
}

impl ReportedServers {
    fn put(&mut self, place: ServerKey, health: Option<Health>) {
        self.changes += 1;
        let change = self.changes;
        self.by_change.insert(change, place.clone());
        if let Some(before) = self.by_place.insert(place, Fact { change, health }) {
            self.by_change.remove(&before.change);
        }
    }

    fn forget(&mut self, place: &ServerKey) {
        if let Some(fact) = self.by_place.remove(place) {
            self.by_change.remove(&fact.change);
        }
    }
}

fn has(catalog: &Catalog, (model, uri): &ServerKey) -> bool {
    match catalog.models.get(model) {
        Some(ModelState::Ready(model)) => model.spec.uris().any(|known| known == uri),
        // The model may come back with the same servers: their health is still valid.
        Some(ModelState::Disabled | ModelState::CredentialMissing | ModelState::NotReady) => true,
        None => false,
    }
}

/// Returns the health of servers in the order in which it changed, and only the newest health of each.
#[derive(Debug)]
pub struct Following {
    reports: Reports,
    newest: watch::Receiver<u64>,
    told: u64,
}

impl Following {
    /// Returns the next changes, at most `count`. The remaining ones come with the next call.
    pub fn changes(&mut self, count: usize) -> Vec<HealthChange> {
        let mut known = self.reports.known();
        let next = known.by_change.range(self.told + 1..).take(count);
        let next: Vec<(u64, ServerKey)> = next.map(|(change, place)| (*change, place.clone())).collect();
        let mut changes = Vec::new();
        for (change, place) in next {
            self.told = change;
            let health = known.by_place.get(&place).and_then(|fact| fact.health);
            if health.is_none() {
                known.forget(&place);
            }
            let (model, uri) = place;
            changes.push(HealthChange { model, uri, health });
        }
        changes
    }

    /// Waits until there is a change to report.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn changed(&mut self) {
        let told = self.told;
        // Cannot fail: `reports` keeps the sender alive.
        drop(self.newest.wait_for(|newest| *newest > told).await);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use switchboard::reason::Reason;
    use tokio::time::timeout;

    use super::*;

    fn model(id: &str) -> ModelName {
        ModelName::from_id(id).unwrap()
    }

    fn uri(number: usize) -> EndpointUri {
        EndpointUri::parse(&format!("http://gpu{number}:8000")).unwrap()
    }

    fn told(following: &mut Following, count: usize) -> Vec<(String, Option<Health>)> {
        let changes = following.changes(count).into_iter();
        changes
            .map(|change| (change.uri.as_str().to_owned(), change.health))
            .collect()
    }

    fn row(number: usize, health: Health) -> (String, Option<Health>) {
        (uri(number).as_str().to_owned(), Some(health))
    }

    const CUT: Health = Health::Recovering(Reason::UpstreamStreamTruncated);

    #[tokio::test]
    async fn only_real_changes_are_reported_and_each_one_once() {
        let reports = Reports::default();
        let mut following = reports.follow();
        reports.note(&model("a"), &uri(1), CUT);
        reports.note(&model("a"), &uri(2), Health::Healthy);
        reports.note(&model("a"), &uri(1), Health::Healthy);
        following.changed().await;
        let expected = [row(2, Health::Healthy), row(1, Health::Healthy)];
        assert_eq!(told(&mut following, 9), expected);
        reports.note(&model("a"), &uri(1), Health::Healthy);
        assert!(told(&mut following, 9).is_empty());
        let quiet = timeout(Duration::from_millis(1), following.changed()).await;
        assert!(quiet.is_err(), "nothing has changed");
    }

    #[tokio::test]
    async fn changes_beyond_the_limit_come_next_and_a_new_follower_gets_all() {
        let reports = Reports::default();
        let mut following = reports.follow();
        for number in 0..5 {
            reports.note(&model("a"), &uri(number), CUT);
        }
        assert_eq!(told(&mut following, 3), [row(0, CUT), row(1, CUT), row(2, CUT)]);
        following.changed().await;
        assert_eq!(told(&mut following, 3), [row(3, CUT), row(4, CUT)]);
        assert_eq!(told(&mut reports.follow(), 9).len(), 5);
    }

    #[test]
    fn a_server_that_no_model_has_is_reported_as_gone_and_forgotten() {
        let reports = Reports::default();
        let mut following = reports.follow();
        reports.note(&model("a"), &uri(1), CUT);
        reports.note(&model("b"), &uri(1), CUT);
        assert_eq!(following.changes(9).len(), 2);
        let store = crate::subscription::fixture::Store::new();
        let mut catalog = Catalog {
            cursor: store.cursor,
            features: HashMap::new(),
            models: HashMap::from([(model("a"), ModelState::Disabled)]),
            inference_paused: false,
        };
        reports.keep(&catalog);
        let gone = following.changes(9);
        assert_eq!((gone.len(), gone[0].model.id(), gone[0].health), (1, "b", None));
        catalog.models.clear();
        reports.keep(&catalog);
        assert_eq!(following.changes(9).len(), 1);
        assert!(reports.known().by_place.is_empty() && reports.known().by_change.is_empty());
    }
}
