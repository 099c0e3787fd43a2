//! How the servers of models do, as this router's calls find them: the last verdict on each, and which changed since.
//!
//! It decides nothing about calls. What is kept is bounded by the endpoints of the catalogs that calls went by.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use switchboard::{endpoint::EndpointUri, names::ModelName, reason::Reason};
use tokio::sync::watch;

use crate::catalog::{Catalog, ModelState};

/// How a server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It answers.
    Healthy,
    /// It failed; nothing has answered since.
    Recovering(Reason),
    /// Somebody has to change something.
    Misconfigured(Reason),
    /// It asked for less load.
    BackingOff(Reason),
}

/// What has become of one server since it was told of last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The model.
    pub model: ModelName,
    /// Its server.
    pub uri: EndpointUri,
    /// How it does. `None`: no model has it any longer.
    pub verdict: Option<Verdict>,
}

/// The last verdict on each server. A clone shares them.
#[derive(Debug, Clone, Default)]
pub struct Endpoints {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    known: Mutex<Known>,
    /// The number of the newest change.
    newest: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Known {
    by_place: HashMap<Place, Fact>,
    /// The places again, in the order in which they changed.
    by_change: BTreeMap<u64, Place>,
    changes: u64,
}

type Place = (ModelName, EndpointUri);

#[derive(Debug)]
struct Fact {
    change: u64,
    verdict: Option<Verdict>,
}

impl Endpoints {
    /// Notes how a server of a model does.
    pub fn note(&self, model: &ModelName, uri: &EndpointUri, verdict: Verdict) {
        let mut known = self.known();
        let place = (model.clone(), uri.clone());
        if known
            .by_place
            .get(&place)
            .is_some_and(|fact| fact.verdict == Some(verdict))
        {
            return;
        }
        known.put(place, Some(verdict));
        self.wake(&known);
    }

    /// Forgets the servers that no model of `catalog` has; that they are gone is the last that is told of them.
    pub fn keep(&self, catalog: &Catalog) {
        let mut known = self.known();
        let facts = known.by_place.iter();
        let gone = facts.filter(|(place, fact)| fact.verdict.is_some() && !has(catalog, place));
        let gone: Vec<Place> = gone.map(|(place, _)| place.clone()).collect();
        for place in gone {
            known.put(place, None);
        }
        self.wake(&known);
    }

    /// Begins to tell of all servers anew.
    #[must_use]
    pub fn follow(&self) -> Following {
        Following {
            newest: self.shared.newest.subscribe(),
            endpoints: self.clone(),
            told: 0,
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.shared.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, known: &Known) {
        let newest = known.changes;
        self.shared
            .newest
            .send_if_modified(|told| std::mem::replace(told, newest) != newest);
    }
}

impl Known {
    fn put(&mut self, place: Place, verdict: Option<Verdict>) {
        self.changes += 1;
        let change = self.changes;
        self.by_change.insert(change, place.clone());
        if let Some(before) = self.by_place.insert(place, Fact { change, verdict }) {
            self.by_change.remove(&before.change);
        }
    }

    fn forget(&mut self, place: &Place) {
        if let Some(fact) = self.by_place.remove(place) {
            self.by_change.remove(&fact.change);
        }
    }
}

fn has(catalog: &Catalog, (model, uri): &Place) -> bool {
    match catalog.models.get(model) {
        Some(ModelState::Ready(model)) => model.endpoints.iter().any(|endpoint| endpoint.uri == *uri),
        // It may come back with the same servers: what was found of them still holds.
        Some(ModelState::Disabled | ModelState::CredentialMissing | ModelState::NotReady) => true,
        None => false,
    }
}

/// Tells of servers, each as it is now, in the order in which they changed.
#[derive(Debug)]
pub struct Following {
    endpoints: Endpoints,
    newest: watch::Receiver<u64>,
    told: u64,
}

impl Following {
    /// The next changes, at most `count`. The rest stays for the next time.
    pub fn changes(&mut self, count: usize) -> Vec<Change> {
        let mut known = self.endpoints.known();
        let next = known.by_change.range(self.told + 1..).take(count);
        let next: Vec<(u64, Place)> = next.map(|(change, place)| (*change, place.clone())).collect();
        let mut changes = Vec::new();
        for (change, place) in next {
            self.told = change;
            let verdict = known.by_place.get(&place).and_then(|fact| fact.verdict);
            if verdict.is_none() {
                known.forget(&place);
            }
            let (model, uri) = place;
            changes.push(Change { model, uri, verdict });
        }
        changes
    }

