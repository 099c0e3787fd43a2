use std::{collections::BTreeSet, time::Duration};

use futures_util::FutureExt as _;
use switchboard::{
    catalogue::Catalogue,
    digest::{ChainDigest, StateDigest},
    history::{Cursor, Incarnation, View},
    names::{CredentialId, IncarnationId, StoreId},
    pb::registry,
    resource::{feature::FeatureLimits, model::ModelSpec},
    secret::ApiToken,
};
use tokio::time::timeout;

use super::*;
use crate::catalog::{Assignment, Credential, ModelState, Setting};

const FLOOD: &str = "duo_chat";
const RESERVED: &str = "code_generations";

fn feature(name: &str) -> &'static FeatureName {
    &Catalogue::get().called(name).unwrap().name
}

fn party(name: &str) -> Party {
    Party {
        feature: feature(name),
        has_reservation: true,
    }
}

/// A catalog of one model with these limits, of which one feature has places of its own.
pub(super) fn catalog(revision: i64, places: usize, queue: usize, reserved: usize) -> (Arc<Catalog>, Arc<Model>) {
    let spec = registry::Model {
        display_name: Some("M".to_owned()),
        family: Some("llama3".to_owned()),
        identifier: Some("m".to_owned()),
        endpoint: Some("http://gpu1:8000".to_owned()),
        limits: Some(registry::ModelLimits {
            max_concurrency: i32::try_from(places).ok(),
            max_queue: i32::try_from(queue).ok(),
            queue_timeout: Duration::from_millis(200).try_into().ok(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let spec = Arc::new(ModelSpec::whole(spec).unwrap());
    let model = Arc::new(Model::new(ModelName::from_id("m").unwrap(), spec, None));
    let setting = |reserved_concurrency: usize| {
        Setting::SelfHosted(Arc::new(Assignment {
            model: model.name.clone(),
            fallbacks: Vec::new(),
            rules: Vec::new(),
            limits: FeatureLimits {
                max_concurrency: None,
                reserved_concurrency: Count::parse(i32::try_from(reserved_concurrency).unwrap()).ok(),
            },
            hedge_delay: None,
        }))
    };
    let catalog = Catalog {
        cursor: Cursor {
            store: StoreId::random(),
            incarnation: Incarnation {
                number: 1,
                id: IncarnationId::random(),
            },
            revision: Revision::new(revision).unwrap(),
            chain: ChainDigest::NONE,
            view: View::Router,
            state: StateDigest::EMPTY,
        },
        features: HashMap::from([
            (feature(FLOOD).clone(), setting(0)),
            (feature(RESERVED).clone(), setting(reserved)),
        ]),
        models: HashMap::from([(model.name.clone(), ModelState::Ready(Arc::clone(&model)))]),
        inference_paused: false,
    };
    (Arc::new(catalog), model)
}

pub(super) fn credential() -> Credential {
    Credential {
        id: CredentialId::random(),
        origins: BTreeSet::new(),
        token: ApiToken::parse("secret".to_owned()).unwrap(),
    }
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

#[tokio::test]
async fn whenever_a_caller_goes_its_place_is_free_for_the_next() {
    let (catalog, model) = catalog(1, 1, 1, 0);
    let permits = Permits::default();
    let enter = || permits.place(&catalog, &model, party(FLOOD), far());
    // Before it came.
    drop(enter());
    // While it waits.
    let inside = enter().await.unwrap();
    let mut waits = Box::pin(enter());
    assert!(waits.as_mut().now_or_never().is_none());
    drop(waits);
    // Called, and not yet told.
    let mut waits = Box::pin(enter());
    assert!(waits.as_mut().now_or_never().is_none());
    drop(inside);
    drop(waits);
    assert!(
        permits.lock().is_empty(),
        "nothing is kept of a model that nobody calls"
    );
    assert!(enter().now_or_never().unwrap().is_ok());
}

#[tokio::test]
async fn who_is_sent_away_for_another_is_told_at_once() {
    let (catalog, model) = catalog(1, 1, 2, 0);
    let permits = Permits::default();
    let enter = |name| Box::pin(permits.place(&catalog, &model, party(name), far()));
    let inside = enter(FLOOD).await.unwrap();
    let (mut first, mut second) = (enter(FLOOD), enter(FLOOD));
    assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
    let mut other = enter(RESERVED);
    assert!(other.as_mut().now_or_never().is_none());
    assert_eq!(second.as_mut().now_or_never().unwrap().unwrap_err(), Overloaded);
    drop(inside);
    let (first, other) = (first.map(|place| place.is_ok()), other.map(|place| place.is_ok()));
    assert_eq!(tokio::join!(first, other), (true, true));
    // One who goes before it is told does not take a place with it.
    let inside = enter(FLOOD).await.unwrap();
    let (mut first, mut second) = (enter(FLOOD), enter(FLOOD));
    assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
    let mut other = enter(RESERVED);
    assert!(other.as_mut().now_or_never().is_none());
    drop(inside);
    drop(second);
    let (first, other) = (first.map(|place| place.is_ok()), other.map(|place| place.is_ok()));
    assert_eq!(tokio::join!(first, other), (true, true));
    assert!(permits.lock().is_empty());
}

#[tokio::test]
async fn a_caller_leaves_when_it_has_waited_long_enough_or_its_time_is_short() {
    let (catalog, model) = catalog(1, 1, 2, 0);
    let permits = Permits::default();
    let _inside = permits.place(&catalog, &model, party(FLOOD), far()).await.unwrap();
    for (is_short, waited) in [(false, 200), (true, 50)] {
        let begun = Instant::now();
        let until = if is_short {
            begun + Duration::from_millis(waited)
        } else {
            far()
        };
        let refused = permits.place(&catalog, &model, party(FLOOD), until).await;
        assert_eq!(refused.unwrap_err(), Overloaded);
        let waited = Duration::from_millis(waited);
        assert!(
            (waited..waited + Duration::from_millis(140)).contains(&begun.elapsed()),
            "{:?}",
            begun.elapsed()
        );
    }
}

#[tokio::test]
async fn the_limits_of_a_newer_catalog_hold_and_an_older_one_does_not_set_them_back() {
    let (old, model) = catalog(1, 1, 1, 1);
    let (new, model_now) = catalog(2, 2, 1, 0);
    let permits = Permits::default();
    let soon = Duration::from_millis(50);
    let in_time = |catalog, model, name| timeout(soon, permits.place(catalog, model, party(name), far()));
    let _reserved = in_time(&old, &model, RESERVED).await.unwrap().unwrap();
    // Nothing is left for others, however long they would wait.
    assert_eq!(in_time(&old, &model, FLOOD).await.unwrap().unwrap_err(), Overloaded);
    let second = in_time(&new, &model_now, FLOOD).await.unwrap().unwrap();
    assert!(
        in_time(&old, &model, RESERVED).await.is_err(),
        "nothing is reserved any more"
    );
    drop(second);
    let _second = in_time(&old, &model, FLOOD).await.unwrap().unwrap();
}