    /// Waits until there is something to tell.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub async fn changed(&mut self) {
        let told = self.told;
        // This end keeps the other one open.
        drop(self.newest.wait_for(|newest| *newest > told).await);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn model(id: &str) -> ModelName {
        ModelName::from_id(id).unwrap()
    }

    fn uri(number: usize) -> EndpointUri {
        EndpointUri::parse(&format!("http://gpu{number}:8000")).unwrap()
    }

    fn told(following: &mut Following, count: usize) -> Vec<(String, Option<Verdict>)> {
        let changes = following.changes(count).into_iter();
        changes
            .map(|change| (change.uri.as_str().to_owned(), change.verdict))
            .collect()
    }

    fn row(number: usize, verdict: Verdict) -> (String, Option<Verdict>) {
        (uri(number).as_str().to_owned(), Some(verdict))
    }

    const CUT: Verdict = Verdict::Recovering(Reason::UpstreamStreamTruncated);

    #[tokio::test]
    async fn a_change_is_told_once_and_only_when_it_is_one() {
        let endpoints = Endpoints::default();
        let mut following = endpoints.follow();
        endpoints.note(&model("a"), &uri(1), CUT);
        endpoints.note(&model("a"), &uri(2), Verdict::Healthy);
        endpoints.note(&model("a"), &uri(1), Verdict::Healthy);
        following.changed().await;
        let expected = [row(2, Verdict::Healthy), row(1, Verdict::Healthy)];
        assert_eq!(told(&mut following, 9), expected);
        endpoints.note(&model("a"), &uri(1), Verdict::Healthy);
        assert!(told(&mut following, 9).is_empty());
        let quiet = timeout(Duration::from_millis(1), following.changed()).await;
        assert!(quiet.is_err(), "nothing has changed");
    }

    #[tokio::test]
    async fn what_finds_no_room_comes_next_and_a_new_stream_hears_all() {
        let endpoints = Endpoints::default();
        let mut following = endpoints.follow();
        for number in 0..5 {
            endpoints.note(&model("a"), &uri(number), CUT);
        }
        assert_eq!(told(&mut following, 3), [row(0, CUT), row(1, CUT), row(2, CUT)]);
        following.changed().await;
        assert_eq!(told(&mut following, 3), [row(3, CUT), row(4, CUT)]);
        assert_eq!(told(&mut endpoints.follow(), 9).len(), 5);
    }

    #[test]
    fn a_server_that_no_model_has_is_told_gone_and_forgotten() {
        let endpoints = Endpoints::default();
        let mut following = endpoints.follow();
        endpoints.note(&model("a"), &uri(1), CUT);
        endpoints.note(&model("b"), &uri(1), CUT);
        assert_eq!(following.changes(9).len(), 2);
        let store = crate::subscription::fixture::Store::new();
        let mut catalog = Catalog {
            cursor: store.cursor,
            features: HashMap::new(),
            models: HashMap::from([(model("a"), ModelState::Disabled)]),
            inference_paused: false,
        };
        endpoints.keep(&catalog);
        let gone = following.changes(9);
        assert_eq!((gone.len(), gone[0].model.id(), gone[0].verdict), (1, "b", None));
        catalog.models.clear();
        endpoints.keep(&catalog);
        assert_eq!(following.changes(9).len(), 1);
        assert!(endpoints.known().by_place.is_empty() && endpoints.known().by_change.is_empty());
    }
}
